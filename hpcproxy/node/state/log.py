"""The log: a line for each change of state, with time, job and node; none for each try of a storm of retries.

In the state directory, and where an admin has rolled hpcproxy out in the system's log too. None of it can fail or stall
the tunnel.
"""

import os
import socket
import sys
import time
from typing import Set

LEVELS = ("error", "info", "debug")  # a level shows itself and those before it
PRIORITIES = {"error": 27, "info": 30, "debug": 31}  # of syslog(3): the facility daemon, and how bad
SYSTEM_LOG = "/dev/log"
ONCE = 64  # different lines of one storm; more of them are no news


class Journal:
    """Lines of `level` and above, of `job` on `node`."""

    def __init__(self, job: str, node: str, level: str, syslog: bool, system_log: str = SYSTEM_LOG) -> None:
        self.job, self.node = job, node
        self.shown = LEVELS[: LEVELS.index(level) + 1]
        self.syslog, self.system_log = syslog, system_log
        self.fd = -1
        self.said: Set[str] = set()

    def open(self, folder_fd: int) -> None:
        """Lines go to the file `log` in that directory from now on; -1: nowhere."""
        if self.fd >= 0:
            os.close(self.fd)
        self.fd = open_append(folder_fd, "log") if folder_fd >= 0 else -1

    def write(self, level: str, text: str) -> None:
        """One line."""
        if level in self.shown:
            text = one_line(text)
            append(self.fd, "{} {} {} {}\n".format(iso(time.time()), self.job, self.node, text))
            if self.syslog:
                self.tell_system(level, text)

    def once(self, level: str, text: str) -> None:
        """One line, unless it was written since the last `calm`; then it is a detail."""
        news = text not in self.said and len(self.said) < ONCE
        if news:
            self.said.add(text)
        self.write(level if news else "debug", text)

    def calm(self) -> None:
        """The storm is over: what comes next is news."""
        self.said.clear()

    def tell_system(self, level: str, text: str) -> bool:
        """The system's log has the line; False if there is none, or it is busy: nobody waits for it."""
        when = time.strftime("%b %d %H:%M:%S")
        head = "<{}>{} hpcproxy[{}]: job {} node {}: ".format(PRIORITIES[level], when, os.getpid(), self.job, self.node)
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
                sock.setblocking(False)
                sock.sendto((head + text).encode("utf-8", "replace"), self.system_log)
        except OSError:
            return False
        return True


def open_append(folder_fd: int, name: str) -> int:
    """A descriptor that appends to the file `name` there, -1 if the file system does not let us."""
    try:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
        return os.open(name, flags, 0o600, dir_fd=folder_fd)
    except OSError as error:
        print("hpcproxy agent: {}: {}".format(name, error.strerror), file=sys.stderr)
        return -1


def append(fd: int, line: str) -> None:
    """The line is in the file, if there is room."""
    if fd >= 0:
        try:
            os.write(fd, line.encode("utf-8", "replace"))
        except OSError:
            pass  # ENOSPC, EDQUOT: the tunnel matters more than its log


def one_line(text: str) -> str:
    """`text` as one printable line."""
    return "".join(c if c.isprintable() else "?" for c in text)


def iso(seconds: float) -> str:
    """Local time with its offset, as ISO 8601 has it."""
    return time.strftime("%Y-%m-%dT%H:%M:%S%z", time.localtime(seconds))

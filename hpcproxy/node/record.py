"""What the agent says of itself: lines on stdout, the log, status.json, access.log. None of it can fail or stall it."""

import json
import os
import select
import sys
import time
from typing import Callable, Optional, Tuple

from .loop import Loop, Timer

VERSION = 1
EVERY_S = 1.0  # status.json is written at most that often
WHILE_ACTIVE_S = 10.0  # and that often at least while connections are open: their bytes grow


class Record:
    """Counters and where they go. The counters, all since the start: `requests` that named a far end, `held` of them
    that had to wait for ssh, `refused` connections from others than this job's user or over the bounds, `denied`
    requests by policy, `bytes_up` and `bytes_down` of all requests; `active` is the connections at this moment."""

    def __init__(self, loop: Loop, folder: str, node: str, address: str, port: int, access_log: bool) -> None:
        self.loop, self.folder = loop, folder
        self.node, self.address, self.port = node, address, port
        self.requests = self.active = self.bytes_up = self.bytes_down = 0
        self.held = self.refused = self.denied = self.reconnects = self.restarts = 0
        self.pid = os.getpid()
        self.ready = False
        self.since = time.time()
        self.jump: Optional[str] = None
        self.last_error: Optional[str] = None
        self.open_bytes: Callable[[], Tuple[int, int]] = lambda: (0, 0)
        self.access_log = access_log
        self.folder_fd = self.log_fd = self.access_fd = -1
        self.timer: Optional[Timer] = None
        self.written = 0.0
        self.open()

    def open(self) -> None:
        """Everything is written into the state directory that is there now; call again when it was made anew.

        Not by its path: once a directory in /tmp is gone, anybody may put something of his in its place.
        """
        for fd in (self.folder_fd, self.log_fd, self.access_fd):
            if fd >= 0:
                os.close(fd)
        self.folder_fd = self.log_fd = self.access_fd = -1
        try:
            self.folder_fd = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError as error:
            print("hpcproxy agent: {}: {}".format(self.folder, error.strerror), file=sys.stderr)
            return  # gone again; the way out serves
        self.log_fd = open_append(self.folder_fd, "log")
        self.access_fd = open_append(self.folder_fd, "access.log") if self.access_log else -1

    def announce(self, word: str, text: str) -> None:
        """One line on stdout: WORD NODE TEXT. A reader that has gone or does not read is no concern of ours."""
        line = "{} {} {}\n".format(word, self.node, one_line(text)).encode("utf-8", "replace")
        try:
            if select.select([], [1], [], 0)[1]:
                os.write(1, line)
        except (OSError, ValueError):
            pass  # EPIPE: the job has read `ready` and closed
        self.log("{} {}".format(word, text))

    def log(self, text: str) -> None:
        """One line with the time in the log."""
        append(self.log_fd, "{} {}\n".format(iso(time.time()), one_line(text)))

    def access(self, host_port: str, up: int, down: int, seconds: float, outcome: str) -> None:
        """One finished request."""
        if self.access_fd >= 0:
            line = "{} {} {} {} {:.3f} {}\n".format(iso(time.time()), host_port, up, down, seconds, one_line(outcome))
            append(self.access_fd, line)

    def failed(self, text: str) -> None:
        """An attempt to get a way out failed."""
        self.last_error = text
        self.log("failed {}".format(text))
        self.changed()

    def up(self, jump: str, again: bool) -> None:
        """There is a way out."""
        self.ready, self.jump, self.since = True, jump, time.time()
        self.reconnects += int(again)
        self.log("up through {}".format(jump))
        self.write_status()  # at once: who was told `ready` looks there next

    def down(self, text: str) -> None:
        """There is none any more."""
        self.ready, self.jump, self.since, self.last_error = False, None, time.time(), text
        self.log("down {}".format(text))
        self.write_status()

    def changed(self) -> None:
        """status.json is brought up to date, within a second."""
        when = max(time.monotonic(), self.written + EVERY_S)
        if self.timer is None or self.timer.when > when:
            if self.timer is not None:
                self.timer.cancel()  # the one of WHILE_ACTIVE_S, which is later
            self.timer = self.loop.call_at(when, self._write)

    def _write(self) -> None:
        self.timer = None
        self.written = time.monotonic()
        self.write_status()
        if self.active:
            self.timer = self.loop.call_at(self.written + WHILE_ACTIVE_S, self._write)

    def write_status(self) -> None:
        """status.json is the present state; readers see the old or the new one, never half of it."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
        here = self.folder_fd
        try:
            fd = os.open("status.json.tmp", flags, 0o600, dir_fd=here)
            try:
                data = json.dumps(self.status()).encode("ascii") + b"\n"
                whole = os.write(fd, data) == len(data)
            finally:
                os.close(fd)
            if whole:
                os.replace("status.json.tmp", "status.json", src_dir_fd=here, dst_dir_fd=here)
        except OSError:
            pass  # a full disk costs the report, not the way out

    def status(self) -> dict:  # type: ignore[type-arg]
        """The content of status.json."""
        up, down = self.open_bytes()
        return {
            "version": VERSION,
            "node": self.node,
            "address": self.address,
            "port": self.port,
            "mode": "gate",
            "ready": self.ready,
            "since": self.since,
            "jump": self.jump,
            "reconnects": self.reconnects,
            "restarts": self.restarts,
            "last_error": self.last_error,
            "requests": self.requests,
            "active": self.active,
            "bytes_up": self.bytes_up + up,
            "bytes_down": self.bytes_down + down,
            "held": self.held,
            "refused": self.refused,
            "denied": self.denied,
            "pid": self.pid,
        }


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
            pass  # ENOSPC, EDQUOT: the way out matters more than its log


def one_line(text: str) -> str:
    """`text` as one printable line."""
    return "".join(c if c.isprintable() else "?" for c in text)


def iso(seconds: float) -> str:
    """Local time with its offset, as ISO 8601 has it."""
    return time.strftime("%Y-%m-%dT%H:%M:%S%z", time.localtime(seconds))

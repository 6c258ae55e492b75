"""What the agent says of itself: on stdout, in log, status.json, `status`, access.log. None can fail or stall it."""

import json
import os
import select
import time
from typing import Callable, Optional, Tuple

from ..io.loop import Loop, Timer
from .access_log import Access
from .log import Journal, one_line, open_append

VERSION = 1
EVERY_S = 1.0  # status.json is written at most that often
WHILE_ACTIVE_S = 10.0  # and that often at least while connections are open: their bytes grow


class Record:
    """Counters and where they go. The counters, all since the start: `requests` that named a far end, `held` of them
    that had to wait for ssh, `refused` connections from others than this job's user or over the bounds, `denied`
    requests by policy, `bytes_up` and `bytes_down` of all requests; `active` is the connections at this moment."""

    def __init__(self, loop: Loop, folder_fd: int, journal: Journal, listen: Tuple[str, int], access: Access) -> None:
        self.loop, self.journal, self.access = loop, journal, access
        self.address, self.port = listen
        self.requests = self.active = self.bytes_up = self.bytes_down = 0
        self.held = self.refused = self.denied = self.reconnects = self.restarts = 0
        self.pid = os.getpid()
        self.ready = False
        self.since = time.time()
        self.jump: Optional[str] = None
        self.passed_over = ""  # which ways of other kinds were not taken, and why
        self.last_error: Optional[str] = None
        self.open_bytes: Callable[[], Tuple[int, int]] = lambda: (0, 0)
        self.tries = 0  # since it went down
        self.changed_at = time.monotonic()
        self.timer: Optional[Timer] = None
        self.written = 0.0
        self.open(folder_fd)

    def open(self, folder_fd: int) -> None:
        """Everything is written into that state directory (state/directory.py); call again when it was made anew."""
        if self.access.fd >= 0:
            os.close(self.access.fd)
        self.folder_fd = folder_fd
        self.journal.open(self.folder_fd)
        self.access.fd = open_append(self.folder_fd, "access.log") if self.access.in_folder else -1

    def announce(self, word: str, text: str) -> None:
        """One line on stdout: WORD NODE TEXT. A reader that has gone or does not read is no concern of ours."""
        line = "{} {} {}\n".format(word, self.journal.node, one_line(text)).encode("utf-8", "replace")
        try:
            if select.select([], [1], [], 0)[1]:
                os.write(1, line)
        except (OSError, ValueError):
            pass  # EPIPE: the job has read `ready` and closed

    def log(self, text: str) -> None:
        """One line in the log."""
        self.journal.write("info", text)

    def gave_up(self, text: str) -> None:
        """There is no tunnel, and none to be expected."""
        self.announce("gave-up", text)
        self.journal.write("error", "gave up: {}".format(text))

    def failed(self, text: str) -> None:
        """An attempt to get a tunnel failed; one line for each new reason."""
        self.last_error = text
        self.tries += 1
        self.journal.once("error", "failed: {}".format(text))
        self.changed()

    def up(self, jump: str, again: bool) -> None:
        """There is a tunnel."""
        self.ready, self.jump, self.since = True, jump, time.time()
        self.reconnects += int(again)
        took_s, self.changed_at = time.monotonic() - self.changed_at, time.monotonic()
        tries = "" if self.tries == 0 else ", {} tries".format(self.tries + 1)
        others = " ({})".format(self.passed_over) if self.passed_over else ""
        self.log("{} through {} after {:.1f} s{}{}".format("back" if again else "up", jump, took_s, tries, others))
        self.tries = 0
        self.journal.calm()
        self.write_status()  # at once: who was told `ready` looks there next

    def down(self, text: str) -> None:
        """There is none any more."""
        self.ready, self.jump, self.since, self.last_error = False, None, time.time(), text
        lived_s, self.changed_at = time.monotonic() - self.changed_at, time.monotonic()
        self.journal.write("error", "down after {:.0f} s: {}".format(lived_s, text))
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
        """status.json is the present state, then `status` too; readers see the old or the new, never half of it."""
        said = self.status()
        try:
            # The shells of versions before read here which mode it is, by the name that it had then.
            self._replace("status.json", json.dumps(dict(said, mode="gate")) + "\n")
            self._replace("status", "".join("{}={}\n".format(name, _plain(value)) for name, value in said.items()))
        except OSError:
            pass  # a full disk costs the report, not the tunnel

    def hand_on(self, name: str, text: str) -> None:
        """A line for shells, in a file of its own in the state directory."""
        try:
            self._replace(name, one_line(text) + "\n")
        except OSError:
            pass  # as above

    def _replace(self, name: str, text: str) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
        here = self.folder_fd
        fd = os.open("status.tmp", flags, 0o600, dir_fd=here)
        try:
            data = text.encode("utf-8", "replace")
            whole = os.write(fd, data) == len(data)
        finally:
            os.close(fd)
        if whole:
            os.replace("status.tmp", name, src_dir_fd=here, dst_dir_fd=here)

    def status(self) -> dict:  # type: ignore[type-arg]
        """The content of status.json."""
        up, down = self.open_bytes()
        return {
            "version": VERSION,
            "node": self.journal.node,
            "address": self.address,
            "port": self.port,
            "mode": "agent",
            "ready": self.ready,
            "since": self.since,
            "jump": self.jump,
            "passed_over": self.passed_over or None,
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


def _plain(value: object) -> str:
    """`value` as a shell reads it: one line, true or false, nothing for None."""
    if value is None:
        return ""
    return str(value).lower() if isinstance(value, bool) else one_line(str(value))

"""Who reached what: a line for each finished request, in the state directory and in the system's log.

The first goes with the job; the second stays, and is bounded, so that no job can fill a node's log: what was left out
is counted, and said. A line begins with what the kernel and Slurm say; what a client has chosen comes after that, in a
narrow set of characters, so that it cannot look like a line of its own.
"""

import time
from typing import Callable

from .log import Journal, append, iso, one_line

BURST = 200.0  # lines at once
EACH_S = 10.0  # and so many in a second after those
OUTCOME = 200  # characters of it


class Access:
    """Lines about the requests of `uid`'s job, where they are wanted."""

    def __init__(
        self,
        journal: Journal,
        uid: int,
        in_folder: bool,
        in_system: bool,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.journal, self.uid, self.clock = journal, uid, clock
        self.in_folder, self.in_system = in_folder, in_system
        self.fd = -1
        self.room, self.counted_at = BURST, clock()
        self.left_out = 0

    def write(self, host_port: str, up: int, down: int, seconds: float, outcome: str) -> None:
        """One finished request."""
        outcome = one_line(outcome)
        if self.fd >= 0:
            append(self.fd, "{} {} {} {} {:.3f} {}\n".format(iso(time.time()), host_port, up, down, seconds, outcome))
        if self.in_system:
            line = "access uid={} to={} up={} down={} seconds={:.3f} outcome={}"
            self._tell(line.format(self.uid, one_line(host_port), up, down, seconds, outcome[:OUTCOME]))

    def close(self) -> None:
        """Nothing more comes: what was left out last is said too."""
        if self.left_out:
            self._confess()

    def _tell(self, line: str) -> None:
        now = self.clock()
        self.room = min(BURST, self.room + (now - self.counted_at) * EACH_S)
        self.counted_at = now
        if self.room < 1:
            self.left_out += 1
            return
        self.room -= 1
        if self.left_out:
            self._confess()
        if not self.journal.tell_system("info", line):
            self.left_out += 1  # it is away, or slow: nobody waits for it

    def _confess(self) -> None:
        if self.journal.tell_system("info", "access uid={} left_out={}".format(self.uid, self.left_out)):
            self.left_out = 0

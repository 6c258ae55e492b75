"""How the connection of one ssh comes about, and what is asked of it then.

Either ssh is started with its whole command line (upstream/master.py), or one is used that a person has started and
logged in (upstream/adopt.py).
"""

from typing import Optional, Tuple

from ..io.loop import Signal
from .target import Target
from .upstream import Channel
from .words import Words


class Transport:
    """An ssh that takes requests for channels over its control socket, from `start` until it is `dead`."""

    gone: Signal
    dead: bool
    words: Words  # what it said of its login
    missing = False  # there was no ssh to start
    exit: Optional[int]

    async def start(self, deadline: float) -> None:
        """It is logged in and takes requests; MasterLost when it has ended instead, TimedOut."""
        raise NotImplementedError

    async def open(self, target: Target, fds: Tuple[int, int], deadline: float) -> Channel:
        """A channel from the two descriptors (it reads, it writes) to `target`; OpenError, MasterLost."""
        raise NotImplementedError

    async def answers(self, deadline: float) -> bool:
        """It is there and turns; says nothing of the far end."""
        raise NotImplementedError

    def last_talk(self) -> str:
        """The last line of what was said beside its log."""
        raise NotImplementedError

    def stop(self, number: int) -> None:
        """It is told to end, by that signal; `gone` fires when it has."""
        raise NotImplementedError

    async def end(self) -> None:
        """It is told to end, and is ended and reaped, by force if that takes long."""
        raise NotImplementedError

    def end_now(self) -> None:
        """The same with nobody else's turn in between; a second at most, then by force."""
        raise NotImplementedError

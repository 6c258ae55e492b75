"""The seam: what every upstream offers (Upstream), what an opened connection is (Channel), what it is joined to (Ends).

A kind of upstream is one class here and one row in `tunnel.KINDS`; who serves clients knows none of them.
"""

import socket
from typing import Callable, List, Optional, Tuple

from ..io.loop import Signal
from ..io.stream import Stream, nothing
from .candidate import Verdict
from .target import Target

Header = Tuple[str, str]
# The first byte of a connection that only tells whether the other agent is there (proxy/link.py, upstream/reverse.py),
# and the header of a request that names such a connection and itself.
LINK, LINK_HEADER = b"\0", "Hpcproxy-Link"


class Lost(Exception):
    """The upstream has gone while it was asked, and nothing was said yet: the next one may be asked."""


class Unusable(Exception):
    """An upstream did not come up; `verdict` says why."""

    def __init__(self, verdict: Verdict) -> None:
        self.verdict = verdict
        super().__init__(verdict.reason)


class Channel:
    """One open connection to a far end."""

    eof = False  # the far end has said all, and the client's side has it
    other_end = "the jump host"  # whose loss `lost` tells

    def heed(self, on_eof: Callable[[], None] = nothing) -> None:
        """`on_eof` is called once, when `eof` comes; at once if it has. Only of what serves handed-on descriptors."""

    async def closed(self) -> None:
        """It is closed, both ways; only of what serves handed-on descriptors."""
        raise NotImplementedError

    def lost(self) -> bool:
        """It was cut: the far end did not end it."""
        raise NotImplementedError

    def plain_http(self) -> Optional[List[Header]]:
        """Requests for http:// URLs are written here in absolute form, with these headers; None: as to a far end.

        OpenError.
        """
        return None

    def judge(self, _status: int, _challenged: bool) -> None:
        """A response with that status, with a proxy's challenge or without, is none of the far end's; OpenError."""

    def over(self) -> bool:
        """It carries no more requests."""
        raise NotImplementedError

    def hang_up(self) -> None:
        """The far end is told that this is the end; what it has said still comes, and then the end of it."""
        raise NotImplementedError

    def close(self) -> None:
        """It is closed; nobody waits for that. Twice is once."""
        raise NotImplementedError


class Ends:
    """What the near side of a channel is made of. An upstream uses one of the two, once for each attempt.

    `plain_http`: what will be asked for there are http:// URLs.
    """

    plain_http = False

    def descriptors(self) -> Tuple[int, int]:
        """What is read for the far end, and what is written with what it says."""
        raise NotImplementedError

    def join(self, sock: socket.socket) -> Stream:
        """`sock` is connected to the far end and belongs to these ends from now on, which read and write it so."""
        raise NotImplementedError

    def untouched(self) -> bool:
        """Another attempt may be made: nothing of the client's has gone with the last one."""
        return True


class Upstream:
    """One life of an upstream: it is started, proved, used, and gone; `gone` fires then.

    `passes_fd`: descriptors are handed on, and no byte passes through here. Otherwise it gives a socket (Ends.join).
    """

    passes_fd = False
    again = False  # there was an upstream before
    gone: Signal

    def dead(self) -> bool:
        """It serves no more, and never again."""
        raise NotImplementedError

    async def start(self) -> None:
        """It is there and proved; Unusable."""
        raise NotImplementedError

    async def open(self, target: Target, ends: Ends, deadline: float) -> Channel:
        """A channel from `ends` to `target`; OpenError, Lost."""
        raise NotImplementedError

    async def watch(self) -> None:
        """It is looked after until it is dead, and ended if it does not serve any more."""
        raise NotImplementedError

    def why(self) -> Verdict:
        """Why it is dead."""
        raise NotImplementedError

    def stop(self) -> None:
        """It is ended now, whatever that takes; at most a second is waited."""

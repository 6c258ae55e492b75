"""The fast path: ssh reads and writes the client's own socket, and no byte passes through here.

What ssh does not do is end the connection: it closes its copies of the socket, and the client would never learn of it,
for ours is still open. ssh's log says when the far end has said all (upstream/ssh_log.py), then we shut the socket
down; the end of the control connection says when the channel is closed.
"""

import socket
from typing import Optional, Tuple

from ..io.loop import Loop
from ..io.stream import Stream
from ..io.tcp_info import Counters, Marks
from ..upstream.open_error import OpenError
from ..upstream.target import Target
from ..upstream.tunnel import Tunnel
from ..upstream.upstream import Channel, Ends
from .pace import Pace


class NotPassed(OpenError):
    """The tunnel that came up meanwhile hands no descriptors on."""


class ClientEnds(Ends):
    """The client's own socket, which was so far `before` any attempt."""

    def __init__(self, client: Stream, counters: Counters, before: Marks) -> None:
        self.client, self.counters, self.before = client, counters, before

    def descriptors(self) -> Tuple[int, int]:
        """As Ends."""
        fd = self.client.sock.fileno()
        return fd, fd

    def join(self, sock: socket.socket) -> Stream:
        """As Ends; NotPassed."""
        sock.close()
        raise NotPassed("down", "the tunnel is another one now")

    def untouched(self) -> bool:
        """As Ends: ssh has not read what the client sent ahead."""
        return self.counters.marks().taken == self.before.taken


async def hand_over(
    loop: Loop, tunnel: Tunnel, client: Stream, counters: Counters, before: Marks, target: Target
) -> "HandedOver":
    """The far end is connected to the client's own socket; OpenError, and then the socket is still ours.

    `before` says how far the connection is by now.
    """
    channel = await tunnel.open(target, ClientEnds(client, counters, before))
    return HandedOver(loop, client, counters, channel, before)


class HandedOver:
    """A client's socket in ssh's hands; how far it was `before` that."""

    def __init__(self, loop: Loop, client: Stream, counters: Counters, session: Channel, before: Marks) -> None:
        self.loop, self.client, self.counters, self.session = loop, client, counters, session
        self.taken, self.said = before.taken, before.sent
        self.final: Optional[Tuple[int, int]] = None
        client.detach()

    def confirm(self, reply: bytes) -> bool:
        """The client has `reply`, and nothing came before it; False if the far end spoke first; OSError.

        ssh may write from the moment that it said "open". So nothing may have been written before our answer; and what
        has been written after it, while the client has said nothing that it could answer, may have come in between.
        """
        if self.counters.sent() != self.said:
            return False
        whole = self.client.sock.send(reply) == len(reply)
        self.said += len(reply)
        if not whole or (self.counters.sent() != self.said and self.counters.received() <= self.taken):
            return False
        self.begin()
        return True

    def begin(self) -> None:
        """From now on the client learns of the far end's end; for one that has our answer already."""
        self.session.heed(self.client.finish)

    async def run(self) -> None:
        """The channel is closed, both ways, and the client knows."""
        pace = Pace(self.loop, self.client.sock, self.counters, self.said)
        try:
            await self.session.closed()
        finally:
            pace.stop()
        lost = self.session.lost()
        self.final = self.bytes()
        if lost:
            self.client.abort()  # what the client got must not look like the whole

    def bytes(self) -> Tuple[int, int]:
        """Bytes up and down so far, by the kernel's count; our FIN counts as one there."""
        if self.final is not None:
            return self.final
        marks = self.counters.marks()
        down = marks.sent - self.said - int(self.session.eof)
        return max(0, marks.taken + marks.waiting - self.taken), max(0, down)

    def close(self) -> None:
        """The channel is closed."""
        self.session.close()

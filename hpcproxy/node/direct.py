"""The fast path: ssh reads and writes the client's own socket, and no byte passes through here.

What is left to do is what ssh cannot: it closes its copy of the socket when the far end has ended its sending, and the
client would never learn of it, for ours is still open. ssh's log tells us (sshlog.py), and we shut the socket down.
"""

import time
from typing import Optional, Tuple

from .loop import Loop, Timer
from .master import MasterLost, Session
from .pipe import LINGER_S
from .stream import Stream
from .target import Target
from .tcpinfo import Counters
from .tunnel import Tunnel
from .way import WayError


async def hand_over(loop: Loop, tunnel: Tunnel, client: Stream, counters: Counters, target: Target) -> "Direct":
    """The far end is connected to the client's own socket; WayError, and then the socket is still ours."""
    deadline = time.monotonic() + tunnel.settings.hold_s + tunnel.settings.connect_timeout_s
    taken, said = counters.consumed(), counters.sent()
    fd = client.sock.fileno()
    while True:
        try:
            session = await tunnel.open(target, (fd, fd))
            return Direct(loop, client, counters, session, taken, said)
        except MasterLost:
            # Trying again is safe as long as ssh has not read what the client sent ahead.
            if time.monotonic() > deadline or counters.consumed() != taken:
                raise WayError("down", tunnel.outage())
            await loop.sleep(0.05)


class Direct:
    """A client's socket in ssh's hands; `taken` bytes of it were read by us, `said` bytes written, before."""

    def __init__(self, loop: Loop, client: Stream, counters: Counters, session: Session, taken: int, said: int) -> None:
        self.loop, self.client, self.counters, self.session = loop, client, counters, session
        self.taken, self.said = taken, said
        self.eof = False
        self.seen = -1
        self.timer: Optional[Timer] = None
        client.detach()
        session.master.log.attach(session.number, self._far_end_ended)

    def confirm(self, reply: bytes) -> bool:
        """The client has `reply`, and nothing came before it; False if the far end spoke first; OSError.

        ssh may write from the moment that it said "open". So nothing may have been written before our answer; and what
        has been written after it, while the client has said nothing that it could answer, may have come in between.
        """
        if self.counters.sent() != self.said:
            return False
        whole = self.client.sock.send(reply) == len(reply)
        self.said += len(reply)
        return whole and (self.counters.sent() == self.said or self.counters.received() > self.taken)

    async def run(self) -> None:
        """The channel is closed, both ways, and the client knows."""
        await self.session.closed()
        self.session.master.drain()  # an end of file may stand there that we have not read
        if not self.eof and self.counters.open_both_ways():
            self.client.abort()  # ssh died: what the client got must not look like the whole

    def bytes(self) -> Tuple[int, int]:
        """Bytes up and down so far, by the kernel's count."""
        return max(0, self.counters.received() - self.taken), max(0, self.counters.sent() - self.said - self.eof)

    def _far_end_ended(self) -> None:
        if not self.eof:
            self.eof = True
            self.client.finish()
            self._let_client_finish()

    def _let_client_finish(self) -> None:
        """A client that leaves the connection open without a word gives its slot back after a while."""
        received = self.counters.received()
        if received == self.seen:
            self.session.hang_up()
        elif not self.session.dropped():
            self.seen = received
            self.timer = self.loop.call_at(time.monotonic() + LINGER_S, self._let_client_finish)

    def close(self) -> None:
        """The channel is closed."""
        if self.timer is not None:
            self.timer.cancel()
        self.session.master.log.detach(self.session.number, self._far_end_ended)
        self.session.close()

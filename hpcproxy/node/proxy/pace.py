"""Small packets of a fast connection put together: Nagle's algorithm (RFC 896), but only while much flows.

ssh writes 32 KiB at a time, half of what the loopback device carries at once, and each write wakes the client: with
TCP_NODELAY 32 fast streams take it 8 % more CPU time. Without, the last words of an answer may wait 40 ms for a delayed
ACK: nothing after megabytes, far too much for a small one.
"""

import socket
import time

from ..io.loop import Loop
from ..io.tcp_info import Counters

MUCH = 4e6  # bytes per second
FIRST_S = 0.1  # a connection is looked at this soon,
MUCH_S = 0.5  # while much flows so often,
LONGEST_S = 8.0  # else ever more seldom
WINDOW_S = 0.02  # bytes in our own hands are counted over this,
GATHER_S = 0.002  # and so long they wait at most,
ENOUGH = 131072  # unless so many came at once
TICK_S = 0.05  # all that are due within it are looked at together, so that the node's cores are left alone


class Gathering:
    """The same where bytes pass through our hands: while much flows a moment is waited, and more is there to take."""

    def __init__(self, loop: Loop) -> None:
        self.loop = loop
        self.known, self.since, self.much = 0, time.monotonic(), False

    async def after(self, size: int) -> None:
        """`size` bytes have passed; when to go on is decided by how many did lately."""
        self.known += size
        now = time.monotonic()
        if now - self.since > WINDOW_S:
            self.much = self.known > MUCH * (now - self.since)
            self.known, self.since = 0, now
        if self.much and size < ENOUGH:
            # All that wait go on together, and the cores are left alone meanwhile.
            await self.loop.sleep_until((1 + int(now / GATHER_S)) * GATHER_S)


class Pace:
    """Looks after one client's socket, which somebody else serves, until `stop`; the client has had `known` bytes."""

    def __init__(self, loop: Loop, sock: socket.socket, counters: Counters, known: int) -> None:
        self.loop, self.sock, self.counters = loop, sock, counters
        self.known, self.since = known, time.monotonic()
        self.pause_s, self.much = FIRST_S, False
        self._look_later()

    def _look_later(self) -> None:
        ticks = 1 + int((self.since + self.pause_s) / TICK_S)
        self.timer = self.loop.call_at(ticks * TICK_S, self._look)

    def _look(self) -> None:
        count, now = self.counters.acknowledged(), time.monotonic()
        was, self.much = self.much, count - self.known > MUCH * (now - self.since)
        if self.much != was:
            # Setting it also sends what waits.
            self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, not self.much)
        self.known, self.since = count, now
        self.pause_s = MUCH_S if self.much else min(2 * self.pause_s, LONGEST_S)
        self._look_later()

    def stop(self) -> None:
        """The socket may be closed now."""
        self.timer.cancel()

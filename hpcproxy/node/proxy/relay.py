"""Both ends of a tunnel in our hands: bytes are read here and written there."""

import socket
import time
from typing import Callable, Optional

from ..io.loop import Loop, Signal, TimedOut
from ..io.stream import SIZE, Stream
from ..upstream.control import MasterLost
from ..upstream.master import Session
from ..upstream.target import Target
from ..upstream.tunnel import Tunnel
from ..upstream.way import WayError

PART_S = 1.0
BUFFER = 1 << 20  # so that neither end waits for the other's turn; the kernel takes as much as the site allows


class Far:
    """The far end, as two one-way socket pairs with ssh: only so its end of file shows on its own."""

    def __init__(self, to: Stream, back: Stream) -> None:
        self.to, self.back = to, back
        self.session: Optional[Session] = None

    def lost(self) -> bool:
        """The end of `back` is not the far end's, ssh died."""
        return self.session is None or self.session.lost()

    def over(self) -> bool:
        """The channel carries no more requests."""
        return self.session is None or self.session.over()

    def hang_up(self) -> None:
        """ssh closes the channel, which ends `back` after what is under way."""
        self.to.close()
        if self.session is not None:
            self.session.hang_up()

    def close(self) -> None:
        """The channel is closed and nobody reads any more. Twice is once."""
        self.to.close()
        self.back.close()
        if self.session is not None:
            self.session.close()


async def open_far(loop: Loop, tunnel: Tunnel, target: Target) -> Far:
    """A channel to `target`; WayError. An ssh that goes away meanwhile costs time only: nothing was said yet."""
    deadline = time.monotonic() + tunnel.settings.hold_s + tunnel.settings.connect_timeout_s
    while True:
        ours_to, theirs_to = socket.socketpair()
        ours_back, theirs_back = socket.socketpair()
        for theirs in (theirs_to, theirs_back):
            theirs.setblocking(False)  # ssh before 8.5 writes as the descriptor says, and would wait for us
        for sender in (ours_to, theirs_back):
            sender.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER)
        far = Far(Stream(loop, ours_to), Stream(loop, ours_back))
        try:
            far.session = await tunnel.open(target, (theirs_to.fileno(), theirs_back.fileno()))
            far.session.heed()
            return far
        except MasterLost:
            if time.monotonic() > deadline:
                raise WayError("down", tunnel.outage())
            await loop.sleep(0.05)
        finally:
            theirs_to.close()
            theirs_back.close()
            if far.session is None:
                far.close()


async def pump(source: Stream, sink: Stream, count: Callable[[bytes], None]) -> None:
    """All that comes from `source` has gone to `sink`; OSError if either breaks."""
    while True:
        data = await source.recv(SIZE)
        if not data:
            return
        count(data)
        await sink.send(data)


async def first_words(loop: Loop, client: Stream, back: Stream, size: int) -> bytes:
    """What the client says first, looked at and left where it is; b"" if the far end was quicker, or one of them left.

    What the far end has said stays where it is, too.
    """
    spoken = Signal(loop)

    async def look(stream: Stream) -> bytes:
        """The first bytes there, and whoever waits knows."""
        try:
            return await stream.peek(size)
        except OSError:
            return b""  # gone: whoever uses it next finds out
        finally:
            spoken.fire()

    ours, theirs = loop.spawn(look(client)), loop.spawn(look(back))
    try:
        while not (ours.done or theirs.done):
            await spoken.wait()
    finally:
        for task in (ours, theirs):
            await task.end()
    return b"" if theirs.error is None else ours.result or b""


class Relay:
    """Client and far end joined until both are done; counts bytes.

    `learn` is called once: with the client's first bytes if it spoke first, with b"" if the far end did.
    """

    def __init__(self, loop: Loop, client: Stream, far: Far, learn: Callable[[bytes], None]) -> None:
        self.loop, self.client, self.far, self.learn = loop, client, far, learn
        self.up = self.down = 0

    async def run(self) -> None:
        """Both directions have ended, or broken."""
        upward = self.loop.spawn(self._upward())
        try:
            await pump(self.far.back, self.client, self._count_down)
            if self.far.lost():
                self.client.abort()  # what came so far is not the whole, and must not look like it
            else:
                await self.client.part(PART_S)
        except TimedOut:
            pass  # a client that keeps a connection open which is over: pools do
        except OSError:
            self.client.abort()
        finally:
            upward.cancel()

    async def _upward(self) -> None:
        try:
            await pump(self.client, self.far.to, self._count_up)
        except BrokenPipeError:
            return  # the far end takes no more; what it still says is passed on
        except OSError:
            self.far.hang_up()  # the client is gone
            return
        self.far.to.close()

    def _count_up(self, data: bytes) -> None:
        if not self.up and not self.down:
            self.learn(data[:16])
        self.up += len(data)

    def _count_down(self, data: bytes) -> None:
        if not self.up and not self.down:
            self.learn(b"")
        self.down += len(data)

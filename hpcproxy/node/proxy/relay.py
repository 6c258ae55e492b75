"""Both ends of a connection in our hands: bytes are read here and written there."""

import socket
from typing import Callable, List, Optional, Tuple

from ..io.loop import Loop, Signal, TimedOut
from ..io.stream import SIZE, Stream
from ..upstream.target import Target
from ..upstream.tunnel import Tunnel
from ..upstream.upstream import Channel, Ends, Header
from .pace import Gathering

PART_S = 1.0
BUFFER = 1 << 20  # so that neither end waits for the other's turn; the kernel takes as much as the site allows


class Far(Ends):
    """The far end: `to` goes there, `back` comes from there, until `close`.

    Through ssh these are two one-way socket pairs: only so its end of file shows on its own. Of an upstream that
    connects by itself both are its socket.
    """

    to: Stream
    back: Stream

    def __init__(self, loop: Loop, plain_http: bool = False) -> None:
        self.loop, self.plain_http = loop, plain_http
        self.streams: Tuple[Stream, ...] = ()
        self.theirs: Tuple[socket.socket, ...] = ()
        self.channel: Optional[Channel] = None

    def descriptors(self) -> Tuple[int, int]:
        """As Ends: new ones each time, for who had the last ones may have written there."""
        self._drop()
        ours_to, theirs_to = socket.socketpair()
        ours_back, theirs_back = socket.socketpair()
        self.theirs = (theirs_to, theirs_back)
        for theirs in self.theirs:
            theirs.setblocking(False)  # ssh before 8.5 writes as the descriptor says, and would wait for us
        for sender in (ours_to, theirs_back):
            sender.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER)
        self.streams = self.to, self.back = Stream(self.loop, ours_to), Stream(self.loop, ours_back)
        return theirs_to.fileno(), theirs_back.fileno()

    def join(self, sock: socket.socket) -> Stream:
        """As Ends."""
        self._drop()
        self.to = self.back = Stream(self.loop, sock, is_client=False)
        self.streams = (self.to,)
        return self.to

    def _drop(self) -> None:
        """What an attempt has left is gone."""
        self.let_go()
        for stream in self.streams:
            stream.close()

    def let_go(self) -> None:
        """What was handed on is theirs alone."""
        for theirs in self.theirs:
            theirs.close()
        self.theirs = ()

    def plain_headers(self) -> Optional[List[Header]]:
        """What a request for an http:// URL gets where it is written for a proxy; None: for its far end. OpenError."""
        return None if self.channel is None else self.channel.plain_http()

    def judge(self, status: int, challenged: bool) -> None:
        """A response is the far end's, and not a proxy's about itself; OpenError."""
        if self.channel is not None:
            self.channel.judge(status, challenged)

    def lost(self) -> bool:
        """The end of `back` is not the far end's: ssh died, or the connection was reset."""
        return self.channel is None or self.channel.lost()

    def other_end(self) -> str:
        """Whose loss `lost` tells."""
        return "the jump host" if self.channel is None else self.channel.other_end

    def over(self) -> bool:
        """The channel carries no more requests."""
        return self.channel is None or self.channel.over()

    def finish(self) -> None:
        """The far end sees that the client has said all."""
        if self.to is self.back:
            self.to.finish()
        else:
            self.to.close()

    def hang_up(self) -> None:
        """The channel is closed, which ends `back` after what is under way."""
        self.finish()
        if self.channel is not None:
            self.channel.hang_up()

    def close(self) -> None:
        """The channel is closed and nobody reads any more. Twice is once."""
        self._drop()
        if self.channel is not None:
            self.channel.close()


async def open_far(loop: Loop, tunnel: Tunnel, target: Target, plain_http: bool = False) -> Far:
    """A channel to `target`; OpenError."""
    far = Far(loop, plain_http)
    try:
        far.channel = await tunnel.open(target, far)
        far.channel.heed()
        return far
    finally:
        far.let_go()
        if far.channel is None:
            far.close()


async def pump(loop: Loop, source: Stream, sink: Stream, count: Callable[[int], None]) -> None:
    """All that comes from `source` has gone to `sink`; OSError if either breaks.

    While much flows a moment is waited between two parts.
    """
    gathering = Gathering(loop)
    while True:
        size = await source.pass_on(sink, SIZE)
        if not size:
            return
        count(size)
        await gathering.after(size)


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
            await self._downward()
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

    async def _downward(self) -> None:
        first = await self.far.back.recv(SIZE)
        if first:
            self._count_down(len(first))
            await self.client.send(first)
            await pump(self.loop, self.far.back, self.client, self._count_down)

    async def _upward(self) -> None:
        try:
            first = await self.client.recv(SIZE)
            if first:
                self._count_up(len(first), first)
                await self.far.to.send(first)
                await pump(self.loop, self.client, self.far.to, self._count_up)
        except BrokenPipeError:
            return  # the far end takes no more; what it still says is passed on
        except OSError:
            self.far.hang_up()  # the client is gone
            return
        self.far.finish()

    def _count_up(self, size: int, first: bytes = b"") -> None:
        if not self.up and not self.down:
            self.learn(first[:16])
        self.up += size

    def _count_down(self, size: int) -> None:
        if not self.up and not self.down:
            self.learn(b"")
        self.down += size

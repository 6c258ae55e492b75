"""One socket, read and written by coroutines with deadlines.

A client's heads are read with MSG_PEEK and then taken to the byte: what follows them stays in the kernel's buffer,
where ssh finds it when the socket is handed over. Of any other socket all that is there is read and kept until somebody
wants it: what is only looked at fills a socket pair, and ssh hears of room in one only below a quarter of its size.
"""

import socket
import struct
import time
from typing import Callable, Optional, Tuple, TypeVar

from .loop import Loop, TimedOut

T = TypeVar("T")

SIZE = 262144


class Ended(Exception):
    """The other end has said all it will say, in the middle of something."""


class TooLong(Exception):
    """No end of the head within the bound."""


def nothing() -> None:
    """Nobody needs to know."""


class Stream:
    """A non-blocking socket under the loop's watch until `close` or `detach`."""

    def __init__(self, loop: Loop, sock: socket.socket, is_client: Optional[bool] = None) -> None:
        sock.setblocking(False)
        self.loop, self.sock = loop, sock
        # Kept: asking takes longer than to open and close it.
        self.is_client = sock.family == socket.AF_INET if is_client is None else is_client
        self.broken = False  # it was reset, or the other end is gone without a word: what came may not be the whole
        self.watch = loop.watch(sock.fileno())
        # All that the watch told of was read: there is nothing until it tells more. A new watch tells what is there.
        self.drained = True
        self.held = b""  # read ahead, never of a client
        self.before_end: Callable[[], None] = nothing

    async def recv(self, size: int = SIZE, deadline: Optional[float] = None) -> bytes:
        """At most `size` bytes, b"" at the end; TimedOut, OSError."""
        if self.held:
            data, self.held = self.held[:size], self.held[size:]
            return data
        watch = self.watch
        while True:
            if self.drained and not watch.readable and not watch.ended:
                await watch.wait_readable(deadline)
            watch.readable = False
            try:
                data = self.sock.recv(size)
            except BlockingIOError:
                self.drained = True
                continue
            except OSError:
                self.broken = True
                raise
            self.drained = len(data) < size  # epoll(7), answer 9
            return data

    async def pass_on(self, sink: "Stream", size: int, deadline: Optional[float] = None) -> int:
        """At most `size` of the next bytes have gone to `sink`: how many; 0 at the end. TimedOut, OSError.

        They are read into a place that is there already: memory that is new each time costs as much as the bytes do.
        """
        if self.held:
            data = await self.recv(size)
            await sink.send(data)
            return len(data)
        room, watch = self.loop.room[:size], self.watch
        while True:
            if self.drained and not watch.readable and not watch.ended:
                await watch.wait_readable(deadline)
            watch.readable = False
            try:
                count = self.sock.recv_into(room)
            except BlockingIOError:
                self.drained = True
                continue
            except OSError:
                self.broken = True
                raise
            break
        self.drained = count < len(room)
        try:
            sent = sink.sock.send(room[:count])
        except BlockingIOError:
            sent = 0
        except OSError as error:
            sink.broken = not isinstance(error, BrokenPipeError)
            raise
        if sent < count:
            await sink.send(bytes(room[sent:count]))  # others use the place meanwhile
        return count

    async def peek(self, size: int = SIZE, deadline: Optional[float] = None) -> bytes:
        """As recv, but the bytes stay."""
        self.drained = False
        while True:
            try:
                return self.sock.recv(size, socket.MSG_PEEK)
            except BlockingIOError:
                await self.watch.wait_readable(deadline)

    def quiet(self) -> bool:
        """Nothing has come that nobody has read, the end neither."""
        if self.held:
            return False
        try:
            self.sock.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return True
        except OSError:
            pass  # broken: that is an end
        return False

    async def take(
        self, parse: Callable[[bytes], Optional[Tuple[int, T]]], limit: int, deadline: Optional[float] = None
    ) -> T:
        """The first thing that `parse` finds, exactly its bytes consumed.

        `parse` returns (size, value), or None while it needs more. Raises what `parse` raises, Ended, TooLong beyond
        `limit` bytes, TimedOut, OSError.
        """
        if not self.is_client:
            return await self._take_held(parse, limit, deadline)
        seen = b""
        while True:
            data = await self.peek(limit - len(seen), deadline)
            found = parse(seen + data)
            if found is not None:
                self.sock.recv(found[0] - len(seen))
                return found[1]
            if not data:
                raise Ended()
            # Without its end in it all of that belongs to the head; the buffer may be smaller than a long one.
            self.sock.recv(len(data))
            seen += data
            if len(seen) >= limit:
                raise TooLong()

    async def _take_held(
        self, parse: Callable[[bytes], Optional[Tuple[int, T]]], limit: int, deadline: Optional[float]
    ) -> T:
        while True:
            found = parse(self.held)
            if found is not None:
                self.held = self.held[found[0] :]
                return found[1]
            if len(self.held) >= limit:
                raise TooLong()
            if not await self._read_ahead(deadline):
                raise Ended()

    async def take_some(self, feed: Callable[[bytes], int], deadline: Optional[float] = None) -> bytes:
        """The next bytes, as many as `feed` says are wanted; b"" at the end.

        `feed` is shown what is there, and says 0 if that is not enough to tell. Raises what `feed` raises, Ended,
        TimedOut, OSError.
        """
        while not self.is_client:
            size = feed(self.held) if self.held else 0
            if size:
                return await self.recv(size)
            if not await self._read_ahead(deadline):
                if self.held:
                    raise Ended()
                return b""
        while True:
            self.watch.readable = False
            ended = self.watch.ended
            data = await self.peek(deadline=deadline)
            size = feed(data) if data else 0
            if size or not data:
                return self.sock.recv(size) if size else b""
            if ended:
                raise Ended()
            await self.watch.wait_readable(deadline)

    async def _read_ahead(self, deadline: Optional[float]) -> bool:
        """More is held than before, False at the end; what was held stays so if the wait is cut off."""
        before, self.held = self.held, b""
        try:
            more = await self.recv(SIZE, deadline)
        except BaseException:
            self.held = before
            raise
        self.held = before + more
        return bool(more)

    async def part(self, seconds: float, limit: int = SIZE) -> None:
        """Say goodbye: closing while bytes lie unread would reset the connection, and our last words with it."""
        deadline = time.monotonic() + seconds
        self.finish()
        while limit > 0:
            data = await self.recv(min(limit, 65536), deadline)
            if not data:
                return
            limit -= len(data)

    async def linger(self, seconds: float, silent_s: float) -> None:
        """Say goodbye to somebody who may still be sending: it is read and dropped until he ends, or falls silent."""
        deadline = time.monotonic() + seconds
        self.finish()
        try:
            while time.monotonic() < deadline:
                if not await self.recv(deadline=min(deadline, time.monotonic() + silent_s)):
                    return
        except TimedOut:
            pass

    async def send(self, data: bytes, deadline: Optional[float] = None) -> None:
        """All of `data` is in the kernel's hands; TimedOut, OSError."""
        view = memoryview(data)
        while len(view):
            try:
                view = view[self.sock.send(view) :]
            except BlockingIOError:
                await self.watch.wait_writable(deadline)
            except OSError as error:
                self.broken = not isinstance(error, BrokenPipeError)
                raise

    def finish(self) -> None:
        """The other end sees our end of file; we can still read."""
        self.before_end()
        try:
            self.sock.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # it is gone already: there is nobody to tell

    def detach(self) -> socket.socket:
        """No longer watched; the socket lives on."""
        self.loop.unwatch(self.watch)
        return self.sock

    def close(self) -> None:
        """Gone, here and (by shutdown, for copies in ssh) for the other end. Twice is once."""
        if self.sock.fileno() < 0:
            return
        self.loop.unwatch(self.watch)
        if self.is_client:  # only a client's socket has copies
            try:
                self.sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass  # not connected any more
        self.sock.close()

    def abort(self) -> None:
        """Gone; the client sees a reset as soon as ssh has closed its copies too, never a clean end of file."""
        if self.sock.fileno() < 0:
            return
        self.loop.unwatch(self.watch)
        try:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        except OSError:
            pass  # the client was faster
        self.sock.close()

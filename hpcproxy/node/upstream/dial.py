"""Connections that are made here: a name's addresses are tried a moment after each other, the first that answers wins.

What all upstreams have that hold no ssh stands here, too.
"""

import errno
import os
import socket
import time
from typing import List, Optional, Tuple

from ..io.loop import Loop, Signal, Task, TimedOut
from ..io.stream import Stream
from ..state.policy import MAPPED, pack_address
from ..state.settings import Settings
from ..state.status import Record
from .candidate import Verdict
from .open_error import OpenError, from_errno
from .resolver import Address, Resolver
from .upstream import Channel, Upstream

NEXT_S = 0.25  # after which the next of a name's addresses is tried beside the first (RFC 8305, 5)
MOST_ADDRESSES = 8
# Silence of a far end, in seconds: asked after so long, so often, and so many times (tcp(7)).
KEEPALIVE = ((socket.TCP_KEEPIDLE, 60), (socket.TCP_KEEPINTVL, 15), (socket.TCP_KEEPCNT, 4))
FOLDER_GONE = Verdict("state", "the state directory was removed", False)


class Dialled(Upstream):
    """An upstream whose connections are made here."""

    def __init__(self, loop: Loop, settings: Settings, record: Record) -> None:
        self.loop, self.settings, self.record = loop, settings, record
        self.gone = Signal(loop)
        self.end: Optional[Verdict] = None
        self.resolver = Resolver(loop)

    def dead(self) -> bool:
        """As Upstream."""
        return self.end is not None

    def why(self) -> Verdict:
        """As Upstream."""
        return self.end or FOLDER_GONE

    def die(self, why: Verdict) -> None:
        """It serves no more; whoever waits for that knows. Twice is once."""
        if self.end is None:
            self.end = why
            self.resolver.close()
            self.gone.fire()

    async def watch(self) -> None:
        """As Upstream: who has removed the state directory gets another, by another life of this."""
        while self.end is None:
            await self.loop.sleep(self.settings.alive_interval_s)
            if os.stat(".").st_nlink == 0:
                self.die(FOLDER_GONE)
            self.look()

    def look(self) -> None:
        """It ends if it does not serve any more, where that can be seen from here."""

    async def addresses(self, host: str, deadline: float) -> List[Address]:
        """What `host`, a name or an address, means here; OpenError."""
        packed = pack_address(host)
        return [unpack(packed)] if packed is not None else await self.resolver.addresses(host, deadline)

    async def dial(self, addresses: List[Address], port: int, deadline: float) -> socket.socket:
        """A connected socket; OpenError."""
        return await Race(self.loop, addresses[:MOST_ADDRESSES], port, deadline).run()


class Connected(Channel):
    """A connection of our own."""

    other_end = "the far end"

    def __init__(self, stream: Stream) -> None:
        self.stream = stream

    def lost(self) -> bool:
        """As Channel."""
        return self.stream.broken

    def over(self) -> bool:
        """As Channel."""
        return self.stream.broken or self.stream.watch.ended

    def hang_up(self) -> None:
        """As Channel."""
        try:
            self.stream.sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # it is not connected any more

    def close(self) -> None:
        """As Channel."""
        self.stream.close()


class Race:
    """Connections to the addresses of one name, each begun a moment after the one before; the first there wins."""

    def __init__(self, loop: Loop, addresses: List[Address], port: int, deadline: float) -> None:
        self.loop, self.addresses, self.port, self.deadline = loop, addresses, port, deadline
        self.news = Signal(loop)
        self.winner: Optional[socket.socket] = None
        self.errors: List[OpenError] = []

    async def run(self) -> socket.socket:
        """A connected socket; OpenError, for the address that failed first."""
        tasks: List[Task] = []
        try:
            for address in self.addresses:
                tasks.append(self.loop.spawn(self._try(address)))
                await self._wait(min(self.deadline, time.monotonic() + NEXT_S), len(tasks))
                if self.winner is not None:
                    return self.winner
            await self._wait(self.deadline, len(tasks))
            if self.winner is not None:
                return self.winner
            if len(self.errors) < len(tasks):
                raise silent()
            # Where this node has one protocol only, the address of the other one tells nothing.
            raise next((error for error in self.errors if error.kind != "network"), self.errors[0])
        finally:
            for task in tasks:
                task.cancel()

    async def _wait(self, deadline: float, begun: int) -> None:
        """One has won, all that have begun have failed, or it is `deadline`."""
        while self.winner is None and len(self.errors) < begun:
            try:
                await self.news.wait(deadline)
            except TimedOut:
                return

    async def _try(self, address: Address) -> None:
        sock = None
        try:
            sock = socket.socket(address[0], socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
            await self._connect(sock, (address[1], self.port))
            if self.winner is None:
                self.winner, sock = sock, None
        except OSError as error:
            self.errors.append(from_errno(error.errno or 0))
        except TimedOut:
            self.errors.append(silent())
        finally:
            if sock is not None:
                sock.close()
            self.news.fire()

    async def _connect(self, sock: socket.socket, where: Tuple[str, int]) -> None:
        """`sock` is connected; OSError, TimedOut."""
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in KEEPALIVE:
            sock.setsockopt(socket.IPPROTO_TCP, option, value)
        code = sock.connect_ex(where)
        if code == errno.EINPROGRESS:
            watch = self.loop.watch(sock.fileno())
            try:
                await watch.wait_writable(self.deadline)
            finally:
                self.loop.unwatch(watch)
            code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            raise OSError(code, os.strerror(code))


def silent() -> OpenError:
    """Nobody answers there."""
    return OpenError("timeout", "no answer from the far end")


def unpack(packed: bytes) -> Address:
    """The address in the 16 bytes of `pack_address`."""
    if packed.startswith(MAPPED):
        return socket.AF_INET, socket.inet_ntop(socket.AF_INET, packed[len(MAPPED) :])
    return socket.AF_INET6, socket.inet_ntop(socket.AF_INET6, packed)

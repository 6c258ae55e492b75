"""The upstream `direct`: this node has a route of its own, and connections are made from here.

It hands no descriptor on: whoever serves the client reads and writes its socket. A far end's FIN is its end; a reset,
or silence that keepalive does not break, is a loss.
"""

import errno
import os
import socket
import time
from typing import List, Optional, Tuple

from ..io.loop import Loop, Signal, Task, TimedOut
from ..io.stream import Stream
from ..state.policy import MAPPED, Policy, allowing, closed_by, denied_by, pack_address, plain, readings
from ..state.settings import Settings
from ..state.status import Record
from .candidate import Verdict
from .resolver import Address, Resolver
from .target import Target, spell
from .upstream import Channel, Ends, Lost, Unusable, Upstream
from .way import WayError, from_errno

# Where to a route must lead: addresses that are nobody's (RFC 5737, RFC 3849). No packet goes there.
OUTSIDE = ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1"))
NO_ROUTE = Verdict("route", "this node has no route to the internet", True)
ROUTE_GONE = Verdict("route", "this node has no route to the internet any more", False)
ROUTE_S = 0.2  # so soon a route that comes back is seen
NEXT_S = 0.25  # after which the next of a name's addresses is tried beside the first (RFC 8305, 5)
MOST_ADDRESSES = 8
# Silence of a far end, in seconds: asked after so long, so often, and so many times (tcp(7)).
KEEPALIVE = ((socket.TCP_KEEPIDLE, 60), (socket.TCP_KEEPINTVL, 15), (socket.TCP_KEEPCNT, 4))


class Direct(Upstream):
    """The node's own route, as long as there is one."""

    def __init__(self, loop: Loop, settings: Settings, record: Record) -> None:
        self.loop, self.settings, self.record = loop, settings, record
        self.gone = Signal(loop)
        self.end: Optional[Verdict] = None
        self.resolver = Resolver(loop)

    def dead(self) -> bool:
        """As Upstream."""
        return self.end is not None

    async def start(self) -> None:
        """As Upstream."""
        deadline = time.monotonic() + self.settings.connect_timeout_s
        while not has_route():
            if not self.again:
                raise Unusable(NO_ROUTE)
            if time.monotonic() > deadline:
                raise Unusable(ROUTE_GONE)
            await self.loop.sleep(ROUTE_S)

    async def watch(self) -> None:
        """As Upstream."""
        while self.end is None:
            await self.loop.sleep(self.settings.alive_interval_s)
            self._look()

    def _look(self) -> None:
        """It goes on only with a route, and with a state directory: who removed that wants another."""
        if self.end is None and not has_route():
            self._end(ROUTE_GONE)
        elif self.end is None and os.stat(".").st_nlink == 0:
            self._end(Verdict("state", "the state directory was removed", False))

    def _end(self, why: Verdict) -> None:
        self.end = why
        self.resolver.close()
        self.gone.fire()

    def why(self) -> Verdict:
        """As Upstream."""
        return self.end or ROUTE_GONE

    async def open(self, target: Target, ends: Ends, deadline: float) -> Channel:
        """As Upstream."""
        addresses = await self._addresses(target, deadline)
        try:
            sock = await Race(self.loop, addresses, target.port, deadline).run()
        except WayError as error:
            if error.kind == "network":
                self._look()
            if self.end is not None:
                raise Lost()
            raise
        return Connected(ends.join(sock))

    async def _addresses(self, target: Target, deadline: float) -> List[Address]:
        """Where `target` is, as far as it may be reached; WayError."""
        packed = pack_address(target.host)
        if packed is not None:
            return [unpack(packed)]  # judged already, as all that clients write
        found = await self.resolver.addresses(target.host, deadline)
        why = [why_closed(self.settings.policy, target, address) for _, address in found]
        allowed = [address for address, reason in zip(found, why) if not reason]
        if not allowed:
            self.record.denied += 1
            raise WayError("denied", "{} is {}".format(spell(target), why[0]))
        return allowed[:MOST_ADDRESSES]


class Connected(Channel):
    """A connection of our own."""

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
        self.errors: List[WayError] = []

    async def run(self) -> socket.socket:
        """A connected socket; WayError, for the address that failed first."""
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


def silent() -> WayError:
    """Nobody answers there."""
    return WayError("timeout", "no answer from the far end")


def has_route() -> bool:
    """The kernel knows a way to the outside; it is asked, and nothing is sent (a UDP socket's connect)."""
    for family, address in OUTSIDE:
        try:
            with socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
                sock.connect((address, 9))
            return True
        except OSError:
            pass  # ENETUNREACH; or this kernel has no such protocol
    return False


def unpack(packed: bytes) -> Address:
    """The address in the 16 bytes of `pack_address`."""
    if packed.startswith(MAPPED):
        return socket.AF_INET, socket.inet_ntop(socket.AF_INET, packed[len(MAPPED) :])
    return socket.AF_INET6, socket.inet_ntop(socket.AF_INET6, packed)


def why_closed(policy: Policy, target: Target, address: str) -> str:
    """Why `address`, which the name in `target` means here, may not be reached though the name may; "" if it may.

    What `allow` opens by that very name is open, whatever it means; a rule for many names opens no closed address.
    """
    rule = denied_by(policy._replace(allow=()), address, target.port)
    if rule is not None:
        return "{}, and that is denied ({})".format(address, rule)
    what = closed_by(policy, address, target.port)
    name = plain(target.host)
    if what is None or any(rule.name == name for rule in allowing(policy, name, readings(name), target.port)):
        return ""
    return "{}, {}, which is closed unless `allow` names it".format(address, what)

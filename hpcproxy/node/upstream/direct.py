"""The upstream `direct`: this node has a route of its own, and connections are made from here.

Where agent.json names targets it serves only if this node reaches them (outside.py), and is asked again when far ends
are not reached later. Without a default route no packet is sent.

It hands no descriptor on: whoever serves the client reads and writes its socket. A far end's FIN is its end; a reset,
or silence that keepalive does not break, is a loss.
"""

import socket
import time
from typing import List

from ..state.policy import Policy, allowing, closed_by, denied_by, pack_address, plain, readings
from .candidate import Verdict
from .dial import Connected, Dialled
from .open_error import OpenError
from .outside import why_not
from .resolver import Address
from .target import Target, spell
from .upstream import Channel, Ends, Lost, Unusable

# Where to a route must lead: addresses that are nobody's (RFC 5737, RFC 3849). No packet goes there.
OUTSIDE = ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1"))
NO_ROUTE = Verdict("route", "this node has no route to the internet", True)
ROUTE_GONE = Verdict("route", "this node has no route to the internet any more", False)
ROUTE_S = 0.2  # so soon a route that comes back is seen
ASKED_AGAIN_S = 30.0  # between two questions whether the internet is reached, after far ends were not
UNREACHED = ("timeout", "network", "host")


class Direct(Dialled):
    """The node's own route, as long as there is one."""

    asked_at = 0.0

    async def start(self) -> None:
        """As Upstream."""
        deadline = time.monotonic() + self.settings.connect_timeout_s
        while not has_route():
            if not self.again:
                raise Unusable(NO_ROUTE)
            if time.monotonic() > deadline:
                raise Unusable(ROUTE_GONE)
            await self.loop.sleep(ROUTE_S)
        why = await self._why_not(deadline)
        if why:
            raise Unusable(Verdict("route", why, not self.again))

    async def _why_not(self, deadline: float) -> str:
        """Why the internet is not reached; "" if it is, or nobody has said what that means."""
        self.asked_at = time.monotonic()
        targets = self.settings.direct_targets
        return await why_not(self.loop, targets, deadline) if targets else ""

    async def _ask_again(self) -> None:
        """It ends if it does not serve any more."""
        why = await self._why_not(time.monotonic() + self.settings.connect_timeout_s)
        if why:
            self.die(Verdict("route", why, False))

    def look(self) -> None:
        """As Dialled."""
        if not has_route():
            self.die(ROUTE_GONE)

    async def open(self, target: Target, ends: Ends, deadline: float) -> Channel:
        """As Upstream."""
        addresses = await self._allowed(target, deadline)
        try:
            sock = await self.dial(addresses, target.port, deadline)
        except OpenError as error:
            if error.kind == "network":
                self.look()
            if error.kind in UNREACHED and time.monotonic() - self.asked_at > ASKED_AGAIN_S:
                self.asked_at = time.monotonic()
                self.loop.spawn(self._ask_again())
            if self.end is not None:
                raise Lost()
            raise
        return Connected(ends.join(sock))

    async def _allowed(self, target: Target, deadline: float) -> List[Address]:
        """Where `target` is, as far as it may be reached; OpenError."""
        found = await self.addresses(target.host, deadline)
        if pack_address(target.host) is not None:
            return found  # judged already, as all that clients write
        why = [why_closed(self.settings.policy, target, address) for _, address in found]
        allowed = [address for address, reason in zip(found, why) if not reason]
        if not allowed:
            self.record.denied += 1
            raise OpenError("denied", "{} is {}".format(spell(target), why[0]))
        return allowed


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

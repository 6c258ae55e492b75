"""Which hosts and ports may be reached: `deny` wins, and a non-empty `allow` denies everything else.

A rule is a host with an optional `:port` or `:port-port`. The host is `*`, a name, `.suffix` (the names below it, not
itself), or an IPv4 or IPv6 address or network (`[::1]:443` with a port). Networks match addresses that the client wrote
as such; names are resolved at the jump host, where no rule of ours can look. Sites that must be sure use `allow`.

A deny rule must not be dodged by spelling, so hosts are compared in one spelling: lower case, no final dot, addresses
in any notation that getaddrinfo takes (0x7f.1, 2130706433, ::ffff:127.0.0.1) as the address they mean. Nor by meaning:
where an address leads to another one (NAT64 and its like), or is read in two ways, whoever denies one denies all.
"""

import re
import socket
import struct
from typing import List, NamedTuple, Optional, Tuple

Rule = NamedTuple(
    "Rule",
    [("text", str), ("name", str), ("network", Optional[Tuple[bytes, int]]), ("low", int), ("high", int)],
)
# Closed unless `allow` names it: what it is, in words, and where.
Closed = NamedTuple("Closed", [("what", str), ("rules", Tuple[Rule, ...])])
Policy = NamedTuple("Policy", [("allow", Tuple[Rule, ...]), ("deny", Tuple[Rule, ...]), ("closed", Tuple[Closed, ...])])

MAPPED = b"\0" * 10 + b"\xff\xff"
RULE = re.compile(
    r"(\[[^\]]+\](?:/\d+)?|[^\[\]:]+|[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*(?:/\d+)?)(?::(\d{1,5})(?:-(\d{1,5}))?)?\Z",
    re.ASCII,
)
NAME = re.compile(r"\*\Z|\.?[a-z0-9_-]+(\.[a-z0-9_-]+)*\Z")
NUMBER = re.compile(r"(0[xX][0-9a-fA-F]*|\d+)\Z", re.ASCII)
# IPv6 addresses that lead to the IPv4 address in them: how they begin, and where that stands.
LEADS_TO: Tuple[Tuple[bytes, Tuple[slice, ...]], ...] = (
    (b"\0" * 12, (slice(12, 16),)),  # IPv4-compatible (RFC 4291, 2.5.5.1)
    (b"\0" * 8 + b"\xff\xff\0\0", (slice(12, 16),)),  # translated (RFC 7915)
    (b"\0\x64\xff\x9b" + b"\0" * 8, (slice(12, 16),)),  # NAT64 (RFC 6052)
    (b"\0\x64\xff\x9b\0\1", (slice(12, 16),)),  # NAT64 of one's own, /96 (RFC 8215)
    (b"\0\x64\xff\x9b\0\1", (slice(6, 8), slice(9, 11))),  # and /48
    (b"\x20\x02", (slice(2, 6),)),  # 6to4 (RFC 3056)
)
DECIMAL = re.compile(r"\d{1,9}(\.\d{1,9}){3}\Z", re.ASCII)
LENGTH = re.compile(r"\d{1,3}\Z", re.ASCII)


class BadRule(Exception):
    """A rule that cannot be understood; nothing is guessed."""


def parse_rule(text: str) -> Rule:
    """The rule that `text` spells; BadRule."""
    low, high = 0, 65535
    if text.count(":") > 1 and not text.startswith("["):
        host = text  # a bare IPv6 address or network, all ports
    else:
        found = RULE.match(text)
        if not found:
            raise BadRule("{!r} is no host, .suffix, network or *, with an optional :port or :port-port".format(text))
        host = found.group(1)
        if found.group(2):
            low = int(found.group(2))
            high = int(found.group(3) or low)
        if not low <= high <= 65535:
            raise BadRule("{!r}: no such ports".format(text))
    host = plain(host.replace("[", "").replace("]", ""))
    network = parse_network(host, text)
    if network is None and not NAME.match(host):
        raise BadRule("{!r}: {!r} is no host name".format(text, host))
    return Rule(text, host, network, low, high)


def parse_network(host: str, text: str) -> Optional[Tuple[bytes, int]]:
    """Address and prefix length as for IPv6, or None if `host` is a name; BadRule."""
    address, slash, length = host.partition("/")
    packed = pack_address(address)
    if packed is None:
        if slash:
            raise BadRule("{!r}: {!r} is no address".format(text, address))
        return None
    bits = 128 if ":" in address else 32
    if slash and not (LENGTH.match(length) and int(length) <= bits):
        raise BadRule("{!r}: prefix length from 0 to {}".format(text, bits))
    prefix = 128 - bits + (int(length) if slash else bits)
    if masked(packed, prefix) != packed:
        raise BadRule("{!r}: address bits beyond the prefix".format(text))
    return packed, prefix


def plain(host: str) -> str:
    """One spelling per name."""
    return host.lower().rstrip(".") if host != "." else host


def pack_address(host: str) -> Optional[bytes]:
    """16 bytes, IPv4 mapped into IPv6; None if `host` is a name. Takes all that the jump host's getaddrinfo takes."""
    if ":" in host:
        try:
            return socket.inet_pton(socket.AF_INET6, host.partition("%")[0])
        except (OSError, ValueError):  # ValueError: a NUL in it
            return None
    parts = host.split(".")
    if not 1 <= len(parts) <= 4 or not all(NUMBER.match(part) for part in parts):
        return None
    try:
        return MAPPED + socket.inet_aton(host)
    except OSError:
        return None


def masked(packed: bytes, prefix: int) -> bytes:
    """`packed` with all bits after the first `prefix` cleared."""
    high, low = struct.unpack(">QQ", packed)
    value = (high << 64 | low) & ~((1 << (128 - prefix)) - 1)
    return struct.pack(">QQ", value >> 64, value & 0xFFFFFFFFFFFFFFFF)


def readings(name: str) -> List[bytes]:
    """Every address that somebody on the way may take `name` for, the first that of `pack_address`; or none."""
    packed = pack_address(name)
    if packed is None:
        return []
    found = [packed]
    if DECIMAL.match(name):  # 0177.0.0.1 is octal for inet_aton, and decimal for strict readers that drop the zero
        parts = [int(part) for part in name.split(".")]
        found += [MAPPED + bytes(parts)] if max(parts) < 256 else []
    for start, places in LEADS_TO:
        if packed.startswith(start):
            found.append(MAPPED + b"".join(packed[place] for place in places))
    return found


def speaks(rule: Rule, name: str, addresses: List[bytes]) -> bool:
    """`rule` speaks of the host called so, or of one of these addresses, whatever the port."""
    if rule.name == "*":
        return True
    if rule.network is not None:
        start, prefix = rule.network
        return any(masked(address, prefix) == start for address in addresses)
    return not addresses and (name.endswith(rule.name) if rule.name.startswith(".") else name == rule.name)


def denied_by(policy: Policy, host: str, port: int) -> Optional[str]:
    """The rule that denies host:port, in the words of its author; None if none does."""
    name = plain(host)
    addresses = readings(name)
    for rule in policy.deny:
        if rule.low <= port <= rule.high and speaks(rule, name, addresses):
            return "deny {}".format(rule.text)
    if policy.allow and not allowing(policy, name, addresses, port):
        return "not in allow"
    return None


def allowing(policy: Policy, name: str, addresses: List[bytes], port: int) -> List[Rule]:
    """The rules of `allow` that let host:port through, in its first reading: whoever allows one allows no other."""
    return [rule for rule in policy.allow if rule.low <= port <= rule.high and speaks(rule, name, addresses[:1])]


def closed_by(policy: Policy, host: str, port: int) -> Optional[str]:
    """What host:port is, in words, if it is closed and no rule of `allow` names it; None if it may be reached."""
    name = plain(host)
    addresses = readings(name)
    for closed in policy.closed:
        for rule in closed.rules:
            if speaks(rule, name, addresses) and not named(policy, rule, name, addresses, port):
                return closed.what
    # No name of the world ends in a number: what one resolver refuses another reads as an address (0x is 0 for BSD's).
    if policy.closed and not addresses and NUMBER.match(name.rpartition(".")[2]):
        return "a number that is no address"
    return None


def named(policy: Policy, closed: Rule, name: str, addresses: List[bytes], port: int) -> bool:
    """A rule of `allow` names host:port, which `closed` closes."""
    return any(within(allowed, closed, name) for allowed in allowing(policy, name, addresses, port))


def within(allowed: Rule, closed: Rule, name: str) -> bool:
    """`allowed` names the host itself, or no more than what `closed` closes: `*` and 0.0.0.0/0 name nobody."""
    if allowed.network is None or closed.network is None:
        return allowed.name == name or (allowed.name.startswith(".") and allowed.name.endswith(closed.name))
    (start, prefix), (wide, shorter) = allowed.network, closed.network
    return prefix >= shorter and masked(start, shorter) == wide

"""Which hosts and ports may be reached: `deny` wins, and a non-empty `allow` denies everything else.

A rule is a host with an optional `:port` or `:port-port`. The host is `*`, a name, `.suffix` (the names below it, not
itself), or an IPv4 or IPv6 address or network (`[::1]:443` with a port). Networks match addresses that the client wrote
as such; names are resolved at the jump host, where no rule of ours can look. Sites that must be sure use `allow`.

A deny rule must not be dodged by spelling, so hosts are compared in one spelling: lower case, no final dot, addresses
in any notation that getaddrinfo takes (0x7f.1, 2130706433, ::ffff:127.0.0.1) as the address they mean.
"""

import re
import socket
import struct
from typing import NamedTuple, Optional, Tuple

Rule = NamedTuple(
    "Rule",
    [("text", str), ("name", str), ("network", Optional[Tuple[bytes, int]]), ("low", int), ("high", int)],
)
Policy = NamedTuple("Policy", [("allow", Tuple[Rule, ...]), ("deny", Tuple[Rule, ...])])

MAPPED = b"\0" * 10 + b"\xff\xff"
RULE = re.compile(
    r"(\[[^\]]+\](?:/\d+)?|[^\[\]:]+|[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*(?:/\d+)?)(?::(\d{1,5})(?:-(\d{1,5}))?)?\Z",
    re.ASCII,
)
NAME = re.compile(r"\*\Z|\.?[a-z0-9_-]+(\.[a-z0-9_-]+)*\Z")
NUMBER = re.compile(r"(0[xX][0-9a-fA-F]*|\d+)\Z", re.ASCII)
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


def matches(rule: Rule, host: str, port: int) -> bool:
    """`rule` speaks of this host (in any spelling) and port."""
    if not rule.low <= port <= rule.high:
        return False
    if rule.name == "*":
        return True
    name = plain(host)
    packed = pack_address(name)
    if rule.network is not None or packed is not None:
        return rule.network is not None and packed is not None and masked(packed, rule.network[1]) == rule.network[0]
    return name.endswith(rule.name) if rule.name.startswith(".") else name == rule.name


def denied_by(policy: Policy, host: str, port: int) -> Optional[str]:
    """The rule that denies host:port, in the words of its author; None if it may be reached."""
    for rule in policy.deny:
        if matches(rule, host, port):
            return "deny {}".format(rule.text)
    if policy.allow and not any(matches(rule, host, port) for rule in policy.allow):
        return "not in allow"
    return None

"""The jump host's own firewall for service mode, in nft's words. Pure.

sshd decides by the name that was asked for, before it resolves it, so a name can lead anywhere; the kernel sees where a
connection goes and whose it is (nft(8): `meta skuid`, `fib … type local`). sshd connects, and resolves, as the account
that is logged in.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping, Sequence

from hpcproxy.node.state.closed import KINDS
from hpcproxy.node.state.policy import Rule, parse_rule, within

# A closed port of the jump host's loopback that the firewall answers otherwise than a closed port would: who asks for
# it learns whether the firewall stands.
FIREWALL_TARGET = "127.0.0.2:1"
_V4_BITS = 96  # of the 128, where an IPv4 address is mapped into IPv6

_HEAD = """\
#!/usr/sbin/nft -f
# hpcproxy: the service account's connections go to the world, and neither to this machine itself nor to the cluster.
# A table of its own, which touches no other. Load it now with `nft -f`, and at each start of the machine: include it in
# /etc/nftables.conf, say.
table inet {table}
delete table inet {table}
table inet {table} {{
    chain output {{
        type filter hook output priority filter; policy accept;
        meta skuid != "{account}" accept
        # Only what opens a connection: answers of sshd's own sessions pass.
        tcp flags & (fin | syn | rst | ack) != syn accept
        # sshd resolves names as this account, over TCP too when an answer is long; UDP passes as it is.
        tcp dport 53 accept
        # hpcproxy's question whether forwarding works: a closed port, and it says so.
        ip daddr 127.0.0.1 tcp dport 1 reject with tcp reset
"""
_LOCAL = "        meta l4proto tcp fib daddr type local counter reject with icmpx type admin-prohibited\n"
_REJECT = "        meta l4proto tcp {family} daddr {{ {networks} }} counter reject with icmpx type admin-prohibited\n"


def nft_block(account: str, allow: Sequence[str], resolved: Mapping[str, Sequence[str]], nodes: Iterable[str]) -> str:
    """Return what nft loads: `account` reaches nothing closed but what `allow` names.

    `resolved` has the addresses of the names in `allow`, as far as they are known; `nodes` are the cluster's addresses.
    """
    closed = [parse_rule(rule) for rule in (*_networks(), *collapsed(nodes))]
    lines = [_HEAD.format(table=f"hpcproxy_{_word(account)}", account=account)]
    for text in allow:
        rule = parse_rule(text)
        named = [parse_rule(address) for address in _addresses(rule, resolved)]
        lines += [_accept(rule, each) for each in named if _is_host(each) or _inside(each, closed)]
    lines.append(_LOCAL)
    for family, bits in (("ip", 4), ("ip6", 6)):
        spelled = [str(network) for network in map(_network, closed) if network.version == bits]
        lines.append(_REJECT.format(family=family, networks=", ".join(spelled)))
    return "".join([*lines, "    }\n", "}\n"])


def _word(account: str) -> str:
    return "".join(character if character.isalnum() else "_" for character in account)


def _networks() -> list[str]:
    rules = [rule for kind in ("link-local", "metadata") for rule in KINDS[kind].rules]
    return [rule for rule in rules if parse_rule(rule).network]


def collapsed(addresses: Iterable[str]) -> list[str]:
    """Return `addresses` as few networks: what stands on one line has no room for thousands."""
    found = {ipaddress.ip_network(address) for address in addresses}
    four = ipaddress.collapse_addresses(each for each in found if isinstance(each, ipaddress.IPv4Network))
    six = ipaddress.collapse_addresses(each for each in found if isinstance(each, ipaddress.IPv6Network))
    return [str(network) for network in (*four, *six)]


def _addresses(rule: Rule, resolved: Mapping[str, Sequence[str]]) -> Sequence[str]:
    if rule.network is not None:
        return [str(_network(rule))]
    return ["127.0.0.1", "::1"] if rule.name in KINDS["loopback"].rules else resolved.get(rule.name, ())


def _is_host(rule: Rule) -> bool:
    return rule.network is not None and rule.network[1] == 128  # noqa: PLR2004 - all bits of an address


def _inside(rule: Rule, closed: Sequence[Rule]) -> bool:
    loopback = [parse_rule(each) for each in KINDS["loopback"].rules]
    return any(each.network and within(rule, each, "") for each in (*closed, *loopback))


def _network(rule: Rule) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    """Return the network of a rule that has one."""
    packed, prefix = rule.network or (bytes(16), 0)
    if packed.startswith(bytes(10) + b"\xff\xff") and prefix >= _V4_BITS:
        return ipaddress.IPv4Network((packed[12:], prefix - _V4_BITS))
    return ipaddress.IPv6Network((packed, prefix))


def _accept(rule: Rule, address: Rule) -> str:
    network = _network(address)
    family = "ip" if network.version == 4 else "ip6"  # noqa: PLR2004
    ports = f"{rule.low}-{rule.high}" if rule.low != rule.high else str(rule.low)
    return f"        {family} daddr {network} tcp dport {ports} accept\n"

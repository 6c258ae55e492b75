"""What is closed though no rule denies it: places that a jump host reaches from within, unless `allow` names them.

agent.json says which kinds hold: loopback always, for there a request would meet the jump host itself; in service mode
all.
A name that resolves to such an address at the jump host cannot be seen from here: its own firewall is for that
(`jump-kit` writes it).
"""

import socket
import struct
from typing import Dict, Iterable, List, NamedTuple, Set, Tuple

from .policy import Closed, parse_rule

# What each kind is, in the words of the answer, and where it is. The names are those of glibc's, Debian's and Red Hat's
# /etc/hosts, RFC 6761, and of the clouds' own manuals.
Kind = NamedTuple("Kind", [("what", str), ("rules", Tuple[str, ...])])
KINDS: Dict[str, Kind] = {
    "loopback": Kind(
        "the jump host's own loopback",
        (
            *("127.0.0.0/8", "0.0.0.0/8", "::1", "::"),
            *("localhost", ".localhost", "localhost.localdomain", "localhost4", "localhost4.localdomain4"),
            *("localhost6", "localhost6.localdomain6", "ip6-localhost", "ip6-loopback", "loopback"),
        ),
    ),
    "link-local": Kind("a link-local address", ("169.254.0.0/16", "fe80::/10")),
    "metadata": Kind(
        "a cloud's metadata service",
        (
            # AWS (all of its services on a machine), Google, Alibaba, Oracle, Azure; most others are link-local.
            *("fd00:ec2::/32", "fd20:ce::254", "100.100.100.200", "192.0.0.192", "168.63.129.16"),
            *("metadata.google.internal", "metadata.goog", "metadata", "instance-data", "instance-data.ec2.internal"),
            *("metadata.azure.internal", "metadata.tencentyun.com"),
        ),
    ),
    "jump-hosts": Kind("the jump host itself", ()),
    "nodes": Kind("a network of this cluster", ()),
    "proxy": Kind("the proxy's own loopback", ()),
    "node": Kind("this node itself", ()),  # for who gets out by the node's own route: its loopback and its addresses
}
LOOPBACK = ("loopback",)  # what is closed to everybody through a jump host,
NODE = ("node",)  # without one,
PROXY = ("proxy",)  # and through a proxy of the site's
SERVICE = ("loopback", "link-local", "metadata", "jump-hosts", "nodes")  # in service mode
NARROW4, NARROW6 = 8, 16  # a route that is wider leads to the world, in halves or quarters
ROUTES = 1000  # a router's table is no list of a node's networks
TRIE = 100000


def closed(kinds: Iterable[str], jump_hosts: Iterable[str], proc_net: str = "/proc/net") -> Tuple[Closed, ...]:
    """These kinds with their rules; what only the node knows, its networks, is asked of the kernel now."""
    found = []
    for name in kinds:
        rules = KINDS[name].rules
        if name == "jump-hosts":
            rules = tuple(jump_hosts)
        elif name == "nodes":
            rules = tuple(networks(proc_net))
        elif name == "proxy":
            rules = KINDS["loopback"].rules
        elif name == "node":
            rules = KINDS["loopback"].rules + tuple(own_addresses(proc_net))
        found.append(Closed(KINDS[name].what, tuple(map(parse_rule, rules))))
    return tuple(found)


def networks(proc_net: str) -> List[str]:
    """Networks that this node has a route to other than the default one: no tunnel is needed there."""
    found = [network4(line.split()) for line in lines(proc_net + "/route")[1:]]
    found += [network6(line.split()) for line in lines(proc_net + "/ipv6_route")]
    return sorted(set(found) - {""})


def own_addresses(proc_net: str) -> List[str]:
    """The addresses of this node, each as a rule: of the kernel's table of routes those that end here."""
    found: Set[str] = set()
    address = ""
    for words in map(str.split, lines(proc_net + "/fib_trie", TRIE)):
        if words[:1] == ["|--"]:
            address = words[-1]
        elif words[1:] == ["host", "LOCAL"]:
            found.add(address + words[0])
    for words in map(str.split, lines(proc_net + "/if_inet6")):
        found.add(socket.inet_ntop(socket.AF_INET6, bytes.fromhex(words[0])))
    return sorted(found)


def network4(words: List[str]) -> str:
    """ADDRESS/LENGTH of a line of /proc/net/route: interface, destination, …, the mask in the eighth field; or ""."""
    try:
        address, mask = (struct.pack("=I", int(words[place], 16)) for place in (1, 7))
        length = bin(struct.unpack(">I", mask)[0]).count("1")
        return "{}/{}".format(socket.inet_ntop(socket.AF_INET, address), length) if length >= NARROW4 else ""
    except (IndexError, ValueError, struct.error):
        return ""


def network6(words: List[str]) -> str:
    """ADDRESS/LENGTH of a line of /proc/net/ipv6_route: destination, its length, …; or ""."""
    try:
        address, length = bytes.fromhex(words[0]), int(words[1], 16)
        return "{}/{}".format(socket.inet_ntop(socket.AF_INET6, address), length) if length >= NARROW6 else ""
    except (IndexError, ValueError, OSError):
        return ""


def lines(path: str, most: int = ROUTES) -> List[str]:
    """The first lines of a kernel's table; none where there is no such protocol."""
    try:
        with open(path) as file:
            return [line for line, _ in zip(file, range(most))]
    except OSError:
        return []

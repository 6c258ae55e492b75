"""The lab's wires: two bridges on the switch, and a veth pair for each leg of each host. Uses ip(8) and bridge(8)."""

from __future__ import annotations

import subprocess
from collections.abc import Iterable, Mapping

from hpcproxy.errors import LabError
from hpcproxy.lab.cradle import SWITCH
from hpcproxy.lab.spec import CLUSTER, OUTER, Host, Link

_NOBODY = "02:00:00:00:00:00"


def connect(hosts: Iterable[Host], pids: Mapping[str, int]) -> None:
    """Give every host its addresses and neighbours known for good, and none a default route."""
    every = tuple(hosts)
    lines = []
    for network in (CLUSTER, OUTER):
        lines += [f"link add {network} type bridge forward_delay 0 stp_state 0", f"link set {network} up"]
    for host in every:
        for link in host.links:
            peer = f"peer name {link.device} address {link.mac} netns /proc/{pids[host.name]}/ns/net"
            lines += [
                f"link add {link.port} type veth {peer}",
                f"link set {link.port} addrgenmode none master {link.network} up",
            ]
    _ip(pids[SWITCH], lines)
    for host in every:
        _ip(pids[host.name], _legs(host, every))


def set_link(switch_pid: int, link: Link, up: bool) -> None:
    """Let the link carry frames, or swallow them without a word: no carrier loss, no ARP failure, no RST."""
    state = "3" if up else "0"  # forwarding, disabled
    _call(switch_pid, ["bridge", "link", "set", "dev", link.port, "state", state])


def set_wire(one: Host, other: Host, pids: Mapping[str, int], up: bool) -> None:
    """Let packets between two hosts pass, or vanish without a word in both directions; all others are not touched."""
    for here, there in ((one, other), (other, one)):
        devices = {link.network: link.device for link in here.links}
        # To an address that nobody has: the bridge takes the frame, and every host that sees it lets it drop.
        lines = []
        for link in there.links:
            if link.network in devices:
                known = f"{link.address} lladdr {link.mac if up else _NOBODY} nud permanent"
                lines.append(f"neigh replace {known} dev {devices[link.network]}")
        if not lines:
            raise LabError(f"lab: {one.name} and {other.name} have no network in common")
        _ip(pids[here.name], lines)


def _legs(host: Host, every: Iterable[Host]) -> list[str]:
    lines = ["link set lo up"]
    for link in host.links:
        lines += [
            f"link set {link.device} addrgenmode none up",
            f"address add {link.address}/24 brd + dev {link.device}",
        ]
        neighbours = (other for peer in every if peer != host for other in peer.links if other.network == link.network)
        lines += [f"neigh replace {n.address} lladdr {n.mac} dev {link.device} nud permanent" for n in neighbours]
    return lines


def _ip(pid: int, lines: Iterable[str]) -> None:
    _call(pid, ["ip", "-batch", "-"], "".join(f"{line}\n" for line in lines))


def _call(pid: int, argv: list[str], feed: str = "") -> None:
    enter = ["nsenter", f"--net=/proc/{pid}/ns/net", "--"]
    done = subprocess.run([*enter, *argv], input=feed, text=True, capture_output=True, timeout=60, check=False)
    if done.returncode != 0:
        raise LabError(f"lab: {' '.join(argv)} failed: {done.stderr.strip()}")

"""What a lab shall be: a frozen, validated value, and the hosts and addresses that follow from it."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hpcproxy.errors import LabError

CLUSTER = "cluster"
OUTER = "outer"
CONTROLLER = "ctl"
LOGIN = "login"  # another name of the controller
INTERNET = "internet"
INTERNET_NAME = "internet.test"  # RFC 6761: .test never exists outside
USERS: Mapping[str, int] = {"alice": 2001, "bob": 2002}
RELEASE_ROLES = ("controller", "compute", "jump")
SUITES = ("bullseye", "bookworm", "trixie", "forky")  # Debian's releases, oldest first
RELEASE_VARIABLE = "HPCPROXY_LAB_RELEASE"  # for test runs and the demo: which release a lab has if nobody says
# With proctrack/cgroup of 22.05 the first job lost its output and drained its node; it is for those of CGROUP_SUITES.
PROCTRACKS = ("linuxproc", "pgid", "cgroup")
CGROUP_SUITES = ("trixie", "forky")
MAX_NODES = 64
MAX_GPUS = 16
_CLUSTER_NET = "192.168.31."
_OUTER_NET = "203.0.113."  # RFC 5737: documentation only


@dataclass(frozen=True)
class Link:
    """A host's leg in a network; `port` is its other end, on the lab's switch."""

    network: str
    device: str
    address: str
    port: str

    @property
    def mac(self) -> str:
        """A fixed hardware address, so that neighbours can be known without ARP."""
        return "02:00:" + ":".join(f"{int(octet):02x}" for octet in self.address.split("."))


@dataclass(frozen=True)
class Host:
    """One machine of the lab; `role` is controller, compute, jump or internet."""

    name: str
    role: str
    links: tuple[Link, ...]

    @property
    def in_cluster(self) -> bool:
        """True for the machines that mount the shared /home and run Slurm."""
        return self.role in ("controller", "compute")


@dataclass(frozen=True)
class LabSpec:
    """A lab to build. Wrong values raise LabError here and nowhere later.

    `slurm_conf` replaces or adds lines of slurm.conf; `expose` are paths of this machine that the lab's hosts see at
    the same place, read-only, where they would otherwise be hidden or out of reach for alice and bob. With `node_sshd`
    root on the controller has a key that opens an sshd on every compute node, as a cluster's admin has. `release` says
    by role which hosts have the files of another Debian release, one of SUITES.
    """

    name: str = "lab"
    nodes: int = 3
    slurm_conf: Mapping[str, str] = field(default_factory=dict)
    proctrack: str = "linuxproc"
    expose: tuple[Path, ...] = ()
    cpus: int = 4
    memory_mb: int = 1000
    gpus: int = 2
    node_sshd: bool = False
    release: Mapping[str, str] = field(default_factory=lambda: parse_release(os.environ.get(RELEASE_VARIABLE, "")))

    def __post_init__(self) -> None:
        object.__setattr__(self, "slurm_conf", {str(key): str(value) for key, value in self.slurm_conf.items()})
        object.__setattr__(self, "expose", tuple(Path(path).absolute() for path in self.expose))
        self._check("name", bool(re.fullmatch(r"[a-z][a-z0-9-]{0,31}", self.name)), "a-z, 0-9, '-'; at most 32")
        object.__setattr__(self, "release", dict(self.release))
        self._check("release", set(self.release) <= set(RELEASE_ROLES), f"one for each of {', '.join(RELEASE_ROLES)}")
        self._check("release", set(self.release.values()) <= set(SUITES), ", ".join(SUITES))
        self._check("nodes", 1 <= self.nodes <= MAX_NODES, f"1 to {MAX_NODES}")
        self._check("proctrack", self.proctrack in PROCTRACKS, ", ".join(PROCTRACKS))
        has_cgroup = self.proctrack != "cgroup" or self.release.get("compute") in CGROUP_SUITES
        self._check("proctrack", has_cgroup, f"cgroup only with nodes of {', '.join(CGROUP_SUITES)}")
        self._check("cpus", self.cpus >= 1, "1 or more")
        self._check("memory_mb", self.memory_mb >= 1, "1 or more")
        self._check("gpus", 0 <= self.gpus <= MAX_GPUS, f"0 to {MAX_GPUS}")
        for key, value in self.slurm_conf.items():
            self._check("slurm_conf", "\n" not in key + value and "=" not in key, f"one line each, not {key!r}")
        for path in self.expose:
            self._check("expose", path.exists(), f"existing paths, not {path}")

    def _check(self, key: str, good: bool, valid: str) -> None:
        if not good:
            raise LabError(f"lab: {key} {getattr(self, key)!r} is not possible; valid: {valid}")

    @property
    def hosts(self) -> tuple[Host, ...]:
        """Every machine of the lab, the controller first."""
        controller = Host(CONTROLLER, "controller", (_link(CONTROLLER, CLUSTER, 2),))
        compute = [Host(f"c{n}", "compute", (_link(f"c{n}", CLUSTER, 100 + n),)) for n in range(1, self.nodes + 1)]
        jumps = [
            Host(name, "jump", (_link(name, CLUSTER, last), _link(name, OUTER, last)))
            for name, last in (("jump1", 10), ("jump2", 11))
        ]
        return (controller, *compute, *jumps, Host(INTERNET, "internet", (_link(INTERNET, OUTER, 80),)))

    def host(self, name: str) -> Host:
        """Return the machine called `name`; the LabError lists the valid names."""
        wanted = CONTROLLER if name == LOGIN else name
        for host in self.hosts:
            if host.name == wanted:
                return host
        raise LabError(f"lab {self.name} has no host {name!r}; valid: {', '.join(h.name for h in self.hosts)}")

    def to_json(self) -> dict[str, Any]:
        """Plain data that `from_json` turns back into an equal spec."""
        plain = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return {
            **plain,
            "slurm_conf": dict(self.slurm_conf),
            "release": dict(self.release),
            "expose": [str(path) for path in self.expose],
        }

    @classmethod
    def from_json(cls, plain: Mapping[str, Any]) -> LabSpec:
        """Return the spec that `to_json` described."""
        return cls(**plain)


def parse_release(text: str) -> Mapping[str, str]:
    """Return which role's hosts have which release: `trixie` is everybody's, `jump=trixie,compute=bullseye` says more.

    The controller, where users log in, takes one only if all do: it runs this python. Raises LabError.
    """
    found: dict[str, str] = {}
    for word in filter(None, text.replace(" ", "").split(",")):
        role, equals, suite = word.rpartition("=")
        found.update({role: suite} if equals else dict.fromkeys(RELEASE_ROLES, suite))
    return found


def _link(host: str, network: str, last_octet: int) -> Link:
    prefix, device = (_CLUSTER_NET, "eth0") if network == CLUSTER else (_OUTER_NET, "eth1")
    return Link(network, device, f"{prefix}{last_octet}", f"{host}-{network}")

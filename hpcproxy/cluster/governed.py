"""Which nodes a slurm.conf governs, as slurmctld knows them, and who of them is looked after. Pure.

`scontrol --all show nodes --oneliner` prints a line for each, hidden ones and those in no partition too.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from hpcproxy.cluster.inventory import expand, fold

SHOW_NODES = ("--all", "show", "nodes", "--oneliner")
SHOW_PARTITIONS = ("--all", "show", "partitions", "--oneliner")
_FIELD = re.compile(r"(NodeName|NodeHostName|NodeAddr|State)=(\S*)")
_OF_PARTITION = re.compile(r"\bNodes=(?!\(null\))(\S+)")
_NODE = re.compile(r"[A-Za-z0-9_.-]+", re.ASCII)
_HIDDEN = ("CLOUD", "POWERED_DOWN")
_AWAY = ("CLOUD", "POWERED_DOWN", "POWERING_DOWN", "POWER_DOWN", "FUTURE")


@dataclass(frozen=True)
class Node:
    """One node: by what names it is reached, and the flags of its state."""

    name: str
    names: frozenset[str]
    state: tuple[str, ...]

    @property
    def is_off(self) -> bool:
        """Whether Slurm has powered it down, and it starts from its image when a job wants it."""
        return any(word in _AWAY for word in self.state)


def parse(shown: str, partitions: str = "") -> list[Node]:
    """Return the nodes that `scontrol show nodes --oneliner` lists, and those that only `partitions` name.

    The latter are powered down: without `PrivateData=cloud` Slurm before 23.02 lists none that is (tried on 22.05).
    """
    found = []
    for line in shown.splitlines():
        fields = dict(_FIELD.findall(line))
        if "NodeName" in fields:
            names = frozenset(value for name, value in fields.items() if name != "State")
            state = tuple(re.split(r"[+*~#$@^!%-]+", fields.get("State", "")))
            found.append(Node(_shown(fields["NodeName"]), names, state))
    known = {node.name for node in found}
    for value in _OF_PARTITION.findall(partitions):
        try:
            more = expand(value)
        except ValueError:  # who cannot be read is not passed over
            more = (_shown(value),)
        found += [Node(name, frozenset({name}), _HIDDEN) for name in more if name not in known]
        known.update(more)
    return found


def _shown(name: str) -> str:
    """Return `name` so that it is one host's in a node set."""
    return name if _NODE.fullmatch(name) else re.sub(r"[^A-Za-z0-9.-]", "_", name)


def left_out(nodes: Iterable[Node], hosts: Sequence[str], *, in_the_image: bool = False) -> list[str]:
    """Return in words which of `nodes` are none of `hosts`, for whom nobody knows whether they have our files.

    `in_the_image`: those that are powered down start with the files.
    """
    strangers = [node for node in nodes if not node.names & set(hosts)]
    off = [node.name for node in strangers if node.is_off and not in_the_image]
    others = [node.name for node in strangers if not node.is_off]
    words = []
    if others:
        words.append(
            f"this slurm.conf is {fold(others)}'s too, which is not in the inventory: a job there would find "
            f"nothing of what the lines name, and drain it"
        )
    if off:
        words.append(
            f"{fold(off)} is powered down and not in the inventory: it starts from an image, which must have the files "
            f"(hpcproxy render --root); say `keeps_files: true` once it has"
        )
    return words

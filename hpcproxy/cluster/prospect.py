"""What will happen at the next job on hosts that are not as they shall be, in words. Pure.

A file that Slurm is told to run and that is not there has one end for each line, tried on 22.05: see FATE.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from hpcproxy.cluster import slurm_conf
from hpcproxy.cluster.inventory import Inventory, fold
from hpcproxy.cluster.outcome import HostOutcome, Outcomes
from hpcproxy.config.places import PROGRAMS
from hpcproxy.openssh import reasons

FATE = {
    "Prolog": "drains it and is requeued",
    "Epilog": "drains it when it ends",
    "TaskProlog": "fails",
}
UNKNOWN = "what its next job finds there is not known"


def tell(outcomes: Outcomes, running: slurm_conf.Running | str, inventory: Inventory) -> list[str]:
    """Return a line for each kind of host that is not as it shall be: what it is, and what becomes of its next job."""
    kinds: dict[str, list[str]] = {}
    for host in outcomes.hosts:
        words = _one(host, running, inventory)
        if words:
            kinds.setdefault(words, []).append(host.host)
    return [f"{fold(hosts)}: {words}" for words, hosts in kinds.items()]


def _one(host: HostOutcome, running: slurm_conf.Running | str, inventory: Inventory) -> str:
    if host.word == "unreached":
        if host.why == reasons.ANOTHER_KEY:
            return f"has been installed anew, or is another machine; {UNKNOWN}"
        return f"cannot be reached: it is down, or its sshd is; {UNKNOWN}"
    gone = {change.path for change in host.changes if change.action == "create"}
    if host.word != "would" or not gone:
        return ""
    facts = host.answer.facts if host.answer else {}
    what = _WHAT[facts.get("conf", "")] if len(gone) > _A_FEW else "lacks some of the files"
    return f"{what}; {_fate(gone, running, inventory)}"


_A_FEW = 5
_WHAT = {
    "own": "has none of the files, and a slurm.conf of its own: it was installed anew, or never had them",
    "none": "has none of the files, and its slurm.conf from the controller: its image lacks them, see render --root",
    "": "has none of the files",
}


def _fate(gone: Sequence[str] | set[str], running: slurm_conf.Running | str, inventory: Inventory) -> str:
    if isinstance(running, str):
        return f"what its next job does is not known: {running}"
    lost = [
        name
        for name, path in slurm_conf.ours(inventory).items()
        if path in gone and slurm_conf.runs_ours(running.get(name, ()), path)
    ]
    ends = _ends(lost, running, inventory)
    if ends:
        return "its next job " + ends
    needed = any(path.startswith(f"{PROGRAMS}/") for path in gone)
    return "its next job runs without a tunnel" if needed else "its next job does not need them"


def _ends(lost: Sequence[str], running: Mapping[str, tuple[str, ...]], inventory: Inventory) -> str:
    """Return what becomes of a job where the hooks `lost` are not there; the first of them decides."""
    for name in lost:
        path = slurm_conf.ours(inventory)[name]
        value = next(value for value in running.get(name, ()) if slurm_conf.runs_ours((value,), path))
        if value == path or name == "TaskProlog":
            return f"{FATE[name]}: {name}={value}"
        return f"{FATE[name]} if nothing else is there for {name}={value}"
    return ""

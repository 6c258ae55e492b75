"""What slurm.conf must say, and what the running configuration says instead: words for the admin. Pure.

`scontrol show config` prints `Name = value` lines; slurm.conf(5) has the meaning of each.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Mapping

from hpcproxy import block
from hpcproxy.inventory import Inventory
from hpcproxy.plan import PROGRAMS, TASK_PROLOG
from hpcproxy.siteplan import DROP_IN

SHOW_CONFIG = ("scontrol", "show", "config")
RECONFIGURE = ("scontrol", "reconfigure")
INCLUDED = "hpcproxy.conf"
_UNSET = ("", "(null)", "(none)", "n/a")
_ARRAY = re.compile(r"(?P<name>\w+)\[\d+\]")  # newer versions print one line for each Prolog


def lines(inventory: Inventory) -> tuple[str, ...]:
    """Return the lines that slurm.conf needs."""
    return (
        f"Prolog={inventory.slurm_directory}/prolog.d/*",
        f"Epilog={inventory.slurm_directory}/epilog.d/*",
        f"TaskProlog={PROGRAMS / TASK_PROLOG}",
        "PrologFlags=Alloc",
    )


def included_file(inventory: Inventory) -> bytes:
    """Return the file that `--enable` lets slurm.conf include."""
    head = "# hpcproxy: written by deploy --enable; undeploy takes it back\n"
    return (head + "".join(f"{line}\n" for line in lines(inventory))).encode()


def enable(slurm_conf: bytes, inventory: Inventory) -> bytes:
    """Return `slurm_conf` with our block, which holds one include line; raises BlockError."""
    path = f"{inventory.slurm_directory}/slurm.conf"
    return block.put(slurm_conf, f"Include {inventory.slurm_directory}/{INCLUDED}\n".encode(), path)


def disable(slurm_conf: bytes, inventory: Inventory) -> bytes:
    """Return `slurm_conf` without our block, byte for byte as before; raises BlockError."""
    return block.remove(slurm_conf, f"{inventory.slurm_directory}/slurm.conf")


def parse(shown: str) -> Mapping[str, tuple[str, ...]]:
    """Return the values of the running configuration by name; an unset one is missing."""
    found: dict[str, tuple[str, ...]] = {}
    for line in shown.splitlines():
        name, equals, value = line.partition("=")
        name, value = name.strip(), value.strip()
        match = _ARRAY.fullmatch(name)
        if equals and value not in _UNSET:
            key = match["name"] if match else name
            found[key] = (*found.get(key, ()), value)
    return found


def in_the_way(running: Mapping[str, tuple[str, ...]], inventory: Inventory) -> list[str]:
    """Return what the running configuration has that our lines would replace: `--enable` is refused for these."""
    wanted = dict(line.split("=", 1) for line in lines(inventory))
    words = []
    for name in ("Prolog", "Epilog"):
        foreign = [value for value in running.get(name, ()) if value != wanted[name]]
        if foreign and not _runs_ours(foreign, wanted[name]):
            words.append(f"{name} is {', '.join(foreign)} already; move it into {wanted[name]} and name that")
    (task_prolog,) = running.get("TaskProlog", ("",))[:1]
    if task_prolog not in ("", wanted["TaskProlog"]):
        words.append(
            f"TaskProlog is {task_prolog} already; say `site_task_prolog: {task_prolog}`, and ours runs it first"
        )
    return words


def missing(running: Mapping[str, tuple[str, ...]], inventory: Inventory) -> list[str]:
    """Return the lines that the running configuration lacks."""
    wanted = dict(line.split("=", 1) for line in lines(inventory))
    lacking = [
        f"{name}={wanted[name]}"
        for name in ("Prolog", "Epilog")
        if wanted[name] not in running.get(name, ()) and not _runs_ours(running.get(name, ()), wanted[name])
    ]
    if wanted["TaskProlog"] not in running.get("TaskProlog", ()):
        lacking.append(f"TaskProlog={wanted['TaskProlog']}")
    flags = ",".join(running.get("PrologFlags", ())).lower().split(",")
    if not {"alloc", "contain", "runinjob"} & set(flags):
        lacking.append("PrologFlags=Alloc")
    return lacking


def _runs_ours(values: object, wanted: str) -> bool:
    ours = wanted.replace("*", DROP_IN)
    return isinstance(values, (list, tuple)) and any(fnmatch.fnmatchcase(ours, str(value)) for value in values)

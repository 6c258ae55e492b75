"""What slurm.conf must say, and what the running configuration says instead: words for the admin. Pure.

`scontrol show config` prints `Name = value` lines; slurm.conf(5) has the meaning of each.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Mapping, Sequence

from hpcproxy import block
from hpcproxy.inventory import Inventory
from hpcproxy.plan import PROGRAMS, TASK_PROLOG
from hpcproxy.siteplan import DROP_IN

SHOW_CONFIG = ("scontrol", "show", "config")
RECONFIGURE = ("scontrol", "reconfigure")
INCLUDED = "hpcproxy.conf"
_UNSET = ("", "(null)", "(none)", "n/a")
_FLAGS_LINE = re.compile(r"\s*PrologFlags\s*=\s*(?P<value>[^\s#]*)", re.IGNORECASE)
_ARRAY = re.compile(r"(?P<name>\w+)\[\d+\]")  # newer versions print one line for each Prolog


# What of PrologFlags runs the Prolog when the job gets its nodes, and not at its first step only; slurm.conf(5).
_EARLY = ("alloc", "contain", "runinjob", "x11")
_RUN_IN_JOB_SINCE = (24, 5)


def lines(inventory: Inventory, flags: str = "Alloc") -> tuple[str, ...]:
    """Return the lines that slurm.conf needs; no `flags`: those of the site will do."""
    return (
        f"Prolog={inventory.slurm_directory}/prolog.d/*",
        f"Epilog={inventory.slurm_directory}/epilog.d/*",
        f"TaskProlog={PROGRAMS / TASK_PROLOG}",
        *([f"PrologFlags={flags}"] if flags else []),
    )


def flags_to_add(own: str) -> str:
    """Return the value of PrologFlags that has what we need and the site's `own`; none if that has it already."""
    kept = [flag.strip() for flag in own.split(",") if flag.strip()]
    return "" if _runs_early(kept) else ",".join([*kept, "Alloc"])


def flags_in(slurm_conf: bytes) -> str | None:
    """Return the value of PrologFlags that the text of a slurm.conf sets, None if it sets none; the last one counts."""
    found = None
    for line in slurm_conf.decode(errors="replace").splitlines():
        match = _FLAGS_LINE.match(line)
        found = match["value"] if match else found
    return found


def included_file(inventory: Inventory, flags: str = "Alloc") -> bytes:
    """Return the file that `--enable` lets slurm.conf include."""
    head = "# hpcproxy: written by deploy --enable; undeploy takes it back\n"
    return (head + "".join(f"{line}\n" for line in lines(inventory, flags))).encode()


def flags_for(running: Mapping[str, tuple[str, ...]], slurm_conf: bytes, included: bytes | None) -> str:
    """Return what the included file says of PrologFlags, so that no flag of the site's is lost, now and next time.

    Slurm takes the last value it reads. The site's own stands in `slurm_conf`, or in a file that it includes: then it
    is what runs, unless ours does already.
    """
    own = flags_in(slurm_conf)
    if own is None and included is not None:
        return flags_in(included) or ""
    return flags_to_add(",".join(running.get("PrologFlags", ())) if own is None else own)


def _runs_early(flags: Sequence[str]) -> bool:
    return any(flag.lower() in _EARLY for flag in flags)


def enable(slurm_conf: bytes, inventory: Inventory) -> bytes:
    """Return `slurm_conf` with our block, which holds one include line; raises BlockError.

    The bare name: a configless controller hands on included files that are named so, and no others.
    """
    path = f"{inventory.slurm_directory}/slurm.conf"
    return block.put(slurm_conf, f"Include {INCLUDED}\n".encode(), path)


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
    flags = flags_to_add(",".join(running.get("PrologFlags", ())))
    if flags:
        lacking.append(f"PrologFlags={flags}")
    return lacking


def remarks(running: Mapping[str, tuple[str, ...]], inventory: Inventory) -> list[str]:
    """Return what an admin should know of this Slurm: whose process a way out is, where the lines must stand."""
    words = []
    version = _version(running)
    flags = ",".join(running.get("PrologFlags", ())).lower().split(",")
    if "runinjob" in flags:
        words.append("PrologFlags has RunInJob: a way out lives in its job, and Slurm ends it with the job")
    elif version >= _RUN_IN_JOB_SINCE and "cgroup" in "".join(running.get("ProctrackType", ())):
        words.append(
            "a way out lives beside its job, and the Epilog ends it; PrologFlags=RunInJob would put it into the job's "
            "cgroup, with every other Prolog of the site's"
        )
    if is_configless(running):
        words.append(
            f"Slurm is configless: only the controllers have a slurm.conf; the Prolog, Epilog and TaskProlog that it "
            f"names are files of the nodes, in {inventory.slurm_directory} and {PROGRAMS}, where deploy puts them"
        )
    return words


def is_configless(running: Mapping[str, tuple[str, ...]]) -> bool:
    """Whether nodes without a slurm.conf get it from the controller."""
    return "enable_configless" in ",".join(running.get("SlurmctldParameters", ())).lower()


def _version(running: Mapping[str, tuple[str, ...]]) -> tuple[int, ...]:
    """Return Slurm's version, 24.05.3 as (24, 5, 3); one that cannot be read is older than every other."""
    (text,) = running.get("SLURM_VERSION", ("",))[:1]
    match = re.match(r"\d+(\.\d+)*", text)
    return tuple(map(int, match[0].split("."))) if match else ()


def _runs_ours(values: object, wanted: str) -> bool:
    ours = wanted.replace("*", DROP_IN)
    return isinstance(values, (list, tuple)) and any(fnmatch.fnmatchcase(ours, str(value)) for value in values)

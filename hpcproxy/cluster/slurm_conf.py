"""What slurm.conf must say, and what the running configuration says instead: words for the admin. Pure.

`scontrol show config` prints `Name = value` lines; slurm.conf(5) has the meaning of each. The running configuration is
the truth: what stands in slurm.conf may be quoted, continued, included, or set anew further down.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase

from hpcproxy import floors
from hpcproxy.cluster.inventory import SPANK, Inventory
from hpcproxy.cluster.site_plan import DROP_IN
from hpcproxy.config.places import PROGRAMS
from hpcproxy.files import block
from hpcproxy.files.plan import TASK_PROLOG

RECONFIGURE = ("reconfigure",)
INCLUDED = "hpcproxy.conf"  # an earlier version's lines stood there, and slurm.conf included it
HOOKS = ("Prolog", "Epilog")
_TIMEOUTS = ("PrologEpilogTimeout", "PrologTimeout", "EpilogTimeout")  # the first until 24.05
_NO_TIMEOUT_S = 65534
_UNSET = ("", "(null)", "(none)", "n/a")
_ARRAY = re.compile(r"(?P<name>\w+)\[\d+\]")  # newer versions print one line for each Prolog
_DIGITS = re.compile(r"\d{1,9}(?!\d)", re.ASCII)
_WORD = re.compile(r"[A-Za-z0-9_]+", re.ASCII)

# What of PrologFlags runs the Prolog when the job gets its nodes, and not at its first step only; slurm.conf(5).
_EARLY = ("alloc", "contain", "runinjob", "x11")
_RUN_IN_JOB_SINCE = (24, 5)
# Since when a Prolog is told what a policy asks for (Slurm's prep_script_slurmd.c). An account only if the job has one:
# where slurmctld keeps none, what the job says with --account.
_TOLD_SINCE = {"comment": (22, 5), "accounts": (22, 5)}
_VARIABLES = {"comment": "SLURM_JOB_COMMENT", "accounts": "SLURM_JOB_ACCOUNT"}

Running = Mapping[str, tuple[str, ...]]


# ------------------------------------------------------------------------------------------------ what Slurm says


def parse(shown: str) -> Running:
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


def is_configless(running: Running) -> bool:
    """Whether nodes without a slurm.conf get it from the controller."""
    return "enable_configless" in ",".join(running.get("SlurmctldParameters", ())).lower()


def runs_ours(values: Sequence[str], ours: str) -> bool:
    """Whether one of `values`, each a path or a pattern of glob(7), runs the file `ours`."""
    return any(_matches(ours, value) for value in values)


def _matches(path: str, pattern: str) -> bool:
    """As glob(3): a wildcard meets no slash and no leading dot."""
    parts, wanted = path.split("/"), pattern.replace("[^", "[!").split("/")
    return len(parts) == len(wanted) and all(
        fnmatchcase(part, want) and (not part.startswith(".") or want.startswith("."))
        for part, want in zip(parts, wanted)
    )


def version(running: Running) -> tuple[int, ...]:
    """Return Slurm's version, 24.05.3 as (24, 5, 3); one that cannot be read is older than every other."""
    (text,) = running.get("SLURM_VERSION", ("",))[:1]
    match = re.match(r"\d{1,9}(\.\d{1,9})*(?!\d)", text, re.ASCII)
    return tuple(map(int, match[0].split("."))) if match else ()


def too_old(running: Running) -> list[str]:
    """Return a sentence if this Slurm is older than any that ours works with."""
    words = floors.SLURM.too_old(*running.get("SLURM_VERSION", ("",))[:1])
    return [words] if words else []


# ------------------------------------------------------------------------------------------------ what it shall say


def ours(inventory: Inventory) -> Mapping[str, str]:
    """Return the files of ours that Slurm shall run, by the names that slurm.conf has for them.

    With `via: spank` too, where it shall not: what an earlier roll-out has let slurm.conf say is to be found.
    """
    directory = inventory.slurm_directory
    return {
        "Prolog": f"{directory}/prolog.d/{DROP_IN}",
        "Epilog": f"{directory}/epilog.d/{DROP_IN}",
        "TaskProlog": str(PROGRAMS / TASK_PROLOG),
    }


def lines(inventory: Inventory, flags: str = "Alloc") -> tuple[str, ...]:
    """Return the lines that slurm.conf needs, where the site has none; no `flags`: those of the site will do.

    Our own files by name, and no pattern: nothing that nobody has looked at may run with them.
    """
    if inventory.via == SPANK:
        return ()
    names = HOOKS if not inventory.site_runs_hooks else ()
    files = ours(inventory)
    return (
        *(f"{name}={files[name]}" for name in (*names, "TaskProlog")),
        *([f"PrologFlags={flags}"] if flags else []),
    )


def missing(running: Running, inventory: Inventory) -> list[str]:
    """Return the lines that the running configuration lacks: what runs ours already stays as the site wrote it."""
    lacking = []
    for line in lines(inventory, ""):
        name, _, path = line.partition("=")
        if not runs_ours(running.get(name, ()), path):
            lacking.append(line)
    # The plugin's Prolog runs at a node's first step at the latest, before its tasks.
    flags = "" if inventory.via == SPANK else flags_to_add(_flags(running))
    return [*lacking, *([f"PrologFlags={flags}"] if flags else [])]


def named(running: Running, inventory: Inventory) -> list[str]:
    """Return what the running configuration says that names a file of ours itself, and not by a pattern."""
    return [f"{name}={path}" for name, path in ours(inventory).items() if path in running.get(name, ())]


def is_in_force(running: Running, inventory: Inventory) -> bool:
    """Return whether Slurm runs our Prolog and our Epilog."""
    files = ours(inventory)
    return all(
        runs_ours(running.get(name, ()), files[name]) or (inventory.site_runs_hooks and name in running)
        for name in HOOKS
    )


def hook_timeout_s(running: Running) -> int:
    """Return after how many seconds slurmd kills a Prolog or an Epilog; 0 if it waits."""
    found = [int(match[0]) for name in _TIMEOUTS for value in running.get(name, ()) if (match := _DIGITS.match(value))]
    return min((value for value in found if 0 < value < _NO_TIMEOUT_S), default=0)


def live(running: Running, inventory: Inventory) -> list[str]:
    """Return the site's own lines that run a hook of ours as soon as it is there."""
    return [
        f"{name}={value}" for name in HOOKS for value in running.get(name, ()) if _matches(ours(inventory)[name], value)
    ]


def scripts(running: Running) -> list[str]:
    """Return the paths of the site's own Prologs and Epilogs that are no patterns."""
    found = [value for name in HOOKS for value in running.get(name, ())]
    return [value for value in found if value.startswith("/") and not any(sign in value for sign in "*?[")]


def runners(running: Running, contents: Mapping[str, bytes], inventory: Inventory) -> list[str]:
    """Return the site's lines whose script speaks of the directory where our hook lies, and may run all that is there.

    In doubt it does: whoever says `site_runs_hooks` has looked.
    """
    return [
        f"{name}={value}"
        for name, path in ours(inventory).items()
        if name in HOOKS and not inventory.site_runs_hooks
        for value in running.get(name, ())
        if value != path and f"/{path.split('/')[-2]}".encode() in contents.get(value, b"")
    ]


def in_the_way(running: Running, inventory: Inventory, runs_all: Sequence[str] = ()) -> list[str]:
    """Return what the running configuration has that our lines would replace: `--enable` is refused for these.

    `runs_all` are the site's lines whose script may run all that lies beside ours, as `runners` has them. Such a script
    must not be moved to where it would run itself.
    """
    wanted = ours(inventory)
    words = []
    for name in HOOKS:
        foreign = [value for value in running.get(name, ()) if not _matches(wanted[name], value)]
        if foreign and not runs_ours(running.get(name, ()), wanted[name]) and not inventory.site_runs_hooks:
            if any(f"{name}={value}" in runs_all for value in foreign):
                where = wanted[name].rpartition("/")[0]
                words.append(
                    f"{name} is {', '.join(foreign)} already, which speaks of {where}: if it runs what lies there, say "
                    "`site_runs_hooks: true`"
                )
                continue
            words.append(
                f"{name} is {', '.join(foreign)} already, and a line of ours would replace it; let yours run "
                f"{wanted[name]} and say `site_runs_hooks: true`, or name a pattern that has both files"
            )
    (task_prolog,) = running.get("TaskProlog", ("",))[:1]
    own = str(inventory.site_task_prolog or "")
    if task_prolog not in ("", own, wanted["TaskProlog"]):
        other = f", not {own}" if own else " already"
        words.append(
            f"TaskProlog is {task_prolog}{other}; say `site_task_prolog: {task_prolog}`, and ours runs it first"
        )
    return words


def elsewhere(
    running: Running, inventory: Inventory, controllers: Sequence[str], *, reads_ours: bool = True
) -> list[str]:
    """Return in words where else Slurm has a slurm.conf: at another path, on a controller that is not named."""
    words = []
    path = _path(inventory)
    read = [value for value in running.get("SLURM_CONF", ()) if value.rpartition("/")[2] != "slurm.conf"]
    words += [f"slurmctld reads {value}, not {path}; --enable changes a file of that name only" for value in read]
    if not read and not reads_ours:
        value = ", ".join(running.get("SLURM_CONF", ()))
        words.append(f"slurmctld reads {value}, not {path}; say where it is with `slurm_directory`")
    hosts = [re.sub(r"\(.*", "", value) for value in running.get("SlurmctldHost", ())]
    strangers = [host for host in hosts if host not in controllers and host.partition(".")[0] not in controllers]
    if strangers and len(hosts) > len(controllers):
        words.append(f"slurmctld may run on {', '.join(strangers)} too; name it with `controllers:`")
    return words


def flags_to_add(own: str) -> str:
    """Return the value of PrologFlags that has what we need and the site's `own`; none if that has it already."""
    kept = [flag.strip() for flag in own.split(",") if flag.strip()]
    return "" if any(flag.lower() in _EARLY for flag in kept) else ",".join([*kept, "Alloc"])


def _flags(running: Running) -> str:
    return ",".join(running.get("PrologFlags", ()))


# ------------------------------------------------------------------------------------------------ our block


def without(running: Running, block_lines: Mapping[str, str], own_flags: str | None) -> Running:
    """Return the running configuration as it would be without `block_lines`, ours, which are in force or not.

    Slurm takes the last value of PrologFlags that it reads, so what the site has is behind ours: `own_flags`.
    """
    left = dict(running)
    for name, value in block_lines.items():
        values = list(left.get(name, ()))
        if name == "PrologFlags":
            if value.lower() == ",".join(values).lower() or set(value.lower().split(",")) == set(
                ",".join(values).lower().split(",")
            ):
                values = [own_flags] if own_flags else []
        elif value in values:
            values.remove(value)
        left[name] = tuple(values)
    return {name: values for name, values in left.items() if values}


def enable(slurm_conf: bytes, inventory: Inventory, running: Running, included: bytes | None = None) -> bytes:
    """Return `slurm_conf` with our block: what `running` lacks without it. Raises BlockError.

    The lines themselves and no Include: a file that is included and not there ends every command of Slurm's.
    `included` is what an earlier version let slurm.conf include.
    """
    path = _path(inventory)
    own = block.remove(slurm_conf, path)
    before = settings(_block(slurm_conf, path) + b"\n" + (included or b""))
    own_flags = settings(own).get("prologflags")
    if own_flags is None:
        own_flags = _recorded(_block(slurm_conf, path))
    if own_flags is None and before:
        own_flags = ",".join(
            flag for flag in before.get("prologflags", "").split(",") if flag and flag.lower() != "alloc"
        )
    shown = {name: before[name.lower()] for name in (*HOOKS, "TaskProlog", "PrologFlags") if name.lower() in before}
    site = without(running, shown, own_flags)
    wanted = missing(site, inventory)
    if not wanted:
        return own
    head = "# written by `hpcproxy deploy --enable`; `hpcproxy undeploy` takes it out again\n"
    if _flags(site) and any(line.startswith("PrologFlags=") for line in wanted):
        head += f"{_RECORD}{_flags(site)}\n"
    return block.put(slurm_conf, (head + "".join(f"{line}\n" for line in wanted)).encode(), path)


def disable(slurm_conf: bytes, inventory: Inventory) -> bytes:
    """Return `slurm_conf` without our block, byte for byte as before; raises BlockError."""
    return block.remove(slurm_conf, _path(inventory))


def settings(text: bytes) -> Mapping[str, str]:
    """Return what a text in slurm.conf's grammar sets, by lower-case name; the last value counts, Includes do not.

    Only for what a running Slurm cannot tell: what the site's own lines say behind ours.
    """
    found = {}
    joined = re.sub(r"\\[ \t]*\r?\n", "", text.decode(errors="replace"))
    for line in joined.splitlines():
        name, equals, value = re.split(r"(?<!\\)#", line, maxsplit=1)[0].partition("=")
        if equals and _WORD.fullmatch(name.strip()):
            found[name.strip().lower()] = value.strip().strip('"').strip()
    return found


_RECORD = "# PrologFlags of the site: "


def _recorded(body: bytes) -> str | None:
    for line in body.decode(errors="replace").splitlines():
        if line.startswith(_RECORD):
            return line[len(_RECORD) :].strip()
    return None


def _block(slurm_conf: bytes, path: str) -> bytes:
    """Return what stands in our block; nothing if there is none."""
    if block.remove(slurm_conf, path) == slurm_conf:
        return b""
    return slurm_conf.partition(block.BEGIN)[2].partition(b"\n")[2].partition(block.END)[0]


def _path(inventory: Inventory) -> str:
    return f"{inventory.slurm_directory}/slurm.conf"


# ------------------------------------------------------------------------------------------------ to know


def remarks(running: Running, inventory: Inventory) -> list[str]:
    """Return what an admin should know of this Slurm: who gets a tunnel, whose it is, where lines must stand."""
    words = limits(running, inventory)
    flags = _flags(running).lower().split(",")
    if "runinjob" in flags:
        words.append("PrologFlags has RunInJob: a tunnel leaves its job's cgroup for its own, and the Epilog ends it")
    elif version(running) >= _RUN_IN_JOB_SINCE and "cgroup" in "".join(running.get("ProctrackType", ())):
        words.append(
            "a tunnel lives beside its job, and the Epilog ends it; so it would with PrologFlags=RunInJob, which puts "
            "every other Prolog of the site's into the job's cgroup"
        )
    if is_configless(running):
        words.append(
            f"Slurm is configless: only the controllers have a slurm.conf; the Prolog, Epilog and TaskProlog that it "
            f"names are files of the nodes, in {inventory.slurm_directory} and {PROGRAMS}, where deploy puts them"
        )
    return words


def limits(running: Running, inventory: Inventory) -> list[str]:
    """Return what this version of Slurm cannot do for us, in words."""
    return [*too_old(running), *unmeetable(running, inventory)]


def unmeetable(running: Running, inventory: Inventory) -> list[str]:
    """Return the conditions of the policy that no job can meet under this version of Slurm, in words."""
    known = version(running)
    asked = {"comment": inventory.policy.comment, "accounts": bool(inventory.policy.accounts)}
    return [
        f"policy: {name} gives no job a tunnel: the Prolog of Slurm {'.'.join(map(str, known))} is not told "
        f"{_VARIABLES[name]}"
        for name, wanted in asked.items()
        if wanted and known and known < _TOLD_SINCE[name]
    ]

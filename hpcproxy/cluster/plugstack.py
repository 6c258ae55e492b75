"""plugstack.conf's line for the SPANK plugin, and for which Slurm that was built. Pure.

Slurm's plugins for its steps: spank(7). `optional`: a node on which the file is not there runs every job as without it,
which no line of slurm.conf can promise of a Prolog, Epilog or TaskProlog (tried on 22.05).
"""

from __future__ import annotations

import re

from hpcproxy.cluster.inventory import Inventory
from hpcproxy.cluster.slurm_conf import Running, version
from hpcproxy.config.places import PROGRAMS
from hpcproxy.files import block
from hpcproxy.files.plan import PLUGIN

# The plugin says it of itself (spank/spank_hpcproxy.c): SLURM_VERSION_NUMBER, a byte for each of its three parts.
_BUILT_FOR = re.compile(rb"hpcproxy-spank-built-for:0x([0-9a-f]{6});")


def file(inventory: Inventory) -> str:
    """Return the path of plugstack.conf on the hosts."""
    return f"{inventory.slurm_directory}/plugstack.conf"


def line(inventory: Inventory) -> str:
    """Return the line that plugstack.conf needs."""
    return f"optional {PROGRAMS / PLUGIN}" + (" option" if inventory.policy.option else "")


def put(text: bytes | None, inventory: Inventory) -> bytes:
    """Return `text` (None: there is no plugstack.conf) with our line in its block; raises BlockError."""
    body = f"# written by `hpcproxy deploy --enable`; `hpcproxy undeploy` takes it out again\n{line(inventory)}\n"
    return block.put(text, body.encode(), file(inventory))


def take_out(text: bytes, inventory: Inventory) -> bytes | None:
    """Return `text` without our block, None if nothing else was there; raises BlockError."""
    path = file(inventory)
    return None if block.is_ours_alone(text, path) else block.remove(text, path)


def has_line(text: bytes | None, inventory: Inventory) -> bool:
    """Whether `text` has our line, by whomever it was written."""
    wanted = line(inventory).split()
    return any(found.split() == wanted for found in (text or b"").decode(errors="replace").splitlines())


def names_plugin(text: bytes | None) -> bool:
    """Whether a line of `text` names the plugin, with whatever arguments."""
    fields = (line.partition("#")[0].split() for line in (text or b"").decode(errors="replace").splitlines())
    return any(str(PROGRAMS / PLUGIN) in words[1:2] for words in fields)


def built_for(plugin: bytes) -> tuple[int, int, int] | None:
    """Return the version of the Slurm against whose headers `plugin` was built; None if it is no plugin of ours."""
    match = _BUILT_FOR.search(plugin)
    if match is None:
        return None
    number = int(match[1], 16)
    return number >> 16, number >> 8 & 255, number & 255


def unfit(plugin: bytes, running: Running) -> str:
    """Return in words why this Slurm would not load `plugin`; nothing if it would: it compares two parts of three."""
    built, runs = built_for(plugin), version(running)
    if built is None:
        return f"it is no {PLUGIN} of ours; build it with: make -C spank"
    if runs[:2] == built[:2]:
        return ""
    return (
        f"it is built for Slurm {_words(built)}, and {_words(runs) or 'another'} runs: build it against the headers of "
        "the running one: make -C spank SLURM_INCLUDE=DIRECTORY"
    )


def _words(parts: tuple[int, ...]) -> str:
    return ".".join(f"{part:02d}" if number == 1 else str(part) for number, part in enumerate(parts))

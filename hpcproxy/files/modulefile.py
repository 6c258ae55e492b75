"""`module load hpcproxy`: the modulefiles of Lmod and of Environment Modules. Pure."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

from hpcproxy import __version__
from hpcproxy.config.places import Home
from hpcproxy.files.plan import SOURCED_MODE, Artifact, Plan

NAME = "hpcproxy"
KINDS = {"modulefile": "Environment Modules", "modulefile.lua": "Lmod"}


def artifacts(directory: Path, mode: int, owner: str = "") -> tuple[Artifact, ...]:
    """Return one for each kind below `directory`, which is to be in MODULEPATH; Lmod prefers its own of the two."""
    return tuple(
        Artifact(
            name,
            f"modules/modulefile{Path(name).suffix or '.tcl'}.j2",
            directory / NAME / f"{__version__}{Path(name).suffix}",
            mode,
            f"`module load {NAME}`, for {kind}",
            owner,
        )
        for name, kind in KINDS.items()
    )


def values(functions: Path, prologue: Path, program: str) -> dict[str, object]:
    """Return what their templates take: what the shell reads, and where the program lies, if it does."""
    return {"functions": functions, "prologue": prologue, "program": program}


def added(plan: Plan, home: Home) -> Plan:
    """Return `plan`, one account's, with its modulefiles, which are printed only: where they belong is the site's."""
    program = str(Path(sys.executable).parent)  # where pip has put ours, too
    scripts = values(home.directory / "bashrc.sh", home.directory / "prologue.sh", program)
    more = artifacts(home.directory / "modulefiles", SOURCED_MODE)
    return replace(plan, artifacts=(*plan.artifacts, *more), values={**plan.values, **scripts})

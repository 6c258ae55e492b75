"""Checks of tools that have a proxy of their own, one for each tool. Reads files below the home; shows no value."""

from __future__ import annotations

import functools
from collections.abc import Sequence

from hpcproxy.doctor.finding import Check, Finding, bad, good
from hpcproxy.doctor.patient import Patient

_TOOLS = "tools"
NAMES: Sequence[str] = (
    *("git", "curl", "wget", "pip", "conda", "npm", "yarn", "cargo", "docker"),
    *("R", "Java", "Maven", "gradle", "aria2", "s3cmd"),
)


def _look(tool: str, patient: Patient) -> Finding:
    found = [one for one in patient.overrides() if one.tool == tool]
    if not found:
        return good("no proxy of their own")
    first = found[0]
    _, variable, name = first.path.partition("your environment: ")
    if variable:
        return bad(f"{name} {first.what}", f"unset {name}")
    where = f"line {first.line} of {first.path}" if first.line else f"it, in {first.path}"
    return bad(str(first), f"take out {where}")


CHECKS: tuple[Check[Patient], ...] = tuple(
    Check(
        tool,
        _TOOLS,
        f"Has {tool} a proxy of its own, in a file or a variable, that wins over the tunnel?",
        "take the line out",
        functools.partial(_look, tool),
    )
    for tool in NAMES
)

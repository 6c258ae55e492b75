"""How long a job may run, as the #SBATCH lines of its script say. Pure."""

from __future__ import annotations

import re

_OPTION = re.compile(rb"#SBATCH\s(?:.*\s)?(?:--time[=\s]\s*|-t[=\s]?\s*)(?P<time>[0-9][0-9:-]*)(?:\s|$)")
# sbatch(1): minutes, minutes:seconds, hours:minutes:seconds; days-hours, with :minutes, with :seconds.
_WITH_DAYS = ("h", "m", "s")
_WITHOUT = {1: ("m",), 2: ("m", "s"), 3: ("h", "m", "s")}
_SECONDS = {"h": 3600, "m": 60, "s": 1}
_DAY_S = 86400


def seconds(script: bytes) -> int | None:
    """Return the time limit in seconds that `script` asks for, by its last option; None if it names none."""
    found = None
    for line in script.splitlines():
        match = _OPTION.match(line)
        if match is not None:
            found = _seconds(match["time"].decode())
    return found


def _seconds(text: str) -> int | None:
    days, dash, clock = text.rpartition("-")
    parts = clock.split(":")
    units = _WITH_DAYS[: len(parts)] if dash else _WITHOUT.get(len(parts), ())
    if len(units) != len(parts) or not all(part.isdigit() for part in parts) or (dash and not days.isdigit()):
        return None
    return int(days or 0) * _DAY_S + sum(int(part) * _SECONDS[unit] for part, unit in zip(parts, units))

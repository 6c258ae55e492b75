"""Lines of shell outside of our scripts: in a job script, a `.bashrc`, on a command line. Reads templates/line."""

from __future__ import annotations

import functools
import re
from pathlib import Path

LINES = Path(__file__).parent / "templates" / "line"
_OPENS = re.compile(r"(?:^|[\s;])(?:then|else|do|\{)$")  # behind these words no command has ended


@functools.cache
def shell_line(name: str) -> str:
    """Return templates/line/`name`.sh as one line, without comments and line break.

    A word in capitals in it is the caller's to replace, with what is safe there unquoted.
    """
    lines = [line.strip() for line in (LINES / f"{name}.sh").read_text().splitlines()]
    commands = [line for line in lines if line and not line.startswith("#")]
    parts = [command + (" " if _OPENS.search(command) else "; ") for command in commands[:-1]]
    return "".join([*parts, commands[-1]])

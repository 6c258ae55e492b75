"""Pages that show runs: what each `$ COMMAND` between `<!-- run -->` and `<!-- end -->` prints, stands below it."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Mapping
from pathlib import Path

_BLOCK = re.compile(r"(<!-- run -->\n```\n)(.*?)(```\n<!-- end -->)", re.DOTALL)


def commands(text: str) -> list[str]:
    """Return what the page tells to type, in order."""
    return [line[2:] for block in _BLOCK.finditer(text) for line in block[2].splitlines() if line.startswith("$ ")]


def made(text: str, outputs: list[str]) -> str:
    """Return the page with `outputs`, one for each of its commands."""
    left = iter(outputs)

    def block(match: re.Match[str]) -> str:
        typed = [line for line in match[2].splitlines() if line.startswith("$ ")]
        return match[1] + "".join(f"{line}\n{next(left)}" for line in typed) + match[3]

    return _BLOCK.sub(block, text)


def run(command: str, cwd: Path, environ: Mapping[str, str], names: Mapping[str, str], program: str) -> str:
    """Return all that `command` prints; `names` are what the page calls what is here another, and here."""
    for name, here in names.items():
        command = command.replace(name, here)
    text = f'exec 2>&1\nhpcproxy() {{ {program} "$@"; }}\n{command}\n'
    done = subprocess.run(
        ["bash", "-c", text], cwd=cwd, env=dict(environ), stdout=subprocess.PIPE, text=True, check=False
    )
    said = done.stdout
    for name, here in sorted(names.items(), key=lambda item: -len(item[1])):
        said = said.replace(here, name)
    return said

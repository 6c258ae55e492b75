"""The checkers of the house's shell style, where this machine has those that the style is of."""

from __future__ import annotations

import re
import shutil
import subprocess

import pytest

from tests import REPOSITORY

# Others lay the same script out otherwise, or find what these do not: tried with Debian 11's to 14's.
LAYOUT = ((3, 6), (3, 11))  # shfmt, from the first and before the second
FINDINGS = (0, 9)  # shellcheck, from here on


def shfmt(*options: str) -> list[str]:
    """The command, with `options`; the test is skipped where there is none, or one with another layout."""
    found = _version("shfmt")
    if not LAYOUT[0] <= found < LAYOUT[1]:
        pytest.skip(f"the style is of shfmt {_dotted(LAYOUT[0])} and before {_dotted(LAYOUT[1])}")
    return ["shfmt", *options]


def shellcheck(*options: str) -> list[str]:
    """The command, with `options`; the test is skipped where there is none, or an older one."""
    if _version("shellcheck") < FINDINGS:
        pytest.skip(f"the style is of shellcheck {_dotted(FINDINGS)} and later")
    # What .shellcheckrc says, for scripts that lie elsewhere too.
    left_out = ",".join(re.findall(r"(?m)^disable=(SC\d+)$", (REPOSITORY / ".shellcheckrc").read_text()))
    return ["shellcheck", "--norc", "--enable=all", f"--exclude={left_out}", *options]


def _version(program: str) -> tuple[int, ...]:
    if shutil.which(program) is None:
        return ()
    said = subprocess.run([program, "--version"], capture_output=True, text=True, check=True).stdout
    match = re.search(r"\d+(\.\d+)+", said)
    assert match is not None, said
    return tuple(map(int, match[0].split(".")))


def _dotted(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))

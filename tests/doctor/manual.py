"""docs/doctor.md as the program makes it: its runs, and its table of checks."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from hpcproxy.doctor import page
from hpcproxy.doctor.finding import Finding, Found
from hpcproxy.doctor.page import Look
from hpcproxy.doctor.table import ALL
from tests import REPOSITORY

PAGE = REPOSITORY / "docs" / "doctor.md"
_RUN = re.compile(r"(<!-- run: (\w+) -->\n```\n\$ hpcproxy doctor\n).*?(```\n<!-- end -->)", re.DOTALL)
_TABLE = re.compile(r"(<!-- table -->\n).*?(<!-- end -->)", re.DOTALL)
# What is another on each machine and in each run.
_CHANGING = (
    (re.compile(r"OpenSSH_\S+( \S+)?"), "OpenSSH_9.2p1"),
    (re.compile(r"after \d+ ms"), "after 84 ms"),
    (re.compile(r"right within \d+ s"), "right within 1 s"),
    (re.compile(r"SHA256:[A-Za-z0-9+/]{43}"), "SHA256:0vqvyqM8ZuK7/AAYzqinXoWv6rhA6Pb4ZpqJj/Q4Yww"),
    (re.compile(r"127\.(128|192)\.\d+\.\d+:\d+"), "127.128.3.233:2015"),
)


def table() -> str:
    """Return the table of all checks."""
    rows = ["| check | what is asked | needs | what usually helps |", "|---|---|---|---|"]
    for check in ALL:
        cells = (f"**{check.name}**", check.asks, ", ".join(check.needs), _code(check.fix.format("HOST")))
        rows.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(rows) + "\n"


def _code(fix: str) -> str:
    """Return `fix` as code where it is a command and nothing else."""
    commands = ("hpcproxy ", "chmod ", "unset ", "export ", "ssh-", "squeue")
    return f"`{fix}`" if fix.startswith(commands) and "; " not in fix and ", " not in fix else fix


def report(found: Sequence[Found], names: Mapping[str, str], home: Path) -> str:
    """Return what the program prints of `found`, in which `names` stand for what is another on each machine."""
    lines = page.page([replace(one, finding=_renamed(one.finding, names)) for one in found], Look(home=str(home)))
    return "".join(f"{text}\n" for text, _ in lines)


def _renamed(finding: Finding, names: Mapping[str, str]) -> Finding:
    return Finding(finding.mark, _name(finding.words, names), _name(finding.fix, names))


def _name(text: str, names: Mapping[str, str]) -> str:
    for here, name in names.items():
        text = text.replace(here, name)
    for pattern, name in _CHANGING:
        text = pattern.sub(name, text)
    return text


def made(runs: Mapping[str, str]) -> str:
    """Return the page with these runs and the table of today."""
    text = _RUN.sub(lambda match: f"{match[1]}{runs[match[2]]}{match[3]}", PAGE.read_text())
    return _TABLE.sub(lambda match: f"{match[1]}{table()}{match[2]}", text)

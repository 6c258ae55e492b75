"""docs/start.md as the program makes it: every command of it is typed here, in order; what it prints stands below."""

from __future__ import annotations

import os
import re
import shlex
import sys
from pathlib import Path

from tests import REPOSITORY, page_runs, servers, sshd
from tests.shells import shells_url

PAGE = REPOSITORY / "docs" / "start.md"
WRITE = "START_PAGE"  # in the environment of whoever wants the page written anew
JOB = "#!/bin/bash\n#SBATCH -N3 --ntasks-per-node=1\n#SBATCH --time=1:00:00\nsrun python train.py\n"
# What is another in each run.
_CHANGING = (
    (re.compile(r"SHA256:[A-Za-z0-9+/]{43}"), "SHA256:0vqvyqM8ZuK7/AAYzqinXoWv6rhA6Pb4ZpqJj/Q4Yww"),
    (re.compile(r"\b\d+ ms\b"), "84 ms"),
    (re.compile(r"\b\d+ s\b"), "1 s"),
    (re.compile(r"agent\.cpython-\d+\.code"), "agent.cpython-311.code"),
)


def test_the_page_shows_what_each_command_prints(home: Path, tmp_path: Path) -> None:
    text = PAGE.read_text()
    work = home / "work"
    work.mkdir()
    (work / "train.sh").write_text(JOB)
    (home / ".ssh").mkdir(mode=0o700)
    with sshd.running(tmp_path / "jump") as jump, servers.internet() as url:
        (home / ".ssh/id_hpcproxy").write_bytes(jump.identity.read_bytes())
        (home / ".ssh/id_hpcproxy").chmod(0o600)
        port = str(servers.free_port())
        names = {
            "alice@login.example.org": jump.jump,
            "https://ipinfo.io/ip": url,
            "2015": port,
            "127.128.3.233": shells_url(port).removeprefix("http://").partition(":")[0],
            "~": str(home),
            "login1": os.uname().nodename,
        }
        program = shlex.join([sys.executable, "-m", "hpcproxy"])
        outputs = []
        for command in page_runs.commands(text):
            outputs.append(page_runs.run(command, work, os.environ, names, program))
            if "hpcproxy init" in command:
                with (home / ".hpcproxy/config.yaml").open("a") as file:
                    file.write(f"check_url: {url}\nallow: ['*', 127.0.0.1]\n")
    said = page_runs.made(text, [_settled(output) for output in outputs])
    if os.environ.get(WRITE):
        PAGE.write_text(said)
    assert said == PAGE.read_text(), f"write it anew with {WRITE}=1 in the environment"
    assert "login and forwarding work" in said


def _settled(output: str) -> str:
    for pattern, name in _CHANGING:
        output = pattern.sub(name, output)
    return (
        _aligned(output) if output.startswith("job ") else "".join(f"{one.rstrip()}\n" for one in output.splitlines())
    )


def _aligned(table: str) -> str:
    """Return a table whose columns are as wide as the names that the page has."""
    rows = [re.split(" {2,}", line.strip()) for line in table.splitlines()]
    widths = [max(len(cell) for cell in column) for column in zip(*rows)]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows)
    return "".join(f"{line}\n" for line in lines)

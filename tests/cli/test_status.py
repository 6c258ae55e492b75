"""`status` by itself: as the task says it, without what takes long to load."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

_MODULE = ("-m", "hpcproxy")
_TASK = ("-c", "from hpcproxy.cli import program\nprogram.main()")
LIBRARIES = {"invoke", "jinja2", "pydantic", "rich", "yaml"}


def run(program: tuple[str, ...], *words: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run `program` with `words`."""
    argv = [sys.executable, *program, *words]
    return subprocess.run(argv, capture_output=True, text=True, check=False, env={**os.environ, **environ})


def loaded(*words: str) -> set[str]:
    """Return which libraries the program loads for `words`."""
    said = run(("-X", "importtime", *_MODULE), *words).stderr
    return set(re.findall(r"\| +([a-z0-9_]+)$", said, re.MULTILINE)) & LIBRARIES


@pytest.mark.parametrize(
    "words",
    [
        ("status",),
        ("status", "--json"),
        ("status", "--long"),
        ("status", "--long", "--json"),
        ("status", "--quiet"),
        ("--quiet", "status"),
        ("status", "--job", "7"),
        ("status", "--job", "no number", "--json"),
        # What it leaves to the task, which may find it wrong.
        ("status", "--job=7"),
        ("status", "--job"),
        ("status", "--job", ""),
        ("status", "--job", "--json"),
        ("status", "--json", "--json"),
        ("status", "--jbo", "7"),
        ("status", "more"),
        ("status", "--follow", "--json"),
        ("status", "--help"),
    ],
)
def test_it_says_what_the_task_says(words: tuple[str, ...], home: Path) -> None:
    alone, task = run(_MODULE, *words), run(_TASK, *words)
    assert (alone.stdout, alone.stderr, alone.returncode) == (task.stdout, task.stderr, task.returncode)
    assert alone.stderr or alone.stdout or "--quiet" in words
    assert not any(home.iterdir())


@pytest.mark.parametrize("settings", ["jump: [", "prot: 1\n", "port: 1\n"])
def test_wrong_settings_are_an_error_as_the_task_has_it(settings: str, home: Path) -> None:
    (home / ".hpcproxy").mkdir()
    (home / ".hpcproxy" / "config.yaml").write_text(settings)
    alone, task = run(_MODULE, "status"), run(_TASK, "status")
    assert (alone.stdout, alone.stderr, alone.returncode) == (task.stdout, task.stderr, 2)
    assert alone.stderr.count("\n") == 1


def test_an_error_of_ours_is_one_line_and_no_traceback(home: Path) -> None:
    failing = "from hpcproxy.account import status\nstatus.here = lambda account: 1 / 0\n"
    failing += "import sys\nfrom hpcproxy.__main__ import main\nsys.argv[0] = 'hpcproxy'\nmain()\n"
    done = run(("-c", failing), "status")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (70, "", 1)
    assert "internal error, ZeroDivisionError" in done.stderr
    assert "Traceback" in run(("-c", failing), "status", HPCPROXY_DEBUG="1").stderr


def test_of_a_job_it_loads_no_library(home: Path) -> None:
    assert home.exists()
    assert loaded("status", "--job", "7") == set()
    assert loaded("status", "--follow", "--json") >= {"invoke"}, "so it is seen what is loaded"

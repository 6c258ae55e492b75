"""`status` by itself: as the task says it, without what takes long to load."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from hpcproxy.account.account import Account
from hpcproxy.account.tunnels import Tunnel
from hpcproxy.cli import status

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


def _tunnel(node: str, *, ready: bool) -> Tunnel:
    return Tunnel(node, "7", 0, Path("/s"), 1, "http://127.1.2.3:1", ready, 0.0, "j" if ready else None, None, None, {})


UP, DOWN = _tunnel("c1", ready=True), _tunnel("c2", ready=False)


@pytest.mark.parametrize(
    ("here", "code"),
    [([], 1), ([UP], 0), ([DOWN], 1), ([UP, DOWN], 0), ([DOWN, UP], 0)],
    ids=lambda value: str(value)[:9],
)
def test_a_shell_learns_whether_some_tunnel_here_is_up(
    here: list[Tunnel], code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(status.status, "here", lambda _account: (here, []))
    for as_json in (False, True):
        assert status.answer(status.Asked(as_json=as_json), Account.of(os.environ)) == code


@pytest.mark.parametrize(
    ("found", "code"),
    [([UP], 0), ([UP, UP], 0), ([DOWN], 1), ([UP, DOWN], 1), ([DOWN, UP], 1), (["c3"], 1), ([UP, "c3"], 1)],
    ids=lambda value: str(value)[:9],
)
def test_a_script_learns_whether_all_nodes_of_a_job_are_served(
    found: list[Tunnel | str], code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(status.status, "of_job", lambda _account, _job: found)
    for as_json in (False, True):
        assert status.answer(status.Asked("7", as_json=as_json), Account.of(os.environ)) == code

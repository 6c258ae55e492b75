"""Each command reads the user's settings once, checks them once and renders what it uses: counted, not timed."""

from __future__ import annotations

import contextlib
import sys
from collections import Counter
from pathlib import Path

import pytest
from invoke.program import Program

from hpcproxy.account.account import Account
from hpcproxy.cli.program import tasks
from hpcproxy.config.model import Config
from hpcproxy.files import plan, render

JUMP = "u@127.0.0.1:1"
ALL = {"tunnel.sh", "job.sh", "prologue.sh", "epilogue.sh", "bashrc.sh", "agent.json", "agent.pyz"}


@pytest.fixture
def counted(account: Account, monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """What happens from here on: `config.yaml` as often as it is read as settings, `checked`, each file rendered."""
    account.home.directory.mkdir()
    account.home.config.write_text(f"jump: {JUMP}\nconnect_timeout_s: 1\n")
    counts: Counter[str] = Counter()
    read, check, make = Path.read_bytes, Config.model_validate, render._render_one

    def reading(path: Path) -> bytes:
        counts["config.yaml"] += path == account.home.config
        return read(path)

    def checking(values: object) -> Config:
        counts["checked"] += 1
        return check(values)

    def making(environment: object, artifact: plan.Artifact, whole: plan.Plan) -> bytes:
        counts[artifact.name] += 1
        return make(environment, artifact, whole)  # type: ignore[arg-type]

    monkeypatch.setattr(sys, "argv", sys.argv)
    monkeypatch.setattr(Path, "read_bytes", reading)
    monkeypatch.setattr(Config, "model_validate", staticmethod(checking))
    monkeypatch.setattr(render, "_render_one", making)
    return counts


def _run(*argv: str) -> None:
    sys.argv = ["hpcproxy", *argv]  # which the fixture brings back; `render` looks there
    with contextlib.suppress(SystemExit):
        Program(name="hpcproxy", namespace=tasks()).run(sys.argv)


def _rendered(counts: Counter[str]) -> dict[str, int]:
    return {name: counts[name] for name in ALL if counts[name]}


# The site's layer, the user's, the flags, and the whole.
LAYERS = 4


def test_install_bashrc_reads_and_checks_once(counted: Counter[str]) -> None:
    _run("install-bashrc", "--port", "3000", "--dry-run")
    # As settings, and once more to tell whether it would change.
    assert (counted["config.yaml"], counted["checked"]) == (1 + 1, LAYERS)
    assert _rendered(counted) == dict.fromkeys(ALL, 1)


def test_check_renders_what_it_tries_with(counted: Counter[str]) -> None:
    _run("check")
    assert (counted["config.yaml"], counted["checked"]) == (1, LAYERS)
    assert _rendered(counted) == {"tunnel.sh": 1}


def test_render_renders_what_it_prints(counted: Counter[str]) -> None:
    _run("render", "prologue.sh")
    assert _rendered(counted) == {"prologue.sh": 1}


def test_init_renders_once_for_its_trial_and_for_what_is_installed(counted: Counter[str]) -> None:
    _run("init", "--jump", JUMP, "--yes", "--no-probe")
    # As settings, before they are changed, and to tell whether they are.
    assert (counted["config.yaml"], counted["checked"]) == (1 + 1 + 1, LAYERS)
    assert _rendered(counted) == dict.fromkeys(ALL, 1)


def test_uninstall_renders_nothing(counted: Counter[str]) -> None:
    _run("uninstall")
    assert _rendered(counted) == {}

"""A jump host that lets through to some ports only is a tunnel; one that never stops talking costs a bounded log."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests import lying, sshd
from tests.supervisor import Supervisor, write_script
from tests.waiting import until


@pytest.mark.parametrize("rule", ["PermitOpen *:443 *:80", "PermitOpen *:443"])
def test_a_jump_host_that_lets_https_through_is_a_tunnel(
    rule: str, hold: Callable[..., Supervisor], tmp_path: Path
) -> None:
    with sshd.running(tmp_path / "narrow", rule) as narrow:
        assert hold(**narrow.settings, connect_timeout_s=5).line("ready", "failed").startswith("ready ")


def test_a_jump_host_that_lets_a_key_through_to_one_host_is_a_tunnel_if_allow_names_it(
    hold: Callable[..., Supervisor], tmp_path: Path
) -> None:
    with sshd.running(tmp_path / "narrow") as narrow:
        keys = narrow.directory / "authorized_keys"
        keys.write_text('permitopen="nosuch.invalid:443" ' + keys.read_text())
        settings = {**narrow.settings, "connect_timeout_s": 5, "allow": ["nosuch.invalid"]}
        assert hold(**settings).line("ready", "failed").startswith("ready ")
        script = write_script(tmp_path / "home", **settings)
        argv = ["/bin/bash", "-p", script, "probe"]
        done = subprocess.run(argv, capture_output=True, text=True, check=True, stdin=subprocess.DEVNULL)
    assert done.stdout == f"ok {narrow.jump}\n"


def test_so_says_the_probe(tmp_path: Path) -> None:
    with sshd.running(tmp_path / "narrow", "PermitOpen *:443") as narrow:
        script = write_script(tmp_path / "home", **narrow.settings, connect_timeout_s=1)
        argv = ["/bin/bash", "-p", script, "probe"]
        done = subprocess.run(argv, capture_output=True, text=True, check=True, stdin=subprocess.DEVNULL)
    assert done.stdout == f"ok {narrow.jump}\n"


def test_a_jump_host_that_never_stops_talking_fills_nothing(hold: Callable[..., Supervisor], tmp_path: Path) -> None:
    with lying.running(tmp_path / "liar", lying.flood) as settings:
        supervisor = hold(**settings)
        line = supervisor.line("ready", "failed")
        assert line.startswith("failed ")
        assert line.isprintable()
        assert len(line) < 400
        sizes = {path.name: path.stat().st_size for path in supervisor.state.iterdir()}
        assert sizes.pop("ssh.talk", 0) <= 4 << 20
        assert sum(sizes.values()) < 100_000


def test_who_is_shut_out_for_what_was_refused_is_told_what_was_refused(
    hold: Callable[..., Supervisor], tmp_path: Path
) -> None:
    """As PerSourcePenalties (OpenSSH 9.8 on) do to who tries again."""
    shut_out: list[float] = []
    with lying.running(tmp_path / "strict", lying.hang_up, shut_out=shut_out) as settings:
        supervisor = hold(**settings)
        assert " ssh " in supervisor.line("failed", "ready")
        until(lambda: len(shut_out) > 1, "it has been tried again, and again")
        assert "hung up during the login" in supervisor.status()["last_error"]

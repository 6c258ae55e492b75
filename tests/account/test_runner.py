"""`hpcproxy run`: the hook's variables around one command, whose exit code and signals are its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hpcproxy.account import runner, tunnels
from hpcproxy.errors import TunnelError
from tests import servers, sshd
from tests.shells import shells_url
from tests.waiting import until

PROGRAM = [sys.executable, "-m", "hpcproxy"]
SAYS = "import json, os; print(json.dumps(dict(os.environ)))"


def run(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run the program as a user does."""
    env = {**os.environ, **environ}
    return subprocess.run([*PROGRAM, *arguments], capture_output=True, text=True, check=False, env=env)


@pytest.fixture
def port(home: Path, tmp_path: Path) -> Iterator[str]:
    """An account that is set up, with a jump host that lets it in; the tunnel's port."""
    with sshd.running(tmp_path / "jump") as jump:
        found = str(servers.free_port())
        init = run("init", "--yes", "--jump", jump.jump, "--port", found, "--identity", str(jump.identity))
        assert init.returncode == 0, init.stderr
        assert run("install-bashrc").returncode == 0
        try:
            yield found
        finally:
            run("down")
    assert home.exists()


def shells() -> list[tunnels.Tunnel]:
    """The tunnels for shells that are up here."""
    return tunnels.find(os.environ, "shell")


@pytest.mark.parametrize("there", [False, True], ids=["none is up", "one is up"])
def test_a_command_has_the_variables_and_what_we_start_ends_with_it(port: str, there: bool) -> None:
    if there:
        assert run("up").returncode == 0
    done = run("run", "--", sys.executable, "-c", SAYS, MINE="two  words", **{"BASH_FUNC_f%%": "() { :; }"})
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["https_proxy"] == found["HPCPROXY_URL"] == shells_url(port)
    assert (found["MINE"], found["BASH_FUNC_f%%"]) == ("two  words", "() { :; }")
    assert len(shells()) == int(there)


def test_its_exit_code_and_the_signal_that_ended_it_are_passed_on(port: str) -> None:
    assert run("up").returncode == 0
    assert run("run", "--", "sh", "-c", "exit 7").returncode == 7
    assert run("run", "--", "sh", "-c", "kill -KILL $$").returncode == 128 + signal.SIGKILL
    missing = run("run", "--", "no-such-program\x1b[2J")
    assert missing.returncode == 127
    assert missing.stderr == "hpcproxy: no-such-program\\x1b[2J: No such file or directory\n"
    assert run("run", "--", "/etc/hostname").returncode == 126
    assert port


def test_a_signal_reaches_the_command(port: str) -> None:
    assert run("up").returncode == 0
    ready = "trap 'echo heard; exit 5' USR1; echo ready; while :; do sleep 0.1; done"
    with subprocess.Popen([*PROGRAM, "run", "--", "sh", "-c", ready], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGUSR1)
        assert process.stdout.read() == "heard\n"
    assert process.returncode == 5
    assert port


def test_a_signal_that_comes_before_the_command_is_there_is_not_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    begin = subprocess.Popen.__init__

    def slow(*args: Any, **kwargs: Any) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        begin(*args, **kwargs)

    monkeypatch.setattr(subprocess.Popen, "__init__", slow)
    assert runner.attend(["sleep", "60"], os.environ) == 128 + signal.SIGTERM


def test_what_was_ignored_is_ignored_by_the_command_too() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        assert runner.attend(["sh", "-c", "kill -HUP $$; exit 4"], os.environ) == 4
    finally:
        signal.signal(signal.SIGHUP, before)


def test_of_two_commands_the_last_one_ends_the_tunnel(port: str) -> None:
    waits = [*PROGRAM, "run", "--", "sh", "-c", "echo ready; read line; exit 3"]
    with subprocess.Popen(waits, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as first:
        assert first.stdout is not None
        assert first.stdout.readline() == "ready\n"
        with subprocess.Popen(waits, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as second:
            assert second.stdout is not None
            assert second.stdout.readline() == "ready\n"
            first.communicate("\n")
            assert (first.returncode, len(shells())) == (3, 1)
            second.communicate("\n")
    assert second.returncode == 3
    until(lambda: not shells(), "the tunnel has gone")
    assert port


def test_a_command_that_could_not_be_begun_leaves_no_tunnel(port: str, tmp_path: Path) -> None:
    """Here the shell that is asked for the variables finds no env(1)."""
    done = run("run", "--", "true", PATH=str(tmp_path))
    assert done.returncode == 1
    assert "was not started" in done.stderr
    until(lambda: not shells(), "the tunnel has gone")
    assert port


def test_what_up_has_started_stays(port: str) -> None:
    assert run("up").returncode == 0
    assert run("run", "--", "true").returncode == 0
    assert [tunnel.url for tunnel in shells()] == [shells_url(port)]


def test_without_a_command_or_an_installation_it_says_what_to_do(home: Path) -> None:
    assert "say what to run: hpcproxy run -- COMMAND" in run("run").stderr
    assert run("run", "--").returncode == 2
    done = run("run", "--", "echo", "begun")
    assert (done.returncode, done.stdout) == (1, "")
    assert "install-bashrc" in done.stderr
    assert not any(home.iterdir())


def test_in_a_rolled_out_job_whose_variables_are_set_it_is_the_command_alone(home: Path) -> None:
    done = run(
        "run", "--", "sh", "-c", "echo $https_proxy; exit 4", HPCPROXY_URL="http://127.64.0.1:1", https_proxy="x"
    )
    assert (done.returncode, done.stdout) == (4, "x\n")
    assert not any(home.iterdir())


def test_where_the_tunnel_does_not_come_up_the_command_is_not_begun(home: Path, tmp_path: Path) -> None:
    fragment = tmp_path / "bashrc.sh"
    fragment.write_text("proxy_on() { echo 'hpcproxy: no tunnel: why' >&2; return 1; }\n")
    with pytest.raises(TunnelError, match="was not started"):
        runner.changes(fragment, os.environ)
    assert home.exists()


def test_what_a_fragment_takes_away_is_taken_away(tmp_path: Path) -> None:
    fragment = tmp_path / "bashrc.sh"
    fragment.write_text("proxy_on() { unset ALL_PROXY; export http_proxy='a b'; SHLVL=9; }\n")
    before = {"PATH": os.environ["PATH"], "ALL_PROXY": "x", "SHLVL": "2", "KEPT": "1", "no identifier": "kept"}
    found = runner.changes(fragment, before)
    assert dict(found.variables) == {"http_proxy": "a b"}
    assert found.of(before) == {
        "PATH": before["PATH"], "SHLVL": "2", "KEPT": "1", "no identifier": "kept", "http_proxy": "a b"
    }  # fmt: skip

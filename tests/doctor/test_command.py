"""`hpcproxy doctor` as it is typed, a whole visit: letters, colours, columns, exit codes; it leaves nothing."""

from __future__ import annotations

import json
import os
import pty
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from hpcproxy.account.account import Account
from hpcproxy.config import edit
from tests import servers
from tests.doctor.conftest import set_up
from tests.sshd import Sshd
from tests.waiting import DEADLINE_S, until

_ARGV = [sys.executable, "-m", "hpcproxy", "doctor"]


def _doctor(*words: str, **environ: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, **environ}
    return subprocess.run(
        [*_ARGV, *words], capture_output=True, text=True, check=False, env=env, stdin=subprocess.DEVNULL
    )


@pytest.mark.parametrize(
    ("locale", "mark"), [("C.UTF-8", "✗ jump host"), ("C", "XX jump host"), ("POSIX", "XX jump host")]
)
def test_letters_are_the_terminals_and_lines_fit(locale: str, mark: str) -> None:
    done = _doctor(LC_ALL=locale)
    assert mark in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 80
    assert (done.returncode, "\x1b" in done.stdout, done.stderr) == (1, False, "")
    if locale != "C.UTF-8":
        assert done.stdout.isascii()


@pytest.mark.parametrize(("environ", "coloured"), [({}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False)])
def test_colours_at_a_terminal_only_and_not_where_nobody_wants_them(environ: dict[str, str], *, coloured: bool) -> None:
    ours, theirs = pty.openpty()
    try:
        env = {**os.environ, "TERM": "xterm", **environ}
        process = subprocess.Popen(_ARGV, stdout=theirs, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=env)
        said = b""
        while b"You cannot" not in said:
            said += os.read(ours, 4096)
        assert process.wait(DEADLINE_S) == 1
    finally:
        os.close(ours)
        os.close(theirs)
    assert (b"\x1b[31m\xe2\x9c\x97\x1b[0m jump host" in said) == coloured
    assert (b"\x1b" in said) == coloured


def test_json_is_one_object_and_nothing_else() -> None:
    done = _doctor("--json")
    told = json.loads(done.stdout)
    assert (done.returncode, done.stderr, sorted(told)) == (1, "", ["checks", "node", "verdict"])
    (wrong,) = [one for one in told["checks"] if one["mark"] == "bad"]
    assert (wrong["check"], wrong["fix"]) == ("jump host", "hpcproxy init --jump USER@HOST")
    assert told["node"] == socket.gethostname().partition(".")[0]
    assert json.loads(_doctor("--json", SLURMD_NODENAME="c7").stdout)["node"] == "c7", (
        "by Slurm's name, where it has one"
    )


def test_a_job_and_a_node_exclude_each_other() -> None:
    done = _doctor("--job", "7", "--on-node")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)


def test_a_jump_host_that_never_answers_costs_a_bounded_time_and_one_line_of_talk(healthy: Account) -> None:
    with servers.silent() as port:
        _change(healthy, jump=[f"u@127.0.0.1:{port}"], connect_timeout_s=6)
        done = _doctor()
    assert done.returncode == 1
    assert done.stdout.startswith(f"Route: u@127.0.0.1:{port}: ")
    (line,) = done.stderr.splitlines()
    assert line.startswith("hpcproxy: looking; ")


def _change(account: Account, **values: object) -> None:
    path = account.home.config
    path.write_text(edit.change(path.read_text(), values, str(path)))


def _processes() -> list[int]:
    """Return what runs with this test's temporary tunnel in its environment."""
    wanted = os.environ["TMPDIR"].encode() + b"/hpcproxy-doctor"
    return [int(path.name) for path in Path("/proc").glob("[0-9]*") if wanted in _environment(path)]


def _environment(process: Path) -> bytes:
    try:
        return (process / "environ").read_bytes()
    except OSError:  # it has ended meanwhile, or is somebody else's
        return b""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGKILL])
def test_however_it_ends_its_temporary_tunnel_ends_too(number: int, healthy: Account) -> None:
    """It waits for the TLS of a far end that stays silent."""
    with servers.silent() as port:
        _change(healthy, check_url=f"https://127.0.0.1:{port}/ip")
        process = subprocess.Popen(
            [*_ARGV, "--no-endpoints"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
        )
        until(lambda: any(Path(os.environ["TMPDIR"]).glob("hpcproxy-doctor-*/hpcproxy-*/shell.0-*/status.json")), "up")
        assert _processes() != []
        process.send_signal(number)
        process.wait(DEADLINE_S)
        until(lambda: _processes() == [], "nothing of it runs")
    assert process.returncode != 0
    if number != signal.SIGKILL:
        assert list(Path(os.environ["TMPDIR"]).iterdir()) == []


def test_it_leaves_the_account_as_it_was(healthy: Account, jump_host: Sshd) -> None:
    set_up(healthy, jump_host)
    before = {path: path.read_bytes() for path in healthy.user_home.rglob("*") if path.is_file()}
    _doctor("--no-endpoints")
    assert {path: path.read_bytes() for path in healthy.user_home.rglob("*") if path.is_file()} == before

"""`who --inventory`: what a host tells of its tunnels, whatever their users have left there."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

import pytest

from hpcproxy.account.tunnels import start_time
from hpcproxy.cluster import who
from hpcproxy.cluster.outcome import HostOutcome, Outcomes
from hpcproxy.cluster.protocol import OUTPUT, Answer
from hpcproxy.cluster.who import Seen

STATUS = "version=1\nready=true\nsince=1700000000.5\njump=alice@jump1\nrequests=3\nbytes_up=40\nbytes_down=5000\n"


@pytest.fixture
def node(tmp_path: Path) -> Path:
    """A host's /run/hpcproxy and /tmp, in one directory."""
    (tmp_path / "run/holders").mkdir(parents=True)
    return tmp_path


def _prologs(node: Path, key: str, status: str = STATUS, pid: int = 0) -> Path:
    pid = pid or os.getpid()
    (node / f"run/holders/{key}").write_text(f"keeper {pid} {start_time(pid)}\nway 1 1\n")
    (node / f"run/holders/{key}.said").write_text("ready c1 alice@jump1\n")
    state = node / "run" / key
    state.mkdir()
    (state / "status").write_text(status)
    return state


def _own(node: Path, key: str, status: str = STATUS) -> Path:
    state = node / f"tmp/hpcproxy-{os.getuid()}/{key}-abcd1234"
    state.mkdir(parents=True)
    (state / "status").write_text(status)
    (state / "pid").write_text(f"{os.getpid()} {start_time(os.getpid())}\n")
    return state


def _seen(node: Path) -> list[Seen]:
    (node / "tmp").mkdir(exist_ok=True)
    *words, script, name = who.command()
    script = script.replace("run_base=/run/hpcproxy", f"run_base={node}/run")
    script = script.replace("temporary=/tmp", f"temporary={node}/tmp")
    done = subprocess.run([*words, script, name], capture_output=True, check=True)
    assert done.stderr == b""
    return who.seen(
        Outcomes((HostOutcome("c1", "unchanged", answer=Answer("unchanged", contents={OUTPUT: done.stdout})),))
    )


def test_a_line_for_each_tunnel_whoever_has_started_it(node: Path) -> None:
    _prologs(node, "12.0")
    _own(node, "7.1", STATUS.replace("ready=true", "ready=false"))
    _own(node, "shell.0")
    user = Path.home().owner() if os.getuid() else "root"
    counts = (3, 40, 5000)
    assert _seen(node) == [
        Seen("c1", "7", user, False, 1700000000, "alice@jump1", *counts),
        Seen("c1", "12", user, True, 1700000000, "alice@jump1", *counts),
        Seen("c1", "shell", user, True, 1700000000, "alice@jump1", *counts),
    ]


def test_what_has_ended_is_not_told_of(node: Path) -> None:
    with subprocess.Popen(["sleep", "60"]) as process:
        _prologs(node, "12.0", pid=process.pid)
        assert [one.job for one in _seen(node)] == ["12"]
        process.kill()
    assert _seen(node) == []


def test_service_mode_has_figures_of_the_service_account(node: Path) -> None:
    state = _prologs(node, "12.0", "")
    (state / "status").unlink()
    (node / "run/service/12.0").mkdir(parents=True)
    (node / "run/service/12.0/status").write_text(STATUS)
    assert [(one.requests, one.bytes_down) for one in _seen(node)] == [(3, 5000)]


def test_what_a_user_leaves_there_neither_hangs_it_nor_is_believed(node: Path) -> None:
    state = _own(node, "7.0", "ready=true\njump=a\x1b[31m\tb\nrequests=many\nsince=$(touch x)\nbytes_up=" + "9" * 9000)
    fifo = _own(node, "8.0")
    (fifo / "status").unlink()
    os.mkfifo(fifo / "status")
    other = _own(node, "9.0")
    (other / "pid").write_text("1 1\n")
    (node / "tmp/hpcproxy-4242").symlink_to(state.parent)
    began = time.monotonic()
    first, second = _seen(node)
    assert time.monotonic() - began < 30
    assert (first.job, first.jump, first.requests, first.since) == ("7", "a?[31m?b", None, None)
    assert (second.job, second.ready, second.requests) == ("8", False, None)
    assert not Path("x").exists()


def test_lines_that_are_none_of_ours_are_passed_over() -> None:
    contents = {OUTPUT: b"nonsense\n\xff\t\t\n" + b"1.0\t0\troot\ttrue\t\t\t\t\t\n"}
    found = who.seen(Outcomes((HostOutcome("c1", "unchanged", answer=Answer("unchanged", contents=contents)),)))
    assert found == [Seen("c1", "1", "root", True, None, "", None, None, None)]

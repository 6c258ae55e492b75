"""What a crash left behind is removed by the next supervisor: the user's own on this node, and never one that lives."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.sshd import Sshd
from tests.supervisor import Supervisor
from tests.waiting import until


@pytest.fixture
def crashed(hold: Callable[..., Supervisor], jump_host: Sshd) -> Path:
    """The state of a tunnel of which everything was killed by force."""
    supervisor = hold(**jump_host.settings)
    supervisor.line("ready")
    state, ssh = supervisor.state, supervisor.ssh_pids
    os.killpg(supervisor.process.pid, signal.SIGKILL)  # at once, for what is left of them would tidy up
    supervisor.process.wait()
    until(lambda: not [each for each in supervisor.left_behind() if each.isdecimal()], "all of its session are gone")
    until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in ssh), "ssh went with it, and its socket")
    assert (state / "status.json").exists()
    return state


@pytest.fixture
def after(hold: Callable[..., Supervisor], jump_host: Sshd) -> Callable[[], Supervisor]:
    """after() has the next job of this user begin on this node, and returns it when it is up."""

    def begin() -> Supervisor:
        supervisor = hold(**jump_host.settings)
        supervisor.line("ready")
        return supervisor

    return begin


def test_the_next_job_removes_it(crashed: Path, after: Callable[[], Supervisor]) -> None:
    supervisor = after()
    assert not crashed.exists()
    assert f"removed what was left of {crashed.name}" in (supervisor.state / "log").read_text()


def test_a_pid_that_is_somebody_elses_by_now_does_not_keep_it(crashed: Path, after: Callable[[], Supervisor]) -> None:
    (crashed / "pid").write_text(f"{os.getpid()} 1\n")
    after()
    assert not crashed.exists()


def test_one_that_lives_stays(after: Callable[[], Supervisor]) -> None:
    first = after()
    second = after()
    assert first.state.exists()
    assert first.status()["ready"]
    assert second.status()["ready"]


@pytest.mark.parametrize("doubt", ["host", "no-host", "pid", "owner", "name", "link"])
def test_in_doubt_it_stays(doubt: str, crashed: Path, after: Callable[[], Supervisor], tmp_path: Path) -> None:
    where = crashed
    if doubt == "host":  # a TMPDIR that nodes share
        (crashed / "host").write_text("elsewhere pid:[4026531836]\n")
    elif doubt == "no-host":
        (crashed / "host").unlink()
    elif doubt == "pid":  # one that is just being made
        (crashed / "pid").write_text("")
    elif doubt == "owner":
        if os.geteuid() != 0:
            pytest.skip("needs root, to give a directory to somebody else")
        os.chown(crashed, 12345, 12345)
    elif doubt == "name":
        where = crashed.rename(crashed.with_name(f"{crashed.name}x"))
    else:
        where = crashed.rename(tmp_path / "elsewhere")
        crashed.symlink_to(where)
    kept = sorted(path.name for path in where.iterdir())
    after()
    assert sorted(path.name for path in where.iterdir()) == kept
    assert crashed.is_symlink() == (doubt == "link")

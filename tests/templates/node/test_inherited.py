"""What whoever starts us has set for us (ignored signals, limits, variables) changes nothing of what is promised."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests import REPOSITORY
from tests.sshd import Sshd
from tests.supervisor import Supervisor, children, write_script
from tests.waiting import until

EVIL = "a[$(touch {})]"


@pytest.fixture
def deaf() -> Iterator[Callable[..., None]]:
    """deaf(SIGHUP): what is started from now on ignores it, as under nohup."""
    before: dict[signal.Signals, object] = {}

    def ignore(*numbers: signal.Signals) -> None:
        before.update({number: signal.signal(number, signal.SIG_IGN) for number in numbers})

    yield ignore
    for number, handler in before.items():
        signal.signal(number, handler)  # type: ignore[arg-type]


def _gone(pid: int) -> bool:
    return not Path(f"/proc/{pid}").exists()


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGCHLD, signal.SIGURG])
def test_ssh_ends_with_a_supervisor_that_is_killed_whatever_was_ignored(
    number: signal.Signals, mode: str, hold: Callable[..., Supervisor], jump_host: Sshd, deaf: Callable[..., None]
) -> None:
    deaf(number)
    supervisor = hold(**jump_host.settings)
    signal.signal(number, signal.SIG_DFL)
    supervisor.line("ready")
    (ssh,) = supervisor.ssh_pids
    if mode == "agent":  # whose worker is ended as well, and who does not see the end of another
        (worker,) = children(supervisor.process.pid)
        os.kill(worker, signal.SIGKILL)
        until(lambda: children(supervisor.process.pid) not in ([], [worker]), "another worker takes its place")
        (ssh,) = until(lambda: supervisor.ssh_pids, "which has an ssh")
    supervisor.process.kill()
    until(lambda: _gone(ssh), "ssh has ended")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGURG])
def test_it_ends_by_signals_that_were_ignored_when_it_was_started(
    number: signal.Signals, hold: Callable[..., Supervisor], jump_host: Sshd, deaf: Callable[..., None]
) -> None:
    deaf(number, signal.SIGHUP)
    supervisor = hold("shell", **jump_host.settings)
    supervisor.line("ready")
    ssh = supervisor.ssh_pids
    assert supervisor.end(number) == 0
    assert supervisor.left_behind() == []
    assert all(map(_gone, ssh))


def test_where_env_cannot_give_signals_back_ssh_is_ended_by_force(
    hold: Callable[..., Supervisor], jump_host: Sshd, deaf: Callable[..., None], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    older = tmp_path / "older"
    older.mkdir()
    (older / "env").write_text('#!/bin/sh\ncase $1 in --*-signal*) exit 125 ;; esac\nexec /usr/bin/env "$@"\n')
    (older / "env").chmod(0o755)
    monkeypatch.setenv("PATH", f"{older}:{os.environ['PATH']}")
    deaf(signal.SIGHUP)
    supervisor = hold(**jump_host.settings, agent=False)
    supervisor.line("ready")
    (ssh,) = supervisor.ssh_pids
    supervisor.process.kill()
    until(lambda: _gone(ssh), "ssh has ended")


def test_nothing_of_it_leaves_a_core(hold: Callable[..., Supervisor], jump_host: Sshd) -> None:
    before = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (before[1], before[1]))
    try:
        supervisor = hold(**jump_host.settings)
    finally:
        resource.setrlimit(resource.RLIMIT_CORE, before)
    supervisor.line("ready")
    for pid in (supervisor.process.pid, *supervisor.ssh_pids):
        (line,) = (line for line in Path(f"/proc/{pid}/limits").read_text().splitlines() if "core file size" in line)
        assert line.split()[4:6] == ["0", "0"]


# What a value is that stands in arithmetic: a program. Each number that Slurm or a caller gives is one of these.
NUMBERS = (
    *("SLURM_JOB_ID", "SLURM_JOBID", "SLURM_JOB_NUM_NODES", "SLURM_NNODES", "SLURM_RESTART_COUNT", "SLURM_JOB_UID"),
    *("SLURM_JOB_RESTART_COUNT", "SLURM_STEP_ID", "SLURM_JOB_ID_HET_GROUP_0", "SLURM_JOB_NUM_NODES_HET_GROUP_0"),
    *("SLURM_HET_SIZE", "SLURM_JOB_NODELIST", "SLURM_JOB_NODELIST_HET_GROUP_0", "SLURMD_NODENAME"),
    *("HPCPROXY_KEY", "HPCPROXY_STATE", "HPCPROXY_STEP", "HPCPROXY_URL"),
)
SCRIPTS = {
    "tunnel.sh": ["hold", "7", "0"],
    "job.sh": ["start"],
    "job.sh status": ["status"],
    "job.sh stop": ["stop"],
    "prologue.sh": [],
    "epilogue.sh": [],
    "bashrc.sh": [],
}


@pytest.mark.parametrize("name", SCRIPTS)
@pytest.mark.parametrize("text", [EVIL, "08", "9" * 30, ""])
def test_a_value_from_outside_is_never_reckoned_with(name: str, text: str, tmp_path: Path) -> None:
    script = write_script(tmp_path / "home").with_name(name.partition(" ")[0])
    plain = {"SLURM_JOB_ID": "7", "SLURM_RESTART_COUNT": "0"}
    trace = tmp_path / "trace"
    run = ["/bin/bash", "-p", str(script), *SCRIPTS[name]]
    if script.name in ("prologue.sh", "epilogue.sh", "bashrc.sh"):
        run = ["/bin/bash", "-c", f". {script}; proxy_on; proxy_status"]
    hostile = dict.fromkeys(NUMBERS, text.replace("{}", str(trace)))
    for environ in (hostile, {**hostile, **plain}):  # one without a job's number ends early
        words = {"env": {**os.environ, **environ}, "timeout": 60, "capture_output": True, "text": True}
        done = subprocess.run(run, check=False, **words)  # type: ignore[call-overload]
        assert not trace.exists()
        for complaint in ("error token", "value too great", "unbound variable", "syntax error"):
            assert complaint not in done.stderr


@pytest.mark.parametrize("words", [f"'{EVIL}' 1", f"64 '{EVIL}'", "08 1", "'' ''"])
def test_the_time_over_which_nodes_spread_is_reckoned_from_numbers_only(words: str, tmp_path: Path) -> None:
    spread = REPOSITORY / "templates/lib/any/spread.sh"
    text = f'set -euo pipefail; logins_per_s=32; . {spread}; spread {words}; printf "%s" "$spread_ms"'
    run = ["bash", "-c", text.replace("{}", str(tmp_path / "trace"))]
    done = subprocess.run(run, capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr, list(tmp_path.iterdir())) == ("0", "", [])

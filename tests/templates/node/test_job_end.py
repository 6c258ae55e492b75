"""The end of a job as Slurm brings it about: SIGTERM to every process, and what the tunnel does while others go on."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from hpcproxy.account import checks
from tests import servers
from tests.sshd import Sshd
from tests.supervisor import Supervisor, write_script
from tests.waiting import until

FOR_THE_USER = (signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP)


@contextlib.contextmanager
def rank(job: str, **more: str) -> Iterator[subprocess.Popen[bytes]]:
    """Have a process of `job` that does not heed SIGTERM."""
    environ = {"PATH": os.environ["PATH"], "SLURM_JOB_ID": job, **more}
    with subprocess.Popen(["sleep", "600"], env=environ, stdin=subprocess.DEVNULL) as process:
        try:
            # Popen returns as soon as exec cannot fail any more, which is before the kernel shows the new environment.
            until(lambda: b"SLURM_JOB_ID=" in Path(f"/proc/{process.pid}/environ").read_bytes(), "it is a rank")
            yield process
        finally:
            process.kill()


def _fetch(url: str) -> str:
    with servers.internet() as internet:
        return checks.fetch_address(url, internet, 20).address


def _terminate(supervisor: Supervisor) -> None:
    """What Slurm does: SIGTERM to each process of the step."""
    for pid in (*supervisor.ssh_pids, supervisor.process.pid):
        os.kill(pid, signal.SIGTERM)


def _says(supervisor: Supervisor, words: str) -> Callable[[], bool]:
    def says() -> bool:
        log = supervisor.state / "log"
        return log.exists() and words in log.read_text()

    return says


@pytest.fixture
def slurm_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """slurm_says(state) has `squeue` say so of every job that it is asked about."""

    def say(state: str) -> None:
        directory = tmp_path / "slurm"
        directory.mkdir()
        text = f"""#!/bin/bash
[[ "$*" == "--noheader --jobs="*" --format=%A %T" ]] || exit 1
job=${{2#--jobs=}}
printf '1%s RUNNING\\n%s {state}\\n' "$job" "$job"
"""
        (directory / "squeue").write_text(text)
        (directory / "squeue").chmod(0o755)
        monkeypatch.setenv("PATH", f"{directory}:{os.environ['PATH']}")

    return say


def test_it_stays_while_a_process_of_the_job_lives_and_not_longer(
    hold: Callable[..., Supervisor], jump_host: Sshd
) -> None:
    supervisor = hold(**jump_host.settings)
    supervisor.line("ready")
    ssh = supervisor.ssh_pids
    with rank(supervisor.job):
        _terminate(supervisor)
        until(_says(supervisor, "told to end"), "it stays")
        _terminate(supervisor)
        assert _fetch(supervisor.url) == "203.0.113.7"
        assert supervisor.ssh_pids == ssh
    assert supervisor.process.wait(30) == 0
    assert supervisor.left_behind() == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_in_the_first_moment_of_who_watches_the_others_does_not_end_him(
    number: signal.Signals, jump_host: Sshd, tmp_path: Path
) -> None:
    """Slurm sends SIGTERM twice to each process of a step, the second a few milliseconds after the first."""
    script = write_script(tmp_path / "home", **jump_host.settings, agent=False)
    text = script.read_text()
    begin = "\noutstay_nobody() {\n"
    assert text.count(begin) == 1
    script.write_text(text.replace(begin, f"{begin}    kill -{number.value} $BASHPID\n"))
    supervisor = Supervisor(script)
    try:
        supervisor.line("ready")
        with rank(supervisor.job):
            supervisor.process.send_signal(signal.SIGTERM)
            until(_says(supervisor, "told to end"), "it stays")
        assert supervisor.process.wait(30) == 0
        # ssh is ended and not waited for.
        until(lambda: supervisor.left_behind() == [], "nothing is left of it")
    finally:
        supervisor.process.kill()
        supervisor.end()


def test_an_ssh_that_dies_meanwhile_comes_back(hold: Callable[..., Supervisor], jump_host: Sshd) -> None:
    supervisor = hold(**jump_host.settings)
    supervisor.line("ready")
    with rank(supervisor.job):
        _terminate(supervisor)
        until(_says(supervisor, "told to end"), "it stays")
        os.kill(supervisor.ssh_pids[0], signal.SIGKILL)
        until(lambda: supervisor.status()["reconnects"] == 1 and supervisor.status()["ready"], "it is up again")
        assert _fetch(supervisor.url) == "203.0.113.7"
    assert supervisor.process.wait(30) == 0
    assert supervisor.left_behind() == []


@pytest.mark.parametrize(
    "others",
    [lambda _job: rank("1"), lambda job: rank(job, HPCPROXY_HOLDER="1"), lambda job: rank(f"{job}0")],
    ids=["another job's", "our own", "a longer id's"],
)
def test_whose_processes_do_not_count(
    others: Callable[[str], AbstractContextManager[object]], hold: Callable[..., Supervisor], jump_host: Sshd
) -> None:
    supervisor = hold(**jump_host.settings, grace_s=600)
    supervisor.line("ready")
    with others(supervisor.job):
        assert supervisor.end() == 0
        assert supervisor.left_behind() == []


def test_a_process_that_ended_and_was_not_reaped_does_not_count(
    hold: Callable[..., Supervisor], jump_host: Sshd
) -> None:
    supervisor = hold(**jump_host.settings, grace_s=600)
    supervisor.line("ready")
    with rank(supervisor.job) as process:
        process.send_signal(signal.SIGKILL)
        until(lambda: Path(f"/proc/{process.pid}/stat").read_text().rpartition(") ")[2][0] == "Z", "it is a zombie")
        assert supervisor.end() == 0
    assert supervisor.left_behind() == []


@pytest.mark.parametrize("grace_s", [0, 1])
def test_it_does_not_stay_longer_than_grace_s(
    grace_s: int, hold: Callable[..., Supervisor], jump_host: Sshd, slurm_says: Callable[[str], None]
) -> None:
    slurm_says("COMPLETING")
    supervisor = hold(**jump_host.settings, grace_s=grace_s)
    supervisor.line("ready")
    with rank(supervisor.job) as process:
        assert supervisor.end() == 0
        assert process.poll() is None
        assert supervisor.left_behind() == []


def test_it_stays_for_all_of_grace_s(
    hold: Callable[..., Supervisor], jump_host: Sshd, slurm_says: Callable[[str], None]
) -> None:
    slurm_says("COMPLETING")
    supervisor = hold(**jump_host.settings, grace_s=4)
    supervisor.line("ready")
    with rank(supervisor.job):
        told = time.monotonic()
        assert supervisor.end() == 0
        assert time.monotonic() - told > 3, "whole seconds are counted where ssh itself listens"


def test_grace_s_is_what_kill_wait_leaves(
    hold: Callable[..., Supervisor], jump_host: Sshd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "slurm.conf").write_text("ClusterName=c\n#KillWait=600\n  killwait = 3 # seconds\nMailProg=/x\n")
    monkeypatch.setenv("SLURM_CONF", str(tmp_path / "slurm.conf"))
    supervisor = hold(**jump_host.settings)
    supervisor.line("ready")
    with rank(supervisor.job):
        assert supervisor.end() == 0


@pytest.mark.parametrize(("mode", "grace_s"), [("agent", 4), ("ssh", 4), ("ssh", 1)])
def test_a_sigterm_that_was_a_warning_does_not_end_it(
    grace_s: int, hold: Callable[..., Supervisor], jump_host: Sshd, slurm_says: Callable[[str], None]
) -> None:
    """Where ssh itself listens whole seconds are counted: of one second Slurm is asked at the end."""
    slurm_says("RUNNING")
    supervisor = hold(**jump_host.settings, grace_s=grace_s)
    supervisor.line("ready")
    with rank(supervisor.job):
        _terminate(supervisor)
        until(_says(supervisor, "the job goes on"), "Slurm was asked")
        assert _fetch(supervisor.url) == "203.0.113.7"
    _terminate(supervisor)
    assert supervisor.process.wait(30) == 0
    assert supervisor.left_behind() == []


def test_signals_that_a_user_sends_to_his_job_are_nothing_to_it(
    hold: Callable[..., Supervisor], jump_host: Sshd
) -> None:
    supervisor = hold(**jump_host.settings)
    supervisor.line("ready")
    ssh = supervisor.ssh_pids
    for number in FOR_THE_USER:
        supervisor.process.send_signal(number)
        if number != signal.SIGHUP:  # by which ssh is ended; Slurm sends it to nobody
            os.kill(ssh[0], number)
    assert _fetch(supervisor.url) == "203.0.113.7"
    assert supervisor.ssh_pids == ssh
    assert supervisor.process.poll() is None
    assert supervisor.end(signal.SIGURG) == 0
    assert supervisor.left_behind() == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGURG])
@pytest.mark.parametrize("word", ["env", "python3", "status.json"])
def test_a_signal_while_it_becomes_the_agent_leaves_nothing(
    word: str, number: signal.Signals, hold: Callable[..., Supervisor], jump_host: Sshd, mode: str
) -> None:
    """At its beginning: when its state is there, when the agent is being loaded, when that has its handlers."""
    if mode == "ssh":
        word = "status.json"
    supervisor = hold(**jump_host.settings)
    base = Path(os.environ["TMPDIR"])
    if word == "python3":
        exe = Path(f"/proc/{supervisor.process.pid}/exe")
        until(lambda: "python3" in exe.readlink().name, "the agent begins")
    else:
        until(lambda: list(base.glob(f"hpcproxy-*/{supervisor.job}.0-*/{word}")), f"there is {word}")
    assert supervisor.end(number) == 0
    assert supervisor.left_behind() == []


def test_without_the_agent_ssh_goes_with_a_supervisor_that_is_killed(
    hold: Callable[..., Supervisor], jump_host: Sshd
) -> None:
    supervisor = hold(**jump_host.settings)
    supervisor.line("ready")
    (ssh,) = supervisor.ssh_pids
    supervisor.process.kill()
    supervisor.process.wait()
    until(lambda: not Path(f"/proc/{ssh}").exists(), "ssh is gone")


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """program(name, text) puts a script before the real program of that name."""
    directory = tmp_path / "programs"
    directory.mkdir()
    monkeypatch.setenv("PATH", f"{directory}:{os.environ['PATH']}")

    def put(name: str, text: str) -> None:
        (directory / name).write_text(f"#!/bin/bash\n{text}\n")
        (directory / name).chmod(0o755)

    return put


def test_a_supervisor_that_is_told_to_end_while_it_makes_its_directory_leaves_none(
    hold: Callable[..., Supervisor], jump_host: Sshd, program: Callable[[str, str], None]
) -> None:
    """Slurm signals every process of a step, `mkdir` too."""
    program("mkdir", f'kill -TERM $PPID $$\n{shutil.which("mkdir")} "$@"')
    supervisor = hold(**jump_host.settings)
    assert supervisor.process.wait(60) == 0
    assert list(Path(os.environ["TMPDIR"]).glob("hpcproxy-*")) == []


@pytest.mark.parametrize(
    "hit",
    [("rm", "-rf", "USR1"), ("env", "/tunnel.sh", "TERM"), ("env", "/agent.pyz", "TERM")],
    ids=["rm", "env before the shell", "env before the agent"],
)
def test_a_signal_that_ends_a_program_of_its_own_leaves_nothing(
    hit: tuple[str, str, str],
    hold: Callable[..., Supervisor],
    jump_host: Sshd,
    mode: str,
    program: Callable[[str, str], None],
) -> None:
    """Slurm signals every process of a step: here what tidies up, or what the shell is on its way to the agent."""
    name, words, number = hit
    program(name, f'[[ "$*" != *{words}* ]] || kill -{number} $$\nexec {shutil.which(name)} "$@"')
    supervisor = hold(**jump_host.settings)
    if words == "/tunnel.sh" and mode == "agent":
        supervisor.process.wait(30)
    else:
        supervisor.line("ready")
    supervisor.end()
    until(lambda: not supervisor.left_behind(), f"nothing is left: {supervisor.left_behind()}")

"""tunnel.sh against a real sshd: what it holds, what it leaves, and what it says when the tunnel cannot be had."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import stat
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hpcproxy.account import checks, tunnels
from hpcproxy.errors import TunnelError
from tests import servers, sshd
from tests.shells import environment_of
from tests.sshd import Sshd
from tests.supervisor import Supervisor, listens, session, write_script
from tests.waiting import until


@pytest.fixture
def own_jump_host(tmp_path: Path) -> Iterator[Sshd]:
    """A jump host that the test may stop."""
    with sshd.running(tmp_path / "own-jump") as server:
        yield server


def _fetch(url: str) -> str:
    with servers.internet() as internet:
        return checks.fetch_address(url, internet, 20).address


# ------------------------------------------------------------------------------------------------ it holds


@pytest.mark.parametrize(
    ("agent", "scheme", "spelled"),
    [(True, "socks5", "http"), (False, "socks5h", "socks5h"), (False, "socks5", "socks5")],
)
def test_it_says_ready_once_the_tunnel_works(
    agent: bool, scheme: str, spelled: str, hold: Callable[..., Supervisor], jump_host: Sshd
) -> None:
    supervisor = hold(**jump_host.settings, agent=agent, scheme=scheme)
    assert supervisor.line("mode").endswith(" agent" if agent else " ssh")
    verb, _node, jump = supervisor.line("ready", "failed", "gave-up").split(" ", 2)
    assert (verb, jump) == ("ready", jump_host.jump)
    assert supervisor.url.startswith(f"{spelled}://127.")
    assert _fetch(supervisor.url) == "203.0.113.7"


def test_its_state_is_the_users_alone_and_its_status_is_json(
    mode: str, hold: Callable[..., Supervisor], jump_host: Sshd
) -> None:
    supervisor = hold(**jump_host.settings)
    supervisor.line("ready")
    assert stat.S_IMODE(supervisor.state.stat().st_mode) == 0o700
    until((supervisor.state / "log").exists, "the log is begun, right after the word")
    assert {path.name: stat.S_IMODE(path.stat().st_mode) for path in supervisor.state.iterdir()} == {
        "ctl": 0o600, "env": 0o600, "host": 0o600, "log": 0o600, "pid": 0o600, "turn": 0o600,
        "status": 0o600, "status.json": 0o600,
        **({} if mode == "agent" else {"ssh.log": 0o600, "ssh.talk": 0o600}),
    }  # fmt: skip
    status = supervisor.status()
    number = int(supervisor.job)
    assert status["address"] == f"127.{64 + (number >> 16 & 63)}.{number >> 8 & 255}.{number & 255}"
    named = {"agent": "gate"}.get(mode, mode)  # as versions before have it
    expected = {"version": 1, "ready": True, "mode": named, "jump": jump_host.jump, "reconnects": 0, "last_error": None}
    assert expected.items() <= status.items()
    assert status["pid"] == supervisor.process.pid


def test_its_environment_is_plain_lines(mode: str, hold: Callable[..., Supervisor], jump_host: Sshd) -> None:
    supervisor = hold(**jump_host.settings, no_proxy=["a.example"])
    supervisor.line("ready")
    values = environment_of(supervisor.state)
    assert list(values) == ["version", "key", "step", "uid", "listen", "url", "no_proxy"]
    version, key, step, uid, listen, url, direct = values.values()
    assert (version, key, step, uid) == ("1", f"{supervisor.job}.0", "", str(os.getuid()))
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()]
    assert [uid] == [row[7] for row in rows if row[1] == listen and row[3] == "0A"]
    scheme = "http" if mode == "agent" else "socks5h"
    assert url == f"{scheme}://{supervisor.status()['address']}:{supervisor.status()['port']}"
    assert direct.startswith("localhost,127.0.0.1,::1,0.0.0.0,")
    assert direct.endswith(",a.example")
    assert " " not in direct


def test_status_finds_it_while_it_lives(hold: Callable[..., Supervisor], jump_host: Sshd) -> None:
    supervisor = hold(**jump_host.settings)
    supervisor.line("ready")
    (found,) = tunnels.find(os.environ)
    assert (found.job, found.ready, found.jump, found.url) == (supervisor.job, True, jump_host.jump, supervisor.url)
    assert tunnels.find(os.environ, "shell") == []
    supervisor.process.kill()
    supervisor.process.wait()
    assert tunnels.find(os.environ) == []
    _kill_orphans(supervisor)


def _kill_orphans(supervisor: Supervisor) -> None:
    for text in supervisor.left_behind():
        if text.isdecimal():
            os.kill(int(text), signal.SIGKILL)


@pytest.mark.parametrize(
    ("job", "number"),
    [("", signal.SIGTERM), ("", signal.SIGURG)]
    + [("shell", number) for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)],
)
def test_a_signal_ends_it_and_nothing_is_left(
    job: str, number: signal.Signals, hold: Callable[..., Supervisor], jump_host: Sshd
) -> None:
    supervisor = hold(job, **jump_host.settings)
    supervisor.line("ready")
    address = (supervisor.status()["address"], supervisor.status()["port"])
    assert listens(*address)
    assert supervisor.end(number) == 0
    assert supervisor.left_behind() == []
    assert not listens(*address)


def test_a_hangup_does_not_end_it(hold: Callable[..., Supervisor], jump_host: Sshd) -> None:
    supervisor = hold(**jump_host.settings)
    supervisor.line("ready")
    supervisor.process.send_signal(signal.SIGHUP)
    assert _fetch(supervisor.url) == "203.0.113.7"
    assert supervisor.process.poll() is None


def test_it_ends_at_once_while_it_still_tries(hold: Callable[..., Supervisor]) -> None:
    with servers.black_hole() as port:
        supervisor = hold(jump=f"u@127.0.0.1:{port}", connect_timeout_s=600)
        until(lambda: supervisor.ssh_pids, "ssh has begun")
        assert supervisor.end() == 0
    assert supervisor.left_behind() == []


def test_it_ends_at_once_while_it_pauses(hold: Callable[..., Supervisor]) -> None:
    supervisor = hold(jump=f"u@127.0.0.1:{servers.free_port()}", retry_max_s=600)
    supervisor.line("failed")
    assert supervisor.end() == 0
    assert supervisor.left_behind() == []


# ------------------------------------------------------------------------------------------------ it comes back


def test_a_killed_ssh_comes_back(hold: Callable[..., Supervisor], jump_host: Sshd) -> None:
    supervisor = hold(**jump_host.settings)
    supervisor.line("ready")
    (ssh,) = supervisor.ssh_pids
    os.kill(ssh, signal.SIGKILL)
    until(lambda: supervisor.status()["reconnects"] == 1 and supervisor.status()["ready"], "it is up again")
    assert _fetch(supervisor.url) == "203.0.113.7"
    assert supervisor.status()["last_error"].startswith(jump_host.jump)


def test_a_jump_host_that_was_away_is_found_again(hold: Callable[..., Supervisor], own_jump_host: Sshd) -> None:
    supervisor = hold(**own_jump_host.settings)
    supervisor.line("ready")
    own_jump_host.stop()
    until(lambda: not supervisor.status()["ready"], "the status says down")
    assert supervisor.status()["jump"] is None
    own_jump_host.start()
    until(lambda: supervisor.status()["ready"], "it is up again")
    assert _fetch(supervisor.url) == "203.0.113.7"


def test_a_frozen_jump_host_counts_as_dead(hold: Callable[..., Supervisor], own_jump_host: Sshd) -> None:
    supervisor = hold(**own_jump_host.settings)
    supervisor.line("ready")
    assert own_jump_host.process is not None
    family = sshd.family(own_jump_host.process.pid)
    for pid in family:
        os.kill(pid, signal.SIGSTOP)
    until(lambda: not supervisor.status()["ready"], "the status says down")
    assert "stopped answering" in supervisor.status()["last_error"]
    for pid in family:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)
    until(lambda: supervisor.status()["ready"], "it is up again")


def test_the_next_jump_host_is_tried_when_one_fails(hold: Callable[..., Supervisor], jump_host: Sshd) -> None:
    settings = jump_host.settings
    refusing = f"u@127.0.0.1:{servers.free_port()}"
    supervisor = hold("shell", **{**settings, "jump": [refusing, jump_host.jump]})
    assert supervisor.line("ready").endswith(f" {jump_host.jump}")
    assert any(f" route {refusing}: " in line for line in supervisor.lines)
    assert _fetch(supervisor.url) == "203.0.113.7"


def test_jobs_share_the_jump_hosts_out(hold: Callable[..., Supervisor], jump_host: Sshd, tmp_path: Path) -> None:
    with sshd.running(tmp_path / "other") as other:
        (tmp_path / "both").write_text(jump_host.known_hosts + other.known_hosts)
        shutil.copy(f"{jump_host.identity}.pub", tmp_path / "other" / "authorized_keys")
        both = {"jump": [jump_host.jump, other.jump], "known_hosts": jump_host.known_hosts + other.known_hosts}
        supervisors = [hold(**{**jump_host.settings, **both}) for _ in range(10)]
        assert {supervisor.line("ready").split(" ")[-1] for supervisor in supervisors} == {jump_host.jump, other.jump}


def test_a_jump_host_that_comes_late_is_used(hold: Callable[..., Supervisor], tmp_path: Path) -> None:
    server = sshd.prepare(tmp_path / "late")
    supervisor = hold(**server.settings)
    assert " route " in supervisor.line("failed")
    assert supervisor.status()["ready"] is False
    server.start()
    try:
        supervisor.line("ready")
    finally:
        server.stop()


# ------------------------------------------------------------------------------------------------ what it says


def test_the_probe_says_ok_and_leaves_nothing(jump_host: Sshd, tmp_path: Path) -> None:
    both = [jump_host.jump, f"u@127.0.0.1:{servers.free_port()}"]
    script = write_script(tmp_path / "home", **{**jump_host.settings, "jump": both})
    argv = ["/bin/bash", "-p", str(script), "probe"]
    done = subprocess.run(argv, capture_output=True, text=True, check=True, stdin=subprocess.DEVNULL)
    ok, failed = done.stdout.splitlines()
    assert ok == f"ok {jump_host.jump}"
    assert failed.startswith(f"failed route {both[1]}: ")
    assert list(Path(os.environ["TMPDIR"]).iterdir()) == []


def test_a_port_taken_by_somebody_else_is_left_to_them(hold: Callable[..., Supervisor], jump_host: Sshd) -> None:
    with socket.create_server(("0.0.0.0", 0)) as server:
        port = server.getsockname()[1]
        supervisor = hold("shell", **jump_host.settings, port=port)
        line = supervisor.line("gave-up", "ready")
        taken = "the port is taken by another process of this node and nothing of theirs is used; choose another port"
        assert line.split(" ", 2)[2] == f"port {taken} (uid {os.getuid()} has it)"
        assert supervisor.process.wait(20) == 0
        assert supervisor.left_behind() == []


def test_no_jump_host_at_all(hold: Callable[..., Supervisor]) -> None:
    supervisor = hold()
    assert " configuration no jump host is configured" in supervisor.line("gave-up")
    assert supervisor.process.wait(20) == 0


def test_no_ssh_on_the_node(jump_host: Sshd, tmp_path: Path) -> None:
    """On a copy of the script whose PATH holds everything but ssh."""
    tools = tmp_path / "tools"
    tools.mkdir()
    for name in ("mktemp", "rm", "mv", "sleep", "timeout", "sort", "getent", "bash"):
        (tools / name).symlink_to(shutil.which(name) or "")
    script = write_script(tmp_path / "home", **jump_host.settings)
    text = script.read_text()
    assert text.count("\nPATH=$PATH:/usr/local/bin:/usr/bin:/bin\n") == 1
    script.write_text(text.replace("\nPATH=$PATH:/usr/local/bin:/usr/bin:/bin\n", f"\nPATH='{tools}'\n"))
    supervisor = Supervisor(script)
    assert " ssh there is no ssh on this node; ask for the OpenSSH client" in supervisor.line(
        "gave-up", "failed", "ready"
    )
    assert supervisor.end() == 0
    argv = ["/bin/bash", "-p", str(script), "probe"]
    done = subprocess.run(argv, capture_output=True, text=True, check=True, stdin=subprocess.DEVNULL)
    assert done.stdout == "failed ssh there is no ssh on this machine\n"


@pytest.mark.parametrize(
    "arguments", [[], ["hold"], ["hold", "x", "0"], ["hold", "1", ""], ["hold", "$(id)", "0"], ["go"]]
)
def test_wrong_arguments_are_exit_code_2(arguments: list[str], tmp_path: Path) -> None:
    argv = ["/bin/bash", "-p", str(write_script(tmp_path / "home", jump="a")), *arguments]
    done = subprocess.run(argv, capture_output=True, check=False, stdin=subprocess.DEVNULL)
    assert (done.returncode, done.stdout) == (2, b"")


# ------------------------------------------------------------------------------------------------ two at once


def test_a_second_supervisor_of_the_same_job_leaves_it_to_the_first(
    hold: Callable[..., Supervisor], jump_host: Sshd
) -> None:
    port = servers.free_port()
    first = hold(**jump_host.settings, port=port)
    first.line("ready")
    second = hold(first.job, **jump_host.settings, port=port)
    second.line("ready")
    assert second.process.wait(20) == 0
    assert _fetch(first.url) == "203.0.113.7"


def test_what_starts_a_tunnel_reports_its_reason(tmp_path: Path, jump_host: Sshd) -> None:
    script = write_script(tmp_path / "home", **{**jump_host.settings, "known_hosts": ""})
    said: list[str] = []
    with pytest.raises(TunnelError, match="is not pinned") as caught:
        tunnels.start(script, os.environ, 20, said.append)
    assert caught.value.layer == "host-key"
    assert tunnels.find(os.environ) == []


def test_an_ssh_that_was_stopped_is_replaced(hold: Callable[..., Supervisor], jump_host: Sshd) -> None:
    supervisor = hold(**jump_host.settings)
    supervisor.line("ready")
    (pid,) = supervisor.ssh_pids
    os.kill(pid, signal.SIGSTOP)
    until(lambda: supervisor.status()["reconnects"] == 1 and supervisor.status()["ready"], "another one serves")
    assert _fetch(supervisor.url) == "203.0.113.7"
    assert supervisor.end() == 0
    assert supervisor.left_behind() == []


def test_after_a_suspension_only_the_far_ends_answer_counts(
    hold: Callable[..., Supervisor], own_jump_host: Sshd, mode: str
) -> None:
    """All of the job is stopped; meanwhile the jump host forgets the connection, as a firewall does."""
    supervisor = hold(**{**own_jump_host.settings, "alive_interval_s": 1, "alive_count": 100})
    supervisor.line("ready")
    # Without the agent: the supervisor, ssh, and who watches it.
    until(lambda: mode == "agent" or len(session(supervisor.process.pid)) == 3, "all of it is there")
    everyone = [supervisor.process.pid, *session(supervisor.process.pid), *supervisor.ssh_pids]
    for pid in everyone:
        os.kill(pid, signal.SIGSTOP)
    assert own_jump_host.process is not None
    sessions = sshd.family(own_jump_host.process.pid)[1:]
    for pid in sessions:
        os.kill(pid, signal.SIGSTOP)
    since = time.monotonic()
    until(lambda: time.monotonic() > since + 4, "the job has been suspended for a while")
    for pid in everyone:
        os.kill(pid, signal.SIGCONT)
    try:
        until(lambda: supervisor.status()["reconnects"] == 1 and supervisor.status()["ready"], "it is up again")
        assert "stood still for" in (supervisor.state / "log").read_text()
        assert _fetch(supervisor.url) == "203.0.113.7"
    finally:
        for pid in sessions:
            os.kill(pid, signal.SIGKILL)


def test_a_supervisor_whose_slurmstepd_was_killed_ends(mode: str, jump_host: Sshd, tmp_path: Path) -> None:
    script = write_script(tmp_path / "home", **jump_host.settings, agent=mode == "agent", alive_interval_s=1)
    said = tmp_path / "said"
    words = ["bash", "-c", 'bash -p "$0" hold 4711 0 >"$1" & echo $!; wait', str(script), str(said)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True, start_new_session=True) as step:
        assert step.stdout is not None
        pid = int(step.stdout.readline())
        until(lambda: said.exists() and "ready " in said.read_text(), "it is ready")
        step.kill()
    until(lambda: not Path(f"/proc/{pid}").exists(), "it has gone, too")
    until(lambda: not list(Path(os.environ["TMPDIR"]).glob("hpcproxy-*")), "and left nothing")

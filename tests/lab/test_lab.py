"""The lab is a real cluster: what its hosts can reach, what they share, what its faults look like."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from hpcproxy.errors import LabError
from hpcproxy.lab import Lab, LabSpec
from tests.waiting import until

from .conftest import REPOSITORY

pytestmark = pytest.mark.lab
DEADLINE_S = 30.0
SSH = ["ssh", "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null"]


@contextmanager
def forward(lab: Lab, jump: str, *options: str) -> Iterator[None]:
    """An `ssh -D 2015` of alice on c1 through `jump`."""
    command = [*SSH, "-o", "ExitOnForwardFailure=yes", *options, "-N", "-D", "2015", jump]
    process = lab.popen("c1", command, "alice", stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    try:
        until(lambda: ("127.0.0.1", 2015, 2001) in lab.listeners("c1"), "ssh -D listens")
        yield
    finally:
        process.terminate()
        process.wait()


def through(lab: Lab, url: str) -> subprocess.CompletedProcess[str]:
    return lab.run("c1", ["curl", "-sS", "--max-time", "20", "-x", "socks5h://127.0.0.1:2015", url], "alice")


# ---- jobs


def test_a_job_on_three_nodes_prints_three_names(lab: Lab) -> None:
    result = lab.wait_job(lab.submit("#!/bin/bash\n#SBATCH -N3\nsrun hostname\n"))
    assert (result.state, result.exit_code) == ("COMPLETED", 0)
    assert sorted(result.output.split()) == ["c1", "c2", "c3"]
    assert lab.drained() == []


def test_a_failing_job_tells_its_exit_code(lab: Lab, tmp_path: Path) -> None:
    script = tmp_path / "job.sh"
    script.write_text("#!/bin/bash\nid -un\nexit 3\n")
    result = lab.wait_job(lab.submit(script, user="bob", args=["--output=/tmp/out-%j"]))
    assert (result.state, result.exit_code, result.output) == ("FAILED", 3, "bob\n")
    assert result.fields["BatchHost"] in lab.nodes


def test_an_overlap_step_takes_no_resources(lab: Lab) -> None:
    script = """#!/bin/bash
#SBATCH -N2 --exclusive --gres=gpu:1
srun --overlap --ntasks-per-node=1 --mem=0 sleep 60 &
srun --ntasks-per-node=4 hostname | sort | uniq -c | xargs
echo $CUDA_VISIBLE_DEVICES
kill %1
"""
    result = lab.wait_job(lab.submit(script))
    assert "4 c1 4 c2\n0,1\n" in result.output, result.output


# ---- who reaches what


def test_compute_nodes_have_no_internet(lab: Lab) -> None:
    for node in lab.nodes:
        by_name = lab.run(node, ["curl", "-sS", "http://internet.test/"], "alice")
        assert "Could not resolve host" in by_name.stderr
        by_address = lab.run(node, ["curl", "-sS", "http://203.0.113.80/"], "alice")
        assert by_address.returncode == 7  # could not connect
    started = time.monotonic()
    lab.run("c1", ["getent", "hosts", "internet.test"])
    assert time.monotonic() - started < 2, "a name that does not resolve fails at once"


@pytest.mark.parametrize(("jump", "address"), [("jump1", "203.0.113.10"), ("jump2", "203.0.113.11")])
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_jump_hosts_reach_the_internet(lab: Lab, jump: str, address: str, scheme: str) -> None:
    done = lab.run(jump, ["curl", "-sS", f"{scheme}://internet.test/ip"], "alice")
    assert done.stdout == f"{address}\n", done.stderr


def test_the_internet_speaks_http(lab: Lab) -> None:
    def status(*arguments: str) -> str:
        return lab.run(
            "jump1", ["curl", "-sS", "-o", "/dev/null", "-w", "%{http_code} %{size_download}", *arguments]
        ).stdout

    assert status("https://internet.test/bytes/100000") == "200 100000"
    assert status("-I", "https://internet.test/") == "200 0"
    assert status("https://internet.test/nowhere").startswith("404 ")
    echo = lab.run("jump1", ["curl", "-sS", "--data-binary", "@-", "https://internet.test/echo"], input="a b\n")
    assert echo.stdout == "a b\n"
    twice = ["curl", "-sS", "-w", "%{num_connects}", "https://internet.test/ip", "https://internet.test/ip"]
    assert lab.run("jump1", twice).stdout.endswith("\n0"), "the second request uses the first one's connection"


def test_a_forward_by_hand_shows_the_jump_hosts_address(lab: Lab) -> None:
    with forward(lab, "jump1"):
        for scheme in ("http", "https"):
            done = through(lab, f"{scheme}://internet.test/ip")
            assert done.stdout == "203.0.113.10\n", done.stderr
    assert all(port != 2015 for _, port, _ in lab.listeners("c1")), "terminate() reached ssh itself"


def test_pythons_default_tls_context_trusts_the_authority(lab: Lab) -> None:
    text = "import urllib.request as u; print(u.urlopen('https://internet.test/ip').read().decode())"
    done = lab.run("jump2", ["python3", "-c", text], "bob")
    assert done.stdout.strip() == "203.0.113.11", done.stderr


# ---- what is shared


def test_hosts_have_their_own_files_and_share_home(lab: Lab) -> None:
    for path in (
        "/etc/x",
        "/etc/hpcproxy/x",
        "/usr/libexec/hpcproxy/x",
        "/run/x",
        "/tmp/x",
        "/var/spool/x",
        "/dev/shm/x",
    ):
        lab.run("c1", ["tee", path], input="c1", check=True)
        assert lab.path_on("c1", path).read_text() == "c1"
        assert not lab.path_on("c2", path).exists()
        assert not Path(path).exists(), "the machine itself has nothing of it"
        lab.path_on("c1", path).unlink()
    lab.run("c1", ["tee", "shared"], "alice", input="c1", check=True)
    assert lab.run("c2", ["cat", "shared"], "alice").stdout == "c1"
    assert lab.run("login", ["cat", "shared"], "alice").stdout == "c1"
    assert lab.run("jump1", ["ls", "shared"], "alice").returncode != 0
    assert lab.run("c2", ["cat", "/home/alice/shared"], "bob").returncode != 0


def test_the_machine_cannot_be_written_to(lab: Lab) -> None:
    for path in ("/usr/bin/x", "/x", str(REPOSITORY / "x")):
        assert "Read-only" in lab.run("c1", ["touch", path]).stderr


def test_exposed_paths_are_there_for_ordinary_users(lab: Lab) -> None:
    there = str(REPOSITORY / "pyproject.toml")
    assert lab.run("c1", ["cat", there], "alice").stdout == Path(there).read_text()


def test_path_on_stays_inside_the_host(lab: Lab) -> None:
    lab.run("c1", ["ln", "-sfn", "/etc/hostname", "/run/link"], check=True)
    assert lab.path_on("c1", "/run/link").read_text() == "c1\n"
    assert lab.path_on("c1", "/run/../../../../etc/hostname").read_text() == "c1\n"


def test_a_command_has_a_login_environment_and_nothing_else(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", "x")
    done = lab.run("c1", ["env"], "alice", env={"MORE": "a b"})
    names = {line.partition("=")[0] for line in done.stdout.splitlines()}
    assert names == {"HOME", "LANG", "LOGNAME", "MORE", "PATH", "SHELL", "USER"}
    assert "MORE=a b" in done.stdout.splitlines()
    assert (
        lab.run("c1", ["bash", "-c", "pwd; id -u; id -G; hostname"], "alice").stdout == "/home/alice\n2001\n2001\nc1\n"
    )


def test_a_command_that_takes_too_long_is_ended(lab: Lab) -> None:
    with pytest.raises(LabError, match="no end within"):
        lab.run("c2", ["sleep", "4711"], timeout_s=0.5)
    until(lambda: not any("4711" in line for _, _, line in lab.processes("c2")), "sleep is gone")


def test_a_daemon_that_keeps_the_pipes_does_not_hang_the_caller(lab: Lab) -> None:
    with pytest.raises(LabError, match="it said: left"):
        lab.run("c2", ["sh", "-c", "echo left; setsid sleep 4712 & wait"], timeout_s=1)
    daemons = [pid for pid, _, line in lab.processes("c2") if "4712" in line]
    lab.run("c2", ["kill", *map(str, daemons)], check=True)


def test_processes_and_listeners_name_their_users(lab: Lab) -> None:
    assert any(user == "slurm" and "slurmctld" in line for _, user, line in lab.processes("ctl"))
    assert ("0.0.0.0", 22, 0) in lab.listeners("jump1")
    assert not any(user in ("alice", "bob") for _, user, _ in lab.processes("c3"))


def test_the_system_log_is_the_hosts_own(lab: Lab) -> None:
    lab.run("c1", ["logger", "-t", "hpcproxy", "from c1"], check=True)
    log = lab.path_on("c1", "/var/log/messages")  # made with its first line
    until(lambda: log.exists() and "hpcproxy: from c1" in log.read_text(), "the line is logged")


# ---- faults


def test_a_broken_link_swallows_packets(lab: Lab) -> None:
    probe = ["bash", "-c", "exec 3<>/dev/tcp/jump2/22 && head -c 4 <&3"]
    lab.link("jump2", up=False)
    try:
        with pytest.raises(LabError, match="no end within"):  # neither refused nor unreachable
            lab.run("c1", probe, timeout_s=5)
        assert lab.run("c1", [*SSH, "jump1", "true"], "alice").returncode == 0, "the other jump host is well"
    finally:
        lab.link("jump2", up=True)
    assert lab.run("c1", probe, timeout_s=DEADLINE_S).stdout == "SSH-"


def test_a_broken_wire_parts_two_hosts_and_no_others(lab: Lab) -> None:
    probe = ["bash", "-c", "exec 3<>/dev/tcp/jump2/22 && head -c 4 <&3"]
    lab.wire("c1", "jump2", up=False)
    try:
        with pytest.raises(LabError, match="no end within"):  # neither refused nor unreachable
            lab.run("c1", probe, timeout_s=5)
        assert lab.run("c2", probe).stdout == "SSH-"
        assert lab.run("c1", [*SSH, "jump1", "true"], "alice").returncode == 0
    finally:
        lab.wire("c1", "jump2", up=True)
    assert lab.run("c1", probe, timeout_s=DEADLINE_S).stdout == "SSH-"
    with pytest.raises(LabError, match="no network in common"):
        lab.wire("c1", "internet", up=False)


def test_sshd_can_refuse_forwarding(lab: Lab) -> None:
    lab.sshd("jump2", {"AllowTcpForwarding": "no"})
    try:
        with forward(lab, "jump2"):
            assert through(lab, "http://internet.test/ip").returncode != 0
    finally:
        lab.sshd("jump2")
    with forward(lab, "jump2"):
        assert through(lab, "http://internet.test/ip").stdout == "203.0.113.11\n"


def test_sshd_can_stop_and_cut_its_sessions(lab: Lab) -> None:
    session = lab.popen("c1", [*SSH, "jump2", "echo in; exec sleep 600"], "alice", stdout=subprocess.PIPE)
    assert session.stdout is not None
    assert session.stdout.readline() == "in\n"
    lab.sshd_stop("jump2")
    try:
        assert session.wait(DEADLINE_S) == 255
        session.stdout.close()
        assert "Connection refused" in lab.run("c1", [*SSH, "jump2", "true"], "alice").stderr
    finally:
        lab.sshd("jump2")
    assert lab.run("c1", [*SSH, "jump2", "true"], "alice").returncode == 0


def test_sshd_can_show_another_host_key(lab: Lab) -> None:
    before = lab.run("c1", ["ssh-keyscan", "-t", "ed25519", "jump2"]).stdout
    lab.new_host_key("jump2")
    after = lab.run("c1", ["ssh-keyscan", "-t", "ed25519", "jump2"]).stdout
    assert before.startswith("jump2 ssh-ed25519 ")
    assert after.startswith("jump2 ssh-ed25519 ")
    assert before != after


def test_wrong_names_are_answered_with_the_right_ones(lab: Lab) -> None:
    with pytest.raises(LabError, match="valid: ctl, c1, c2, c3, jump1, jump2, internet"):
        lab.run("c9", ["true"])
    with pytest.raises(LabError, match="valid: root, alice, bob"):
        lab.run("c1", ["true"], "mallory")
    with pytest.raises(LabError, match="has no sshd"):
        lab.sshd("c1")


@pytest.mark.parametrize(
    "wrong",
    [
        {"name": "../x"},
        {"nodes": 0},
        {"proctrack": "none"},
        {"proctrack": "cgroup", "release": {}},
        {"slurm_conf": {"A=B": "1"}},
        {"gpus": 99},
    ],
)
def test_a_spec_says_what_is_possible(wrong: dict[str, object]) -> None:
    with pytest.raises(LabError, match="valid: "):
        LabSpec(**wrong)  # type: ignore[arg-type]

"""Bad luck on a real cluster: each has a message of its own, within the deadline, and the job runs on."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from hpcproxy.lab import JobResult, Lab

from .researcher import JUMP1, Researcher, until

pytestmark = pytest.mark.lab
BODY = 'echo "proxy ${http_proxy-none}"\n'


@pytest.fixture
def alice(alice: Researcher) -> Researcher:
    """Alice, who waits for a tunnel for a short time only."""
    alice.set(ready_timeout_s=8, connect_timeout_s=2)
    return alice


def assert_runs_on(result: JobResult, *words: str) -> None:
    line, rest = result.output.split("\n", 1)
    assert line.startswith("hpcproxy: no tunnel: ")
    assert line.endswith("; the job runs on without it")
    for word in words:
        assert word in line
    assert rest == "proxy none\n"
    assert (result.state, result.exit_code, result.derived_exit_code) == ("COMPLETED", 0, 0)


def test_nothing_listens_at_the_jump_host(alice: Researcher, lab: Lab) -> None:
    lab.sshd_stop("jump1")
    try:
        assert_runs_on(alice.job(BODY), "c1,c2,c3: route: " + JUMP1, "nothing listens")
        alice.set(required=True)
        stopped = alice.job(BODY)
    finally:
        lab.sshd("jump1")
    assert (stopped.state, stopped.exit_code) == ("FAILED", 1)
    assert stopped.output.endswith("the job stops, because the configuration says required\n")


def test_a_black_hole(alice: Researcher, lab: Lab) -> None:
    lab.link("jump1", up=False)
    try:
        assert_runs_on(alice.job(BODY), "route: ", "does not answer")
    finally:
        lab.link("jump1", up=True)


def test_forwarding_that_the_site_prohibits(either: Researcher, lab: Lab) -> None:
    lab.sshd("jump1", {"AllowTcpForwarding": "no"})
    try:
        assert_runs_on(either.job(BODY), "forwarding: ", "ask your site")
        checked = either.hpcproxy("check", check=False)
    finally:
        lab.sshd("jump1")
    assert checked.returncode == 1
    assert "forwarding: " in checked.stderr


def test_a_host_key_that_changed(alice: Researcher, lab: Lab) -> None:
    lab.new_host_key("jump1")
    assert_runs_on(alice.job(BODY), "host-key: ", "another key than the one pinned")
    again = alice.hpcproxy("init", "--jump", JUMP1, check=False)
    assert again.returncode == 1
    assert "shows another key" in again.stderr
    alice.hpcproxy("init", "--jump", JUMP1, "--replace-key", "--yes")
    assert alice.job(BODY).output.startswith("proxy http://")


def test_a_host_key_that_was_never_pinned(alice: Researcher, lab: Lab) -> None:
    lab.path_on("login", "/home/alice/.hpcproxy/known_hosts").unlink()
    assert_runs_on(alice.job(BODY), "host-key: ", "hpcproxy init --jump")


@contextmanager
def moved_away(lab: Lab, path: str) -> Iterator[None]:
    lab.run("login", ["mv", path, path + ".away"], "alice", check=True)
    try:
        yield
    finally:
        lab.run("login", ["mv", path + ".away", path], "alice", check=True)


def test_no_key(alice: Researcher, lab: Lab) -> None:
    with moved_away(lab, "/home/alice/.ssh/id_ed25519"):
        assert_runs_on(alice.job(BODY), "key: ", "no key to log in with")


def test_a_key_with_a_passphrase_and_no_agent(alice: Researcher, lab: Lab) -> None:
    key = "/home/alice/.ssh/locked"
    lab.run("login", ["ssh-keygen", "-q", "-t", "ed25519", "-N", "secret words", "-f", key], "alice", check=True)
    with moved_away(lab, "/home/alice/.ssh/id_ed25519"):
        alice.set(identity=key)
        assert_runs_on(alice.job(BODY), "key: ", f"{key} has a passphrase")
    lab.run("login", ["rm", key, key + ".pub"], "alice", check=True)


@contextmanager
def admitted(lab: Lab, options: str) -> Iterator[None]:
    """Alice's key has `options` at the jump host."""
    path = lab.path_on("jump1", "/home/alice/.ssh/authorized_keys")
    before = path.read_text()
    path.write_text(f"{options} {before}")
    try:
        yield
    finally:
        path.write_text(before)


def test_a_trial_from_a_compute_node_meets_what_a_job_meets(alice: Researcher, lab: Lab) -> None:
    words = ("init", "--yes", "--jump", JUMP1)
    with admitted(lab, 'from="192.168.31.2"'):  # the login node alone
        assert "login and forwarding work" in alice.hpcproxy(*words).stdout
        refused = alice.hpcproxy(*words, "--on-node", check=False)
        # One node logs in first; whether the others have followed by the time of the line is chance.
        assert_runs_on(alice.job(BODY), "c1", ": key: ", "without a from=")
    assert refused.returncode == 1
    assert f"key: {JUMP1}: it refused the key" in refused.stderr
    assert "without a from= that shuts this node out" in refused.stderr
    tried = alice.hpcproxy(*words, "--on-node")
    assert f"login         {JUMP1}  login and forwarding work" in tried.stdout
    assert "from a compute node" in tried.stderr


def test_the_key_that_was_refused_is_named(alice: Researcher, lab: Lab) -> None:
    said = lab.run("login", ["ssh", "-V"], check=True).stderr
    if said.startswith(("OpenSSH_7.", "OpenSSH_8.0", "OpenSSH_8.1", "OpenSSH_8.2", "OpenSSH_8.3", "OpenSSH_8.4")):
        pytest.skip("ssh tells which key it offers from 8.5 on (LogVerbose)")
    with admitted(lab, 'from="192.168.31.1"'):  # nobody of the cluster
        refused = alice.hpcproxy("init", "--yes", "--jump", JUMP1, check=False)
    assert f"key: {JUMP1}: it refused the key /home/alice/.ssh/id_ed25519; " in refused.stderr


@pytest.mark.parametrize(
    ("pam", "words"),
    [("no", ("key: ", "the account there alive?")), ("yes", ("ssh: ", "alive? It says: ", "account has expired"))],
)
def test_an_account_that_has_expired(alice: Researcher, lab: Lab, pam: str, words: tuple[str, ...]) -> None:
    lab.run("jump1", ["chage", "-E", "0", "alice"], check=True)
    lab.sshd("jump1", {"UsePAM": pam})
    try:
        assert_runs_on(alice.job(BODY), *words)
    finally:
        lab.run("jump1", ["chage", "-E", "-1", "alice"], check=True)
        lab.sshd("jump1")


def test_a_certificate_that_ends_before_the_time_limit(alice: Researcher, lab: Lab) -> None:
    sign = (
        "cd ~/.ssh && ssh-keygen -q -t ed25519 -N '' -f ca && ssh-keygen -q -t ed25519 -N '' -f signed"
        " && ssh-keygen -q -s ca -I x -n alice -V -1h:+3m signed.pub && cat ca.pub"
    )
    authority = lab.run("login", ["bash", "-c", sign], "alice", check=True).stdout
    lab.path_on("jump1", "/etc/ssh/ca.pub").write_text(authority)
    lab.sshd("jump1", {"TrustedUserCAKeys": "/etc/ssh/ca.pub"})
    try:
        alice.set(identity="/home/alice/.ssh/signed", ready_timeout_s=60)
        long = alice.job(BODY, "#SBATCH -N3 --ntasks-per-node=1 --time=5")
        short = alice.job(BODY, "#SBATCH -N1 --time=1")
    finally:
        lab.sshd("jump1")
        lab.run("login", ["bash", "-c", "rm -f ~/.ssh/ca* ~/.ssh/signed*"], "alice", check=True)
        lab.path_on("jump1", "/etc/ssh/ca.pub").unlink()
    line, rest = long.output.split("\n", 1)
    assert line.startswith("hpcproxy: the certificate /home/alice/.ssh/signed-cert.pub ends at ")
    assert line.endswith(", before the time limit of this job: a tunnel that breaks after that does not come back")
    assert rest.startswith("proxy http://127.")
    assert short.output.startswith("proxy http://127.")


def test_no_ssh_on_a_node(alice: Researcher, lab: Lab) -> None:
    lab.run("c2", ["mount", "--bind", "/etc/hostname", "/usr/bin/ssh"], check=True)
    try:
        assert_runs_on(alice.job(BODY), "c2: ssh: there is no ssh on this node")
    finally:
        lab.run("c2", ["umount", "/usr/bin/ssh"], check=True)


def test_a_port_that_somebody_else_holds(either: Researcher, lab: Lab) -> None:
    job = lab.submit("#!/bin/bash\ntrue\n") + 1
    lab.wait_job(job - 1)
    address = f"127.64.{job >> 8}.{job & 255}"
    listen = f"import socket, time; s = socket.create_server(({address!r}, 2015)); time.sleep(600)"
    squatter = lab.popen("c2", ["python3", "-c", listen], "bob", stdin=subprocess.DEVNULL)
    try:
        until(lambda: (address, 2015, 2002) in lab.listeners("c2"), "Bob's program holds the port")
        result = either.job(BODY)
        assert result.job_id == job
        assert_runs_on(result, "c2: port: ", "another process")
        shell = lab.run("login", ["salloc", "-N1", "-wc2", "srun", "bash", "-ic", BODY], "alice")
        assert shell.stdout == "proxy none\n"
    finally:
        squatter.kill()
        squatter.wait()


def test_a_home_without_the_installed_files(alice: Researcher, lab: Lab) -> None:
    alice.hpcproxy("uninstall")
    result = alice.job(BODY)
    assert result.output == "hpcproxy: no prologue.sh here; the job runs on without a way out\nproxy none\n"
    assert not lab.path_on("login", "/home/alice/.hpcproxy").exists()

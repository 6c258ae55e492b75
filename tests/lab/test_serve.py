"""`via: reverse`: the session of a job's user brings the tunnel, on the login node or from a laptop through it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import pytest

from hpcproxy.lab import Lab
from hpcproxy.lab.command import HostProcess

from .researcher import FETCH, OUTER1, Researcher, until

pytestmark = pytest.mark.lab
PROGRAM = "/home/alice/there"
LAPTOP = "jump2"  # a machine that reaches the internet and has a home of its own


@pytest.fixture(scope="module")
def cluster(site: Lab) -> Iterator[Lab]:
    """The lab with keys that open its nodes from the login node, and host keys that are known there."""
    for user, uid in (("alice", 2001), ("bob", 2002)):
        key = site.path_on("login", f"/home/{user}/.ssh/id_ed25519.pub").read_text()
        site.machine("login").put(f"/home/{user}/.ssh/authorized_keys", key, 0o600, (uid, uid))
    site.machine("login").put("/etc/ssh/ssh_known_hosts", known(site, *site.nodes))
    yield site
    site.run("login", ["rm", "-f", "/etc/ssh/ssh_known_hosts", PROGRAM, "/home/alice/.ssh/authorized_keys"])
    site.run("login", ["rm", "-f", "/home/bob/.ssh/authorized_keys"])


def known(lab: Lab, *hosts: str) -> str:
    found = {host: lab.path_on(host, "/etc/ssh/ssh_host_ed25519_key.pub").read_text().split()[:2] for host in hosts}
    return "".join(f"{host} {' '.join(words)}\n" for host, words in found.items())


@pytest.fixture
def alice(cluster: Lab) -> Iterator[Researcher]:
    found = Researcher(cluster)
    cluster.run("login", ["rm", "-rf", found.home, ".bashrc"], "alice", check=True)
    assert "jobs get out by `hpcproxy serve`" in found.hpcproxy("init", "--via", "reverse").stderr
    found.set(ready_timeout_s=120, hold_s=60)
    yield found
    cluster.run("login", ["scancel", "--user=alice"], check=True)
    until(lambda: not found.traces(), lambda: f"nothing of the job is left: {found.traces()}")
    until(lambda: not left(cluster), lambda: f"nothing is left on the login node: {left(cluster)}")


def left(lab: Lab) -> list[str]:
    """What alice has on the login node and the laptop: processes, and files in /tmp."""
    found = []
    for host in ("login", LAPTOP):
        found += [line for _, user, line in lab.processes(host) if user == "alice"]
        found += lab.run(host, ["find", "/tmp", "-user", "alice"], check=True).stdout.split()
    return found


@pytest.fixture
def online(cluster: Lab) -> Iterator[Lab]:
    """The login node reaches the internet: jump1 is its router."""
    back = ["192.168.31.0/24", "via", OUTER1]
    before = cluster.path_on("login", "/etc/hosts").read_text()
    cluster.run("jump1", ["sh", "-c", "echo 1 >/proc/sys/net/ipv4/ip_forward"], check=True)
    cluster.run("internet", ["ip", "route", "add", *back], check=True)
    cluster.run("login", ["ip", "route", "add", "default", "via", "192.168.31.10"], check=True)
    cluster.machine("login").put("/etc/hosts", before + "203.0.113.80 internet.test\n")
    yield cluster
    cluster.machine("login").put("/etc/hosts", before)
    cluster.run("login", ["ip", "route", "del", "default"])
    cluster.run("internet", ["ip", "route", "del", *back])
    cluster.run("jump1", ["sh", "-c", "echo 0 >/proc/sys/net/ipv4/ip_forward"])


def serve(lab: Lab, *words: str, host: str = "login", user: str = "alice") -> HostProcess:
    argv = [sys.executable, "-m", "hpcproxy", "serve", *words]
    return lab.popen(host, argv, user, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def said(process: HostProcess) -> str:
    """All that it has said, once it has ended by itself."""
    text, _ = process.communicate(timeout=90)
    assert process.returncode == 0, text
    return text.decode() if isinstance(text, bytes) else str(text)


def test_a_job_gets_out_by_the_session_of_its_user(alice: Researcher, online: Lab) -> None:
    job = alice.submit(f"srun {FETCH}\n", "#SBATCH -N2 --ntasks-per-node=1 -w c[1-2]")
    serving = serve(online, "--job", str(job))
    result = online.wait_job(job)
    assert (result.state, result.exit_code) == ("COMPLETED", 0), result.output
    assert result.output.endswith("\n192.168.31.2\n192.168.31.2\n")
    words = said(serving)
    assert f"c1 (job {job}): the tunnel is there" in words
    assert f"c2 (job {job}): the tunnel is there" in words
    assert words.endswith(f"hpcproxy: over: {job}\n")


def test_a_second_user_gets_nothing_of_it(alice: Researcher, online: Lab) -> None:
    job = alice.submit(f"{FETCH}; touch up; until [ -e go ]; do sleep 0.2; done\n", "#SBATCH -N1 -w c1")
    serving = serve(online, "--job", str(job))
    until(lambda: online.path_on("login", "/home/alice/up").exists(), "the job is out")
    try:
        for host, name in (("c1", "rev.*"), ("login", "in")):
            (socket,) = online.run(host, ["find", "/tmp", "-type", "s", "-name", name], check=True).stdout.split()
            asked = ["curl", "-sS", "--max-time", "5", "--unix-socket", socket, "http://internet.test/ip"]
            assert online.run(host, asked, "bob").returncode == 7, "bob could connect"
        others = serve(online, "--job", str(job), user="bob")
        until(lambda: any("meet" in line for _, user, line in online.processes("c1") if user == "bob"), "bob looks")
        others.terminate()
        text, _ = others.communicate(timeout=60)
        assert b"the tunnel is there" not in (text if isinstance(text, bytes) else str(text).encode())
    finally:
        online.run("login", ["touch", "go"], "alice")
        online.wait_job(job)
        online.run("login", ["rm", "-f", "up", "go"], "alice")
    said(serving)


def test_from_a_laptop_through_a_login_node_without_internet(alice: Researcher, cluster: Lab) -> None:
    cluster.run(LAPTOP, ["ip", "route", "add", "default", "dev", "eth1"], check=True)
    cluster.run(LAPTOP, ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", ".ssh/laptop"], "alice", check=True)
    key = cluster.path_on(LAPTOP, "/home/alice/.ssh/laptop.pub").read_text()
    keys = cluster.path_on("login", "/home/alice/.ssh/authorized_keys")
    before = keys.read_text()
    keys.write_text(before + key)
    ids = (2001, 2001)
    names = known(cluster, "ctl").replace("ctl ", "login ")
    cluster.machine(LAPTOP).put("/home/alice/.ssh/known_hosts", names, 0o600, ids)
    cluster.machine(LAPTOP).put("/home/alice/.ssh/config", "IdentityFile ~/.ssh/laptop\n", 0o600, ids)
    cluster.machine("login").put(PROGRAM, f'#!/bin/sh\nexec {sys.executable} -m hpcproxy "$@"\n', 0o700, ids)
    try:
        job = alice.submit(f"{FETCH}\n", "#SBATCH -N1 -w c1")
        serving = serve(cluster, "--job", str(job), "--through", "alice@login", "--program", PROGRAM, host=LAPTOP)
        result = cluster.wait_job(job)
        assert result.output.endswith("\n203.0.113.11\n")
        assert said(serving).endswith(f"hpcproxy: over: {job}\n")
    finally:
        keys.write_text(before)
        cluster.run(LAPTOP, ["ip", "route", "del", "default"])
        cluster.run(LAPTOP, ["sh", "-c", "rm -f .ssh/laptop* .ssh/known_hosts .ssh/config"], "alice")


@pytest.mark.parametrize("forbidding", ["AllowStreamLocalForwarding", "AllowTcpForwarding", "DisableForwarding"])
def test_a_site_that_forbids_it_is_heeded(alice: Researcher, online: Lab, forbidding: str) -> None:
    value = "yes" if forbidding == "DisableForwarding" else "no"
    online.sshd("c1", {forbidding: value})
    try:
        alice.set(ready_timeout_s=20)
        job = alice.submit("true\n", "#SBATCH -N1 -w c1")
        words = said(serve(online, "--job", str(job)))
        assert "the sshd of c1 does not allow a forward to a Unix socket" in words
        assert "nobody brings a tunnel here: run `hpcproxy serve`" in online.wait_job(job).output
    finally:
        online.sshd("c1")


def test_a_mask_that_opens_the_socket_opens_no_directory(alice: Researcher, online: Lab) -> None:
    online.sshd("c1", {"StreamLocalBindMask": "0111"})
    try:
        test_a_second_user_gets_nothing_of_it(alice, online)
    finally:
        online.sshd("c1")

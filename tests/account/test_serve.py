"""`serve`, with a real sshd for a node: a tunnel for a job's agent, again after each loss, and nothing stays."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from hpcproxy.node.build import build
from tests.node.harness import Agent, FarEnd, echo, read_rest
from tests.sshd import USER, Sshd, prepare
from tests.waiting import until

JOB = "4711"
NODE = "127.0.0.1"


class Cluster:
    """One node, its sshd, the account of a user and what his squeue says."""

    def __init__(self, folder: Path, more: str = "") -> None:
        self.folder, self.home = folder, folder / "home"
        self.sshd: Sshd = prepare(folder / "sshd", more).start()
        self.serving: list[subprocess.Popen[str]] = []
        self.agents: list[Agent] = []
        (self.home / ".hpcproxy").mkdir(parents=True)
        (self.home / ".hpcproxy" / "config.yaml").write_text(yaml.safe_dump({"allow": ["*", NODE]}))
        (self.home / ".hpcproxy" / "agent.pyz").write_bytes(build())
        self.bin = folder / "bin"
        self.bin.mkdir()
        self.states = folder / "squeue"
        self._program("squeue", f'cat "{self.states}"\n')
        options = {
            "Port": self.sshd.port,
            "User": USER,
            "IdentityFile": self.sshd.identity,
            "IdentitiesOnly": "yes",
            "IdentityAgent": "none",
            "UserKnownHostsFile": self.sshd.known,
            "GlobalKnownHostsFile": "/dev/null",
        }
        (folder / "ssh_config").write_text("".join(f"{key} {value}\n" for key, value in options.items()))
        # ssh looks into the account's own home, whatever HOME says. What comes later counts, -F /dev/null too.
        self._program("ssh", f'PATH=${{PATH#*:}} exec ssh -F "{folder}/ssh_config" "$@"\n')
        self.tell(f"{JOB} {JOB} RUNNING {NODE}")

    def _program(self, name: str, body: str) -> None:
        path = self.bin / name
        path.write_text(f"#!/bin/sh\n{body}")
        path.chmod(0o700)

    def tell(self, *lines: str) -> None:
        """What squeue says from now on."""
        draft = self.states.with_suffix(".new")
        draft.write_text("".join(f"{line}\n" for line in lines))
        draft.replace(self.states)

    def agent(self, **settings: object) -> Agent:
        """The job's agent, started and without a tunnel so far."""
        found = Agent(self.folder / f"agent{len(self.agents)}", [{"kind": "reverse"}], **settings)
        found.words = ("--job", JOB)
        self.agents.append(found)
        return found.start()

    def serve(self, *words: str) -> subprocess.Popen[str]:
        environ = {
            "PATH": f"{self.bin}:{os.environ['PATH']}",
            "HOME": str(self.home),
            "TMPDIR": str(self.folder),
            "PYTHONPATH": os.environ.get("PYTHONPATH", ""),
            "LANG": "C.UTF-8",
        }
        argv = [sys.executable, "-m", "hpcproxy", "serve", *(words or ("--job", JOB))]
        with (self.folder / f"said{len(self.serving)}").open("w") as said:
            self.serving.append(
                subprocess.Popen(argv, env=environ, stdin=subprocess.DEVNULL, stdout=said, stderr=said, text=True)
            )
        return self.serving[-1]

    def said(self, which: int = 0) -> str:
        return (self.folder / f"said{which}").read_text()

    def close(self) -> None:
        for each in self.serving:
            each.kill()
            each.wait()
        for agent in self.agents:
            agent.stop()
            assert "Traceback" not in agent.err.read_text()
        self.sshd.stop()


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    found = Cluster(tmp_path)
    yield found
    found.close()


@pytest.fixture
def server() -> Iterator[FarEnd]:
    found = FarEnd(echo)
    yield found
    found.close()


def reaches(agent: Agent, server: FarEnd) -> bool:
    sock, head = agent.tunnel(server.target, 40)
    with sock:
        if not head.startswith(b"HTTP/1.1 200 "):
            return False
        sock.sendall(b"hello")
        return bool(sock.recv(5) == b"hello")


def sockets(agent: Agent) -> list[str]:
    return [path.name for path in agent.state.glob("rev.*")]


def left(cluster: Cluster) -> list[str]:
    """Directories of `serve`, and its processes."""
    found = [str(path) for path in cluster.folder.glob("hpcproxy-*/serve-*")]
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_text()
        except OSError:
            continue
        if str(cluster.folder) in words and (" meet --job" in words.replace("\0", " ") or "\0ssh" in words):
            found.append(words.replace("\0", " "))
    return found


def test_a_tunnel_is_brought_to_a_job_and_ends_with_it(cluster: Cluster, server: FarEnd) -> None:
    serving = cluster.serve()
    until(lambda: "waits on this node" in cluster.said(), "it says that the job's agent is not there yet", 60)
    agent = cluster.agent()
    agent.ready(60)
    assert reaches(agent, server)
    (name,) = sockets(agent)
    assert (agent.state / name).stat().st_mode & 0o777 == 0o600
    assert "127.0.0.1 (job 4711): the tunnel is there\n" in cluster.said()
    agent.stop()
    until(lambda: "127.0.0.1 (job 4711): over\n" in cluster.said(), "it knows that the agent has ended")
    cluster.tell()
    assert serving.wait(60) == 0
    assert cluster.said().endswith("hpcproxy: over: 4711\n")
    assert left(cluster) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
def test_its_end_leaves_nothing_and_another_takes_its_place(
    cluster: Cluster, server: FarEnd, number: signal.Signals
) -> None:
    agent = cluster.agent(hold_s=60, alive_interval_s=1)
    serving = cluster.serve()
    agent.ready(60)
    serving.send_signal(number)
    assert serving.wait(30) == (-number if number == signal.SIGKILL else 0)
    until(lambda: not sockets(agent) and not left(cluster), lambda: f"nothing stays: {left(cluster)}", 60)
    until(lambda: not agent.status()["ready"], "the agent knows")
    assert "what brought the tunnel here has ended" in agent.status()["last_error"]
    with agent.connect(90) as sock:
        sock.sendall("CONNECT {}:{} HTTP/1.1\r\n\r\n".format(*server.target).encode())
        until(lambda: agent.status()["held"] == 1, "the request waits")
        cluster.serve()
        assert sock.recv(12) == b"HTTP/1.1 200"


def test_two_for_one_job(cluster: Cluster, server: FarEnd) -> None:
    agent = cluster.agent(hold_s=30)
    first = cluster.serve()
    agent.ready(60)
    cluster.serve()
    until(lambda: len(sockets(agent)) == 2, "both have brought one", 60)
    first.terminate()
    assert first.wait(30) == 0
    assert reaches(agent, server)
    until(lambda: agent.status()["reconnects"] == 1 and agent.status()["ready"], "by the other one")
    assert len(sockets(agent)) == 1


def test_an_sshd_that_allows_no_such_forward(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path, "AllowStreamLocalForwarding no\n")
    try:
        agent = cluster.agent()
        cluster.serve()
        sentence = (
            "hpcproxy: 127.0.0.1 (job 4711): the sshd of 127.0.0.1 does not allow a forward to a Unix socket "
            "(AllowStreamLocalForwarding, AllowTcpForwarding or DisableForwarding), so no tunnel can be brought there\n"
        )
        until(lambda: sentence in cluster.said(), cluster.said, 60)
        assert sockets(agent) == []
    finally:
        cluster.close()


def test_a_mask_that_lets_others_in_lets_them_into_no_directory(tmp_path: Path, server: FarEnd) -> None:
    cluster = Cluster(tmp_path, "StreamLocalBindMask 0111\n")
    try:
        agent = cluster.agent()
        cluster.serve()
        agent.ready(60)
        (name,) = sockets(agent)
        assert (agent.state / name).stat().st_mode & 0o777 == 0o666
        assert agent.state.stat().st_mode & 0o777 == 0o700
        assert reaches(agent, server)
    finally:
        cluster.close()


@pytest.mark.parametrize("words", [(), ("--job", JOB, "--all-jobs")])
def test_which_jobs_must_be_said(cluster: Cluster, words: tuple[str, ...]) -> None:
    serving = cluster.serve(*(words or ("--no-such",)))
    assert serving.wait(30) == 2


def test_a_machine_that_sleeps(cluster: Cluster, server: FarEnd) -> None:
    """The whole of `serve` is stopped, as by a laptop's lid: requests wait, are told why, and go on afterwards."""
    agent = cluster.agent(hold_s=1, alive_interval_s=1, alive_count=2, connect_timeout_s=1)
    serving = cluster.serve()
    agent.ready(60)
    asleep = [serving.pid, *below(serving.pid)]
    for pid in asleep:
        os.kill(pid, signal.SIGSTOP)
    try:
        until(lambda: not agent.status()["ready"], "the silence is noticed", 60)
        said = agent.ask(b"CONNECT 127.0.0.1:1 HTTP/1.1\r\n\r\n", 60)
        assert said.startswith(b"HTTP/1.1 503 ")
        assert b"is asleep, or off the network" in said
    finally:
        for pid in reversed(asleep):
            os.kill(pid, signal.SIGCONT)
    until(lambda: agent.status()["ready"], "it is back", 60)
    assert reaches(agent, server)


def below(pid: int) -> list[int]:
    """The descendants of `pid`, those in sessions of their own too."""
    try:
        found = [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []
    return [each for child in found for each in (child, *below(child))]


def test_what_breaks_off_at_the_far_end_never_looks_whole(cluster: Cluster) -> None:
    def half(sock: object) -> None:
        import socket  # noqa: PLC0415
        import struct  # noqa: PLC0415

        assert isinstance(sock, socket.socket)
        sock.recv(100)
        sock.sendall(b"half")
        sock.recv(100)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        sock.close()

    far = FarEnd(half)
    try:
        agent = cluster.agent()
        cluster.serve()
        agent.ready(60)
        sock, _ = agent.tunnel(far.target)
        with sock:
            sock.sendall(b"hi ")
            assert sock.recv(4) == b"half"
            sock.sendall(b"hi ")
            with pytest.raises(ConnectionResetError):
                read_rest(sock)
    finally:
        far.close()

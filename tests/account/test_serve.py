"""`serve`, with a real sshd for a node: a tunnel for a job's agent, again after each loss, and nothing stays."""

from __future__ import annotations

import os
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.account.serving import JOB, Cluster, reaches
from tests.node.harness import Agent, FarEnd, echo, read_rest
from tests.supervisor import command_line
from tests.waiting import until


@pytest.fixture
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Short enough for a Unix socket's name, also where several run the tests side by side."""
    return tmp_path_factory.mktemp("c")


@pytest.fixture
def cluster(folder: Path) -> Iterator[Cluster]:
    found = Cluster(folder)
    yield found
    found.close()


@pytest.fixture
def server() -> Iterator[FarEnd]:
    found = FarEnd(echo)
    yield found
    found.close()


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
    assert f"127.0.0.1 (job {JOB}): the tunnel is there\n" in cluster.said()
    agent.stop()
    until(lambda: f"127.0.0.1 (job {JOB}): over\n" in cluster.said(), "it knows that the agent has ended")
    cluster.tell()
    assert serving.wait(60) == 0
    assert cluster.said().endswith(f"hpcproxy: over: {JOB}\n")
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


@pytest.mark.parametrize("wrapper", ["sleep {} & ", "sleep {} >/dev/null 2>&1 & "])
def test_what_a_wrapper_named_ssh_leaves_goes_with_it(wrapper: str, cluster: Cluster, server: FarEnd) -> None:
    """One process for each ssh of ours, the short ones that only hand a word to the long one, too."""
    name = str(4_000_000 + os.getpid())
    ssh = cluster.bin / "ssh"
    ssh.write_text(ssh.read_text().replace("PATH=", wrapper.format(name) + "PATH="))

    def stay() -> list[int]:
        pids = [int(path.name) for path in Path("/proc").glob("[0-9]*")]
        return [pid for pid in pids if command_line(pid).startswith(b"sleep\0" + name.encode())]

    agent = cluster.agent()
    serve = cluster.serve()
    try:
        agent.ready(60)
        assert reaches(agent, server)
        until(lambda: len(stay()) == 1, "only that of the ssh which holds the tunnel is there")
        serve.terminate()
        serve.wait(60)
        until(lambda: not stay(), "nothing is left")
    finally:
        for pid in stay():
            os.kill(pid, signal.SIGKILL)


HOLDS = "setsid -f sleep 20; "  # a daemon that has ssh's outputs, for longer than anybody would wait


def _wrap(cluster: Cluster) -> None:
    ssh = cluster.bin / "ssh"
    ssh.write_text(ssh.read_text().replace("PATH=", HOLDS + "PATH="))


def test_who_holds_the_outputs_of_an_ssh_that_ends_delays_no_other(cluster: Cluster, server: FarEnd) -> None:
    _wrap(cluster)
    agent = cluster.agent()
    cluster.serve()
    agent.ready(60)
    lines = {int(path.name): command_line(int(path.name)) for path in Path("/proc").glob("[0-9]*")}
    (ours,) = [
        pid for pid, line in lines.items() if line.split(b"\0")[0].endswith(b"ssh") and bytes(cluster.folder) in line
    ]
    os.kill(ours, signal.SIGKILL)
    until(lambda: cluster.said().count("the tunnel is there\n") > 1, lambda: f"it comes again: {cluster.said()}", 15)
    assert reaches(agent, server)


def test_the_reason_of_a_refused_forward_comes_through_a_wrapper(folder: Path) -> None:
    cluster = Cluster(folder, "AllowStreamLocalForwarding no\n")
    _wrap(cluster)
    try:
        cluster.agent()
        cluster.serve()
        until(lambda: "does not allow a forward to a Unix socket" in cluster.said(), cluster.said, 15)
    finally:
        cluster.close()


def test_a_refused_login_through_a_wrapper_is_not_tried_again(cluster: Cluster) -> None:
    _wrap(cluster)
    cluster.sshd.authorized_keys.write_text("")
    cluster.agent()
    cluster.serve()
    until(lambda: f"127.0.0.1 (job {JOB}): key: " in cluster.said(), cluster.said, 15)


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


def test_an_sshd_that_allows_no_such_forward(folder: Path) -> None:
    cluster = Cluster(folder, "AllowStreamLocalForwarding no\n")
    try:
        agent = cluster.agent()
        cluster.serve()
        sentence = (
            f"hpcproxy: 127.0.0.1 (job {JOB}): the sshd of 127.0.0.1 does not allow a forward to a Unix socket "
            "(AllowStreamLocalForwarding, AllowTcpForwarding or DisableForwarding), so no tunnel can be brought there\n"
        )
        until(lambda: sentence in cluster.said(), cluster.said, 60)
        assert sockets(agent) == []
    finally:
        cluster.close()


def test_a_mask_that_lets_others_in_lets_them_into_no_directory(folder: Path, server: FarEnd) -> None:
    cluster = Cluster(folder, "StreamLocalBindMask 0111\n")
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
    def half(sock: socket.socket) -> None:
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


def test_from_a_laptop_through_the_login_node(cluster: Cluster, server: FarEnd) -> None:
    agent = cluster.agent()
    serving = cluster.through()
    agent.ready(90)
    assert reaches(agent, server)
    said = cluster.said()
    assert "hpcproxy: 127.0.0.1: the tunnel is there\n" in said  # to the login node
    assert f"hpcproxy: 127.0.0.1 (job {JOB}): the tunnel is there\n" in said  # what that one says
    serving.terminate()
    assert serving.wait(30) == 0
    until(lambda: not sockets(agent) and not left(cluster), lambda: f"nothing stays: {left(cluster)}", 60)


def test_a_laptop_is_told_that_the_jobs_are_over(cluster: Cluster) -> None:
    agent = cluster.agent()
    serving = cluster.through()
    agent.ready(90)
    agent.stop()
    cluster.tell()
    assert serving.wait(60) == 0
    assert cluster.said().endswith(f"hpcproxy: over: {JOB}\n")
    assert left(cluster) == []


def test_a_login_that_is_refused_is_not_tried_again(cluster: Cluster) -> None:
    cluster.sshd.authorized_keys.write_text("")
    cluster.agent()
    cluster.serve()
    until(lambda: f"127.0.0.1 (job {JOB}): key: " in cluster.said(), cluster.said, 60)
    serving = cluster.through()
    assert serving.wait(60) == 1
    assert "login: 127.0.0.1: key: " in cluster.said(1)
    log = (cluster.sshd.directory / "log").read_text()
    assert log.count("Connection closed by authenticating user") == 2


def test_a_host_that_nobody_has_confirmed_is_not_logged_in_to(cluster: Cluster) -> None:
    cluster.sshd.known.write_text("")
    cluster.agent()
    cluster.serve()
    until(lambda: f"127.0.0.1 (job {JOB}): host-key: " in cluster.said(), cluster.said, 60)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, for a mount namespace")
def test_a_job_with_a_tmp_of_its_own(cluster: Cluster, server: FarEnd) -> None:
    private = cluster.folder / "private"
    private.mkdir()
    agent = Agent(cluster.folder / "agent", [{"kind": "reverse"}])
    agent.words = ("--job", JOB)
    agent.state = private / "st"
    mount = 'mount -t tmpfs -o mode=0755 none "$0" && mkdir -m 0700 "$0/st" && exec "$@"'
    agent.python = ["unshare", "-m", "sh", "-c", mount, str(private), *agent.python]
    cluster.agents.append(agent.start())
    cluster.serve()
    agent.ready(60)
    assert list(private.iterdir()) == []  # nobody else sees it
    assert reaches(agent, server)


def test_sockets_that_an_earlier_one_left_are_taken_away(cluster: Cluster, server: FarEnd) -> None:
    agent = cluster.agent()
    for number in range(3):
        with socket.socket(socket.AF_UNIX) as stale:
            stale.bind(str(agent.state / f"rev.{number}"))
        os.utime(agent.state / f"rev.{number}", (1, 1))
    until(lambda: sockets(agent) == [], "they are gone")
    cluster.serve()
    agent.ready(60)
    assert reaches(agent, server)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to be somebody else")
def test_a_second_user_gets_through_at_neither_end(cluster: Cluster, server: FarEnd) -> None:
    agent = cluster.agent()
    serving = cluster.serve()
    agent.ready(60)
    for folder in (cluster.folder, *cluster.folder.parents[:-2]):  # all below /tmp
        folder.chmod(0o755)
    (entrance,) = cluster.folder.glob("hpcproxy-*/serve-*/in")
    brought = agent.state / sockets(agent)[0]
    for path in entrance, brought:
        assert reached_by(4321, path) == "Permission denied"
    # Let into the directories and to the sockets he is thrown out, for he is not who they are for.
    for path in (entrance.parents[1], entrance.parent, agent.state):
        path.chmod(0o755)
    entrance.chmod(0o666)
    assert reached_by(4321, entrance) == "closed"
    serving.terminate()
    assert serving.wait(30) == 0


def reached_by(uid: int, path: Path) -> str:
    """What becomes of a request of user `uid` at the socket `path`."""
    program = (
        "import os, socket, sys; os.setgid(int(sys.argv[1])); os.setuid(int(sys.argv[1])); s = socket.socket(1)\n"
        "try:\n    s.connect(sys.argv[2])\n    s.sendall(b'CONNECT 127.0.0.1:1 HTTP/1.1\\r\\n\\r\\n')\n"
        "    print(s.recv(100) or 'closed')\n"
        "except ConnectionError:\n    print('closed')\n"
        "except OSError as error:\n    print(error.strerror)\n"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", program, str(uid), str(path)], capture_output=True, text=True, check=True
    )
    return done.stdout.strip()

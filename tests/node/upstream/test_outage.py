"""ssh goes away and comes back: the port stays, requests wait, answers stay true."""

import os
import shutil
import signal
import socket
import struct
import threading
import time

import pytest

from hpcproxy.node.state import directory
from hpcproxy.node.state.settings import Way
from hpcproxy.node.upstream.candidate import Candidate, Verdict
from tests.node.harness import OPENINGS, PORT, echo, jump_of, read_head, read_rest
from tests.sshd import prepare
from tests.waiting import until


@pytest.fixture
def own_jump(tmp_path):
    sshd = prepare(tmp_path / "own").start()
    yield sshd
    sshd.stop()


def kill_ssh(agent):
    pid = until(agent.ssh_pid, "an ssh")
    os.kill(pid, signal.SIGKILL)
    until(lambda: agent.ssh_pid() != pid, "it is gone")


@pytest.mark.parametrize("opening", OPENINGS)
def test_a_request_during_the_outage_is_held_and_served(start_agent, far_end, opening):
    server = far_end(echo)
    agent = start_agent()
    for _ in range(3):
        kill_ssh(agent)
        sock, head = agent.tunnel(server.target)
        with sock:
            assert head.startswith(b"HTTP/1.1 200 ")
            sock.sendall(opening + b"hello")
            assert sock.recv(10) == opening + b"hello"
    until(lambda: agent.status().get("reconnects") == 3, "three reconnects are counted")
    assert agent.status()["held"] >= 1
    assert [line.split()[0] for line in agent.lines()] == ["ready"]


def test_what_was_under_way_is_broken_off(start_agent, far_end):
    agent = start_agent()
    for opening in OPENINGS:
        server = far_end(echo)
        sock, _ = agent.tunnel(server.target)
        with sock:
            sock.sendall(opening + b"hello")
            assert sock.recv(10) == opening + b"hello"
            kill_ssh(agent)
            with pytest.raises(ConnectionResetError):
                read_rest(sock)


def test_503_says_how_long_and_why(start_agent, own_jump, far_end):
    server = far_end(echo)
    agent = start_agent([jump_of(own_jump)], hold_s=0.5)
    own_jump.leave()
    kill_ssh(agent)
    began = time.monotonic()
    answer = agent.ask("CONNECT 127.0.0.1:{} HTTP/1.1\r\n\r\n".format(server.port).encode())
    assert answer.startswith(b"HTTP/1.1 503 Service Unavailable (the tunnel has been down for ")
    assert 0.4 < time.monotonic() - began < 5
    assert agent.ask(b"GET http://127.0.0.1/ HTTP/1.1\r\n\r\n").startswith(b"HTTP/1.1 503 ")
    with agent.connect() as sock:
        sock.sendall(b"\5\1\0")
        sock.recv(2)
        sock.sendall(b"\5\1\0\1\x7f\0\0\1" + struct.pack(">H", server.port))
        assert sock.recv(10)[1] == 1
    status = until(lambda: agent.status() if not agent.status()["ready"] else None, "status says down")
    assert status["jump"] is None
    assert status["last_error"]
    own_jump.start()
    until(lambda: agent.status()["ready"], "it comes back by itself", 40)
    sock, head = agent.tunnel(server.target)
    sock.close()
    assert b" 200 " in head


def test_the_port_is_never_given_up(start_agent):
    agent = start_agent()
    stop = threading.Event()
    refused = []

    def knock():
        while not stop.is_set():
            try:
                socket.create_connection((agent.address, PORT), 5).close()
            except ConnectionRefusedError as error:
                refused.append(error)

    thread = threading.Thread(target=knock)
    thread.start()
    for _ in range(3):
        kill_ssh(agent)
        until(agent.ssh_pid, "the next ssh")
    stop.set()
    thread.join()
    assert refused == []
    with socket.socket() as other:
        with pytest.raises(OSError, match="in use"):
            other.bind((agent.address, PORT))


def test_many_requests_at_once_during_the_outage(start_agent, far_end):
    server = far_end(echo)
    agent = start_agent()
    kill_ssh(agent)
    socks = [agent.connect(20) for _ in range(60)]
    for sock in socks:
        sock.sendall("CONNECT 127.0.0.1:{} HTTP/1.1\r\n\r\n".format(server.port).encode())
    for sock in socks:
        with sock:
            assert read_head(sock).startswith(b"HTTP/1.1 200 ")


def test_an_ssh_that_hangs_is_replaced(start_agent):
    agent = start_agent(alive_interval_s=0.2, alive_count=2)
    pid = agent.ssh_pid()
    os.kill(pid, signal.SIGSTOP)
    until(lambda: agent.ssh_pid() not in (0, pid), "another ssh")
    until(lambda: agent.status().get("reconnects") == 1, "it is up")
    assert "does not answer on its control socket" in agent.log()


def test_the_second_jump_host_takes_over(start_agent, own_jump, jump_host):
    agent = start_agent([jump_of(own_jump, "first"), jump_of(jump_host, "second")])
    assert agent.lines() == ["ready c1 first"]
    own_jump.leave()
    kill_ssh(agent)
    until(lambda: agent.status().get("jump") == "second", "the second is used")


def test_a_state_directory_that_the_job_removed(start_agent, far_end):
    server = far_end(echo)
    agent = start_agent(access_log=True)
    for _ in range(2):
        shutil.rmtree(str(agent.state))
        kill_ssh(agent)
        sock, head = agent.tunnel(server.target)
        sock.close()
        assert head.startswith(b"HTTP/1.1 200 ")
        until(lambda: agent.status().get("ready"), "status.json is there")
        assert agent.status()["pid"] == agent.process.pid == int((agent.state / "pid").read_text().split()[0])
        assert os.stat(str(agent.state)).st_mode & 0o777 == 0o700
        assert "had been removed" in agent.log()
        agent.access()
    assert agent.stop() == 0
    assert not agent.state.exists()


def test_a_removed_state_directory_without_a_killed_ssh(start_agent, far_end):
    server = far_end(echo)
    agent = start_agent(alive_interval_s=0.2, alive_count=2)
    shutil.rmtree(str(agent.state))
    until(lambda: agent.status().get("ready"), "ssh was replaced")
    sock, head = agent.tunnel(server.target)
    sock.close()
    assert head.startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize("other", ["open", "link", "file", "foreign"])
def test_something_else_in_the_place_of_the_state_directory(start_agent, far_end, tmp_path, other):
    if other == "foreign" and os.getuid() != 0:
        pytest.skip("needs root, to give a directory to somebody else")
    server = far_end(echo)
    agent = start_agent(hold_s=0.2, retry_max_s=1)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir(mode=0o700)
    shutil.rmtree(str(agent.state))
    if other == "link":
        agent.state.symlink_to(elsewhere)
    elif other == "file":
        agent.state.write_text("")
    else:
        agent.state.mkdir(mode=0o755 if other == "open" else 0o700)
    if other == "foreign":
        os.chown(str(agent.state), 12345, 12345)
    kill_ssh(agent)
    request = "CONNECT {}:{} HTTP/1.1\r\n\r\n".format(*server.target).encode()
    until(lambda: str(agent.state).encode() in agent.ask(request), "the answer says why")
    assert os.listdir(str(elsewhere)) == []
    assert other == "file" or os.listdir(str(agent.state)) == []
    if agent.state.is_dir() and not agent.state.is_symlink():
        agent.state.rmdir()
    else:
        agent.state.unlink()
    until(lambda: agent.status().get("ready"), "it comes back by itself")


def test_what_took_the_place_of_the_state_directory_is_not_removed(start_agent):
    agent = start_agent()
    shutil.rmtree(str(agent.state))
    agent.state.mkdir(mode=0o755)
    (agent.state / "pid").write_text("mine")
    assert agent.stop() == 0
    assert os.listdir(str(agent.state)) == ["pid"]


def test_the_environment_for_shells_comes_back_too(tmp_path):
    path = tmp_path / "st"
    path.mkdir(mode=0o700)
    (path / "env").write_text("a\nb\n")
    held = directory.Folder(str(path))
    held.write_pid()
    assert not held.restore()
    shutil.rmtree(str(path))
    assert held.restore()
    assert (path / "env").read_text() == "a\nb\n"
    shutil.rmtree(str(path))
    tmp_path.rmdir()
    with pytest.raises(directory.BadFolder, match="cannot be made anew: No such file"):
        held.restore()
    tmp_path.mkdir()


def pauses(candidate, permanent, count):
    """Seconds until it is the candidate's turn, after each of `count` failures."""
    found = []
    for _ in range(count):
        candidate.failed(Verdict("layer", "reason", permanent))
        found.append(candidate.next_try - time.monotonic())
    return found


@pytest.mark.parametrize("longest", [1, 4, 600])
def test_retry_max_s_bounds_the_pauses(longest):
    passing = pauses(Candidate(Way("j", ("ssh",)), longest), False, 15)
    assert passing[0] <= 0.5
    assert 0.49 * longest < passing[-1] <= longest
    permanent = pauses(Candidate(Way("j", ("ssh",)), longest), True, 1)
    assert 0.49 * max(120, longest) < permanent[0] <= max(120, longest)
    flapping = Candidate(Way("j", ("ssh",)), longest)
    for _ in range(15):
        flapping.lost(1.0)
    assert 0.49 * longest < flapping.next_try - time.monotonic() <= longest


def test_retry_max_s_is_heeded(start_agent, tmp_path):
    agent = start_agent([jump_of(prepare(tmp_path / "j"), "j")], wait=False, retry_max_s=1, log_level="debug")
    # At half a second, and then a second at most, not 2, 4, 8; and as many starts of ssh.
    until(lambda: agent.log().count("connecting through") >= 8, "it tries again often", 12)

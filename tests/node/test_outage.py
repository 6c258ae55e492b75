"""ssh goes away and comes back: the port stays, requests wait, answers stay true."""

import os
import signal
import socket
import struct
import threading
import time

import pytest

from hpcproxy.node.settings import Jump
from hpcproxy.node.tunnel import Candidate, Verdict

from .harness import PORT, Sshd, echo, read_head, read_rest, until


@pytest.fixture
def own_jump(tmp_path):
    sshd = Sshd(tmp_path / "own").start()
    yield sshd
    sshd.stop()


def kill_ssh(agent):
    pid = until(agent.ssh_pid, "an ssh")
    os.kill(pid, signal.SIGKILL)
    until(lambda: agent.ssh_pid() != pid, "it is gone")


@pytest.mark.parametrize("port", [0, 8443])
def test_a_request_during_the_outage_is_held_and_served(start_agent, far_end, port):
    server = far_end(echo, port)
    agent = start_agent()
    for _ in range(3):
        kill_ssh(agent)
        sock, head = agent.tunnel(server.target)
        with sock:
            assert head.startswith(b"HTTP/1.1 200 ")
            sock.sendall(b"hello")
            assert sock.recv(10) == b"hello"
    until(lambda: agent.status().get("reconnects") == 3, "three reconnects are counted")
    assert agent.status()["held"] >= 1
    assert [line.split()[0] for line in agent.lines()] == ["ready"]


def test_what_was_under_way_is_broken_off(start_agent, far_end):
    agent = start_agent()
    for port in (0, 8443):
        server = far_end(echo, port)
        sock, _ = agent.tunnel(server.target)
        with sock:
            sock.sendall(b"hello")
            assert sock.recv(10) == b"hello"
            kill_ssh(agent)
            with pytest.raises(ConnectionResetError):
                read_rest(sock)


def test_503_says_how_long_and_why(start_agent, own_jump, far_end):
    server = far_end(echo)
    agent = start_agent([own_jump.jump()], hold_s=0.5)
    own_jump.stop()
    kill_ssh(agent)
    began = time.monotonic()
    answer = agent.ask("CONNECT 127.0.0.1:{} HTTP/1.1\r\n\r\n".format(server.port).encode())
    assert answer.startswith(b"HTTP/1.1 503 Service Unavailable (the way out has been down for ")
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
    agent = start_agent([own_jump.jump("first"), jump_host.jump("second")])
    assert agent.lines() == ["ready c1 first"]
    own_jump.stop()
    kill_ssh(agent)
    until(lambda: agent.status().get("jump") == "second", "the second is used")


def pauses(candidate, permanent, count):
    """Seconds until it is the candidate's turn, after each of `count` failures."""
    found = []
    for _ in range(count):
        candidate.failed(Verdict("layer", "reason", permanent))
        found.append(candidate.next_try - time.monotonic())
    return found


@pytest.mark.parametrize("longest", [1, 4, 600])
def test_retry_max_s_bounds_the_pauses(longest):
    passing = pauses(Candidate(Jump("j", ("ssh",)), longest), False, 15)
    assert passing[0] <= 0.5
    assert 0.49 * longest < passing[-1] <= longest
    permanent = pauses(Candidate(Jump("j", ("ssh",)), longest), True, 1)
    assert 0.49 * max(120, longest) < permanent[0] <= max(120, longest)
    flapping = Candidate(Jump("j", ("ssh",)), longest)
    for _ in range(15):
        flapping.lost(1.0)
    assert 0.49 * longest < flapping.next_try - time.monotonic() <= longest


def test_retry_max_s_is_heeded(start_agent, tmp_path):
    agent = start_agent([Sshd(tmp_path / "j").jump("j")], wait=False, retry_max_s=1)
    # At half a second, and then a second at most, not 2, 4, 8; and as many starts of ssh.
    until(lambda: agent.log().count("connecting through") >= 8, "it tries again often", 12)

"""What one client can cost: a slot for a while, and nothing else."""

import contextlib
import errno
import os
import random
import socket
import struct
import sys
import time

import pytest

from hpcproxy.node.io.loop import Loop
from hpcproxy.node.io.stream import Stream
from hpcproxy.node.proxy.entrance import Loopback
from hpcproxy.node.proxy.listener import Clients, bind
from hpcproxy.node.proxy.shared import Shared
from hpcproxy.node.state.access_log import Access
from hpcproxy.node.state.log import Journal
from hpcproxy.node.state.status import Record
from tests.node.harness import HANDED_OVER, OPENINGS, RELAYED, echo, read_head, read_rest
from tests.waiting import until

MANY = int(os.environ.get("HPCPROXY_CONNECTIONS", "3000"))


def limited(command):
    """Flags for an agent that runs under a limit of the shell's ulimit."""
    return {"python": "sh", "flags": ("-c", command + '; exec "$@"', "sh", sys.executable, "-I")}


def test_slow_and_silent_clients(agent):
    began = time.monotonic()
    with agent.connect(30) as silent, agent.connect(30) as slow, agent.connect(30) as socks:
        slow.sendall(b"CONNECT h:1 HTTP/1.1\r\nA: ")
        socks.sendall(b"\5\2\0")
        while time.monotonic() < began + 5:
            slow.sendall(b"x")
            assert not select_readable(slow, 0.2)
        assert read_rest(slow, 30).startswith(b"HTTP/1.1 408 ")
        assert read_rest(silent, 30) == b""
        assert read_rest(socks, 30) == b""
    assert 9 < time.monotonic() - began < 20


def select_readable(sock, seconds):
    import select

    return select.select([sock], [], [], seconds)[0]


def test_a_bound_on_connections(start_agent, far_end):
    server = far_end(echo)
    agent = start_agent(max_connections=5)
    held = [agent.tunnel(server.target)[0] for _ in range(5)]
    answer = agent.ask("CONNECT 127.0.0.1:{} HTTP/1.1\r\n\r\n".format(server.port).encode())
    assert answer.startswith(b"HTTP/1.1 503 Service Unavailable (5 connections are open, no more are allowed)")
    with agent.connect() as sock:
        sock.sendall(b"\5\1\0")
        sock.recv(2)
        sock.sendall(b"\5\1\0\1\x7f\0\0\1" + struct.pack(">H", server.port))
        assert sock.recv(10)[1] == 1
    crowd = [agent.connect() for _ in range(200)]
    for sock in held:
        sock.sendall(b"still served")
        assert sock.recv(100) == b"still served"
    for sock in crowd + held:
        sock.close()
    until(lambda: opens(agent, server), "the slots are free again")


def opens(agent, server):
    sock, head = agent.tunnel(server.target)
    sock.close()
    return b" 200 " in head


def test_few_descriptors(start_agent, far_end):
    server = far_end(echo)
    agent = start_agent(**limited("ulimit -n 400"))
    assert "the limit on descriptors allows 52 connections" in agent.log()
    socks = [agent.connect() for _ in range(300)]
    for sock in socks:
        sock.close()
    until(lambda: agent.status().get("active") == 0, "all are gone")
    held = []
    for _ in range(52):
        sock, head = agent.tunnel(server.target)
        held.append(sock)
        assert b" 200 " in head
    for sock in held:
        sock.close()


class FullOnce:
    """An epoll that has no room for the second descriptor: the listener's is the first, then the first client's."""

    def __init__(self, epoll):
        self.epoll, self.calls = epoll, 0

    def __getattr__(self, name):
        return getattr(self.epoll, name)

    def register(self, fd, events):
        self.calls += 1
        if self.calls == 2:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self.epoll.register(fd, events)


def test_a_client_that_cannot_be_watched_is_closed_alone(tmp_path):
    errors = []
    loop = Loop(errors.append)
    folder_fd, journal = os.open(str(tmp_path), os.O_RDONLY), Journal("1", "c1", "info", False)
    record = Record(loop, folder_fd, journal, ("127.0.0.1", 1), Access(journal, 0, False, False))
    listener = bind("127.0.0.1", 0)
    clients = Clients(loop, Shared(loop, None, None, record, Loopback(listener, os.getuid())), 10)
    answers = []

    async def ask():
        streams = [Stream(loop, socket.create_connection(listener.getsockname())) for _ in range(3)]
        loop.epoll = FullOnce(loop.epoll)
        loop.spawn(clients.accept())
        for stream in streams:
            stream.sock.send(b"nonsense\r\n\r\n")
            try:
                answers.append(await stream.recv(12, time.monotonic() + 10))
            except ConnectionResetError:
                answers.append(b"")
            stream.close()
        loop.stopping = True

    task = loop.spawn(ask())
    loop.run()
    loop.close()
    clients.close()
    assert (task.error, errors) == (None, [])
    assert answers == [b"", b"HTTP/1.1 400", b"HTTP/1.1 400"]
    assert (tmp_path / "log").read_text().count("a client could not be served: No space left on device") == 1


def test_a_full_disk(start_agent, far_end):
    server = far_end(echo)
    agent = start_agent(access_log=True, **limited("ulimit -f 1"))
    for _ in range(60):
        sock, head = agent.tunnel(server.target)
        sock.close()
        assert b" 200 " in head
    assert (agent.state / "access.log").stat().st_size <= 1024


def test_garbage(agent, far_end):
    server = far_end(echo)
    dice = random.Random(1)
    starts = [b"", b"\5", b"\4\1", b"\5\1\0", b"CONNECT ", b"GET http://", b"\5\1\0\5\1\0\3"]
    for _ in range(300):
        nonsense = dice.choice(starts) + bytes(dice.randrange(256) for _ in range(dice.randrange(60)))
        with agent.connect() as sock, contextlib.suppress(OSError):  # it may be thrown out before it is done
            sock.sendall(nonsense)
            if dice.random() < 0.5:
                sock.shutdown(socket.SHUT_WR)
    sock, head = agent.tunnel(server.target)
    sock.close()
    assert b" 200 " in head


def use(agent, kind, server, opening):
    if kind == "refused":
        assert b" 502 " in agent.ask(b"CONNECT 127.0.0.1:1 HTTP/1.1\r\n\r\n")
    elif kind == "bad":
        assert b" 400 " in agent.ask(b"nonsense\r\n\r\n")
    elif kind == "gone":
        agent.connect().close()
    elif kind == "http":
        answer = agent.ask("GET http://{}:{}/ HTTP/1.0\r\n\r\n".format(*server.target).encode())
        assert answer.startswith(b"HTTP/1.1 200 ")
    else:
        sock, head = agent.tunnel(server.target)
        with sock:
            assert b" 200 " in head
            sock.sendall(opening + b"/ HTTP/1.0\r\n\r\n")
            if kind == "answered":
                assert read_rest(sock).endswith(b"hello")


def test_connections_leave_nothing(start_agent, far_end):
    def serve(sock):
        read_head(sock)
        sock.sendall(b"HTTP/1.0 200 OK\r\n\r\nhello")

    relayed, handed_over = (far_end(serve), RELAYED), (far_end(serve), HANDED_OVER)
    agent = start_agent()
    kinds = ["refused", "bad", "gone", "http", "answered", "left"]

    def go(count):
        for index in range(count):
            use(agent, kinds[index % len(kinds)], *(relayed, handed_over)[index % 7 < 4])
        until(lambda: agent.status().get("active") == 0, "all are over")

    go(MANY // 5)
    # Timers of requests that are over go with their time, and the garbage with the next collection.
    fds, memory = agent.fds(), agent.memory_kb()
    go(MANY)
    until(lambda: agent.fds() <= fds + 4, "no descriptor is left")
    assert agent.memory_kb() - memory < 1500
    assert agent.memory_kb() < 25 * 1024
    ssh_fds = len(os.listdir("/proc/{}/fd".format(agent.ssh_pid())))
    assert ssh_fds < 40


@pytest.mark.parametrize("opening", OPENINGS)
def test_memory_with_500_connections(start_agent, far_end, opening):
    server = far_end(echo)
    agent = start_agent()
    assert agent.memory_kb() < 16 * 1024
    socks = [agent.tunnel(server.target)[0] for _ in range(500)]
    for sock in socks:
        sock.sendall(opening)
        assert sock.recv(100) == opening
    assert agent.memory_kb() < 25 * 1024
    for sock in socks:
        sock.close()

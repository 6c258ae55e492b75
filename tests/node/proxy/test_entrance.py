"""The Unix socket as an entrance: whom the file's mode and the kernel let in, and what they get there."""

import contextlib
import json
import os
import socket
import subprocess
import sys
import tempfile
import threading

import pytest

from hpcproxy.node.io.loop import Loop
from hpcproxy.node.proxy.entrance import Loopback, UnixSocket, bind_unix
from hpcproxy.node.proxy.listener import Clients, bind
from hpcproxy.node.proxy.shared import Shared
from hpcproxy.node.state.access_log import Access
from hpcproxy.node.state.log import Journal
from hpcproxy.node.state.settings import load
from hpcproxy.node.state.status import Record
from hpcproxy.node.upstream.dial import Connected
from tests.node.harness import HANDED_OVER, clean_environment, echo, read_head, read_rest
from tests.waiting import until

NOBODY = 65534
# Who has the rights to open it, and is somebody else, as "connected"; who has not, as "denied".
STRANGER = """
import os, socket, sys
os.setgid(65534)
os.setuid(65534)
sock = socket.socket(socket.AF_UNIX)
sock.settimeout(10)
try:
    sock.connect(sys.argv[1])
    sock.sendall(b"GET http://127.0.0.1:1/ HTTP/1.1\\r\\n\\r\\n")
    print("answered" if sock.recv(100) else "closed")
except PermissionError:
    print("denied")
except (BrokenPipeError, ConnectionResetError):
    print("closed")
"""
as_root = pytest.mark.skipif(os.getuid() != 0, reason="only root can be somebody else")


class Connects:
    """A tunnel that connects by itself, though it could take descriptors; `asked` has what it was given."""

    passes_fd = True

    def __init__(self):
        self.asked = []

    async def open(self, target, ends):
        self.asked.append(type(ends).__name__)
        return Connected(ends.join(socket.create_connection((target.host, target.port))))


class Served:
    """A loop in a thread that serves at `entrance`, until `stop`."""

    def __init__(self, folder, entrance):
        self.folder, self.entrance, self.tunnel = folder, entrance, Connects()
        self.errors, self.over = [], False
        config = folder / "agent.json"
        config.write_text(json.dumps({"version": 2, "ways": [{"kind": "direct"}], "failures": [], "closed": []}))
        self.loop = Loop(self.errors.append)
        journal = Journal("1", "c1", "info", False)
        access = Access(journal, 0, False, False)
        self.record = Record(self.loop, os.open(str(folder), os.O_RDONLY), journal, ("127.0.0.1", 1), access)
        shared = Shared(self.loop, load(str(config)), self.tunnel, self.record, entrance)
        self.clients = Clients(self.loop, shared, 10)
        self.loop.spawn(self.clients.accept())
        self.loop.spawn(self._until_over())
        self.thread = threading.Thread(target=self.loop.run)
        self.thread.start()

    async def _until_over(self):
        while not self.over:
            await self.loop.sleep(0.02)
        self.loop.stopping = True

    def log(self):
        with contextlib.suppress(FileNotFoundError):
            return (self.folder / "log").read_text()
        return ""

    def stop(self):
        self.over = True
        self.thread.join()
        self.loop.close()
        self.clients.close()
        assert self.errors == []


@pytest.fixture
def place():
    """Where everybody may come: the directories of tests are their user's only."""
    with tempfile.TemporaryDirectory(dir="/tmp") as directory:
        os.chmod(directory, 0o711)  # noqa: S103 - who is kept out is kept out by the socket
        yield os.path.join(directory, "entrance")


@pytest.fixture
def served(tmp_path, place):
    found = Served(tmp_path, UnixSocket(bind_unix(place), os.getuid()))
    yield found
    found.stop()


def connect(place):
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(10)
    sock.connect(place)
    return sock


def test_its_mode_is_its_users_from_the_first_moment_whatever_the_umask(place):
    before = os.umask(0)
    try:
        listener = bind_unix(place)
    finally:
        os.umask(before)
    with listener:
        assert os.stat(place).st_mode & 0o777 == 0o600
        with pytest.raises(OSError, match="Address already in use"):
            bind_unix(place)


def test_every_dialect_is_served_by_the_relay(served, place, far_end):
    server = far_end(echo)
    for _ in range(2):  # the second time it is known who speaks first
        with connect(place) as sock:
            sock.sendall("CONNECT {}:{} HTTP/1.1\r\n\r\n".format(*server.target).encode())
            assert read_head(sock).startswith(b"HTTP/1.1 200 ")
            sock.sendall(HANDED_OVER)
            assert sock.recv(100) == HANDED_OVER
            sock.shutdown(socket.SHUT_WR)
            assert read_rest(sock) == b""
    with connect(place) as sock:
        sock.sendall(b"\5\1\0")
        assert sock.recv(2) == b"\5\0"
        sock.sendall(b"\5\1\0\1" + socket.inet_aton(server.host) + server.port.to_bytes(2, "big"))
        assert sock.recv(10)[1] == 0
        sender = threading.Thread(target=lambda: (sock.sendall(b"x" * 3000000), sock.shutdown(socket.SHUT_WR)))
        sender.start()
        assert read_rest(sock) == b"x" * 3000000
        sender.join()
    assert served.tunnel.asked == ["Far"] * 3, "without counts nobody is handed over"


def test_plain_http_is_served_also_to_who_does_not_wait_for_the_first_answer(served, place, far_end):
    def serve(sock):
        while read_head(sock):
            sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")

    server = far_end(serve)
    request = "GET http://{}:{}/ HTTP/1.1\r\n".format(*server.target)
    with connect(place) as sock:
        sock.sendall((request + "\r\n" + request + "Connection: close\r\n\r\n").encode())
        assert read_rest(sock).count(b"\r\n\r\nhello") == 2


@as_root
@pytest.mark.parametrize("mode, what", [(0o600, "denied"), (0o777, "closed")])
def test_a_stranger_gets_nothing(served, place, mode, what):
    os.chmod(place, mode)
    words = [sys.executable, "-I", "-c", STRANGER, place]
    done = subprocess.run(words, stdout=subprocess.PIPE, env=clean_environment("/"), timeout=60, check=True)
    assert done.stdout.decode().split() == [what]
    if what == "closed":
        until(lambda: "refused uid {}".format(NOBODY) in served.log(), "it is said")
        assert served.record.refused == 1


def test_where_the_kernel_names_nobody_nobody_is_let_in(place):
    entrance = UnixSocket(bind_unix(place), os.getuid())
    with socket.socket() as lonely, connect(place), entrance.listener.accept()[0] as ours:
        assert entrance.admits(ours, "")
        assert entrance.owner() == "uid {}".format(os.getuid())
        assert not entrance.admits(lonely, "")
        assert entrance.owner() == "a connection whose owner the kernel does not name"
        lonely.close()
        assert not entrance.admits(lonely, "")
    entrance.close()


def pair(place, kind):
    """An entrance of that kind, a client's end and ours."""
    if kind is Loopback:
        entrance = Loopback(bind("127.0.0.1", 0), os.getuid())
        client = socket.create_connection(entrance.listener.getsockname(), 10)
    else:
        entrance = UnixSocket(bind_unix(place), os.getuid())
        client = connect(place)
    entrance.listener.setblocking(True)
    return entrance, client, entrance.listener.accept()[0]


@pytest.mark.parametrize("kind", [Loopback, UnixSocket])
def test_who_only_ends_his_sending_is_not_gone(place, kind):
    entrance, client, ours = pair(place, kind)
    with client, ours:
        assert not entrance.gone(ours)
        client.shutdown(socket.SHUT_WR)
        assert ours.recv(1) == b""
        assert not entrance.gone(ours)
        client.close()
        until(lambda: entrance.gone(ours), "it is gone")
    entrance.close()

"""The seam, proved by two: what a client sees is the same through ssh and by the node's own route."""

import contextlib
import os
import signal
import socket
import struct
import threading

import pytest

from hpcproxy.node.upstream.direct import has_route
from tests.node import namespace
from tests.node.bringing import REVERSE, Served, bring
from tests.node.harness import HANDED_OVER, OPENINGS, PORT, Agent, echo, jump_of, read_head, read_rest
from tests.sshd import prepare
from tests.waiting import until

KINDS = ["ssh", "direct", "reverse"]
DIRECT = [{"kind": "direct"}]
pytestmark = pytest.mark.skipif(not namespace.is_root(), reason="needs root, for a network namespace of its own")


@pytest.fixture(scope="module", autouse=True)
def network():
    with namespace.own_network():
        yield


@pytest.fixture(scope="module")
def names(network):
    server = namespace.NameServer()
    yield server
    server.close()


@pytest.fixture(scope="module")
def jump(tmp_path_factory, names):
    sshd = prepare(tmp_path_factory.mktemp("jump")).start()
    yield sshd
    sshd.stop()


@pytest.fixture(scope="module", params=KINDS)
def agent(request, tmp_path_factory, jump):
    """One agent of each kind for all tests that leave it as it is."""
    found = Agent(
        tmp_path_factory.mktemp(request.param),
        ways(request.param, jump),
        flags=("-I", "-X", "dev", "-W", "error"),
        deny=["denied.test", "203.0.113.0/24"],
        access_log=True,
        connect_timeout_s=8,  # glibc asks a name server that does not answer again after 5 s
        uid=1,
    ).start()
    with served(found, request.param, tmp_path_factory.mktemp("there"), jump):
        yield found.ready()
        assert found.stop() == 0
        assert found.err.read_text() == ""


def ways(kind, jump):
    return {"ssh": [jump_of(jump)], "direct": DIRECT, "reverse": REVERSE}[kind]


@contextlib.contextmanager
def served(agent, kind, folder, jump):
    """`agent` has what it gets out by: of reverse there is another agent and an ssh."""
    agent.kind, agent.other = kind, None
    with contextlib.ExitStack() as stack:
        if kind == "reverse":
            agent.other = Served(folder, DIRECT, connect_timeout_s=5).start().ready()
            stack.callback(agent.other.stop)

            def again():
                agent.brought = bring(jump, agent.other.socket, agent.state)
                stack.callback(agent.brought.stop)

            agent.bring_again = again
            again()
        yield


@pytest.fixture
def begin(start_agent, jump, tmp_path):
    """begin(kind, sshd, **settings) gives a ready agent of that kind for one test."""
    with contextlib.ExitStack() as stack:

        def start(kind, sshd=jump, **settings):
            found = start_agent(ways(kind, sshd), wait=False, **settings)
            stack.enter_context(served(found, kind, tmp_path / "there", sshd))
            return found.ready()

        yield start


def socks5(sock, kind, address, port):
    sock.sendall(b"\5\1\0")
    assert sock.recv(2) == b"\5\0"
    sock.sendall(struct.pack("BBBB", 5, 1, 0, kind) + address + struct.pack(">H", port))
    return sock.recv(10)[1]


def name(text):
    return bytes([len(text)]) + text.encode()


def test_every_dialect_opens(agent, far_end, names):
    names.names["echo.test"] = ["127.0.0.1"]
    server = far_end(echo)
    port = struct.pack(">H", server.port)
    opened = []
    for kind, address in ((1, b"\x7f\0\0\1"), (3, name("127.0.0.1")), (3, name("echo.test"))):
        opened.append(agent.connect())
        assert socks5(opened[-1], kind, address, server.port) == 0, names.why(agent)
    for request in (b"\4\1" + port + b"\x7f\0\0\1\0", b"\4\1" + port + b"\0\0\0\1\0echo.test\0"):
        opened.append(agent.connect())
        opened[-1].sendall(request)
        assert opened[-1].recv(8)[:2] == b"\0\x5a"
    for host in ("127.0.0.1", "echo.test", "ECHO.test."):
        sock, head = agent.tunnel((host, server.port))
        assert head.startswith(b"HTTP/1.1 200 ")
        opened.append(sock)
    for sock in opened:
        with sock:
            sock.sendall(b"hello")
            assert sock.recv(100) == b"hello"


@pytest.mark.parametrize(
    "host, status, code, words",
    [
        ("127.0.0.1", 502, 5, b"Connection refused"),
        ("nosuch.test", 502, 4, b"Name or service not known"),
        ("denied.test", 403, 2, b"deny denied.test"),
        ("203.0.113.9", 403, 2, b"deny 203.0.113.0/24"),
    ],
)
def test_why_not_is_said_truly_in_every_dialect(agent, names, host, status, code, words):
    start = "HTTP/1.1 {} ".format(status).encode()
    for request in ("CONNECT {}:1 HTTP/1.1\r\n\r\n", "GET http://{}:1/ HTTP/1.1\r\n\r\n"):
        answer = agent.ask(request.format(host).encode(), 30)
        assert answer.startswith(start)
        assert words in answer, names.why(agent)
    with agent.connect(30) as sock:
        assert socks5(sock, 3, name(host), 1) == code
    assert agent.ask(b"\4\1\0\1\0\0\0\1\0" + host.encode() + b"\0", 30)[:2] == b"\0\x5b"


def test_a_far_end_that_does_not_answer(agent):
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        with socket.create_connection(full.getsockname()):
            port = full.getsockname()[1]
            answer = agent.ask("CONNECT 127.0.0.1:{} HTTP/1.1\r\n\r\n".format(port).encode(), 30)
    assert answer.startswith(b"HTTP/1.1 504 Gateway Timeout (no answer from the far end)")


def test_a_far_end_that_speaks_first_comes_after_our_answer(agent, far_end):
    def banner(sock):
        sock.sendall(b"SSH-2.0-x\r\n")
        sock.sendall(b"got " + sock.recv(100))

    server = far_end(banner)
    for _ in range(20):
        sock, head = agent.tunnel(server.target)
        with sock:
            assert (head, sock.recv(100)) == (b"HTTP/1.1 200 Connection established\r\n\r\n", b"SSH-2.0-x\r\n")
            sock.sendall(b"hi")
            assert read_rest(sock) == b"got hi"


@pytest.mark.parametrize("opening", OPENINGS)
def test_either_end_may_end_first(agent, far_end, opening):
    def count(sock):
        sock.sendall(str(len(read_rest(sock))).encode())

    def answer_and_close(sock):
        sock.recv(100)
        sock.sendall(b"x" * 3000000)

    sock, _ = agent.tunnel(far_end(count).target)
    with sock:
        sock.sendall(opening + b"y" * 3000000)
        sock.shutdown(socket.SHUT_WR)
        assert read_rest(sock) == str(3000000 + len(opening)).encode()
    sock, _ = agent.tunnel(far_end(answer_and_close).target)
    with sock:
        sock.sendall(opening)
        assert read_rest(sock) == b"x" * 3000000


def test_much_both_ways_at_once_arrives_whole(agent, far_end):
    sock, _ = agent.tunnel(far_end(echo).target)
    sent = os.urandom(1 << 20) * 24
    with sock:
        sender = threading.Thread(target=lambda: (sock.sendall(sent), sock.shutdown(socket.SHUT_WR)))
        sender.start()
        assert read_rest(sock, 60) == sent
        sender.join()


def serve_http(sock):
    """Three responses on one connection: the body's length said, chunked, and by the end."""
    for answer in (
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nfirst",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n6\r\nsecond\r\n0\r\n\r\n",
        b"HTTP/1.0 200 OK\r\n\r\nthird",
    ):
        head = read_head(sock)
        if head.startswith(b"POST "):
            assert sock.recv(4, socket.MSG_WAITALL) == b"body"
        sock.sendall(answer)


def test_plain_http_on_one_connection(agent, far_end):
    server = far_end(serve_http)
    request = "{} http://{}:{}/ HTTP/1.1\r\n{}\r\n"
    with agent.connect() as sock:
        sock.sendall(request.format("GET", *server.target, "").encode())
        assert read_head(sock).startswith(b"HTTP/1.1 200 OK\r\n")
        assert sock.recv(5, socket.MSG_WAITALL) == b"first"
        sock.sendall(request.format("POST", *server.target, "Content-Length: 4\r\n").encode() + b"body")
        assert b"chunked" in read_head(sock)
        assert sock.recv(16, socket.MSG_WAITALL).endswith(b"second\r\n0\r\n\r\n")
        sock.sendall(request.format("GET", *server.target, "").encode())
        assert read_rest(sock).endswith(b"\r\n\r\nthird")
    assert server.connections == 1


def broken_off(agent, far_end, answer):
    """A far end that says `answer` and is then lost: with its ssh, or by a reset of its own."""
    gone = threading.Event()

    def serve(sock):
        sock.recv(1000)
        sock.sendall(answer)
        gone.wait(30)
        if agent.kind != "ssh":
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            sock.close()

    server = far_end(serve)

    def lose():
        if agent.kind == "ssh":
            os.kill(agent.ssh_pid(), signal.SIGKILL)
        gone.set()

    return server, lose


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("opening", OPENINGS)
def test_what_breaks_off_never_looks_whole(begin, far_end, kind, opening):
    agent = begin(kind)
    server, lose = broken_off(agent, far_end, b"half")
    sock, _ = agent.tunnel(server.target)
    with sock:
        sock.sendall(opening)
        assert sock.recv(4, socket.MSG_WAITALL) == b"half"
        lose()
        with pytest.raises(ConnectionResetError):
            read_rest(sock)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("head", [b"HTTP/1.0 200 OK\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n"])
def test_a_response_that_breaks_off_never_looks_whole(begin, far_end, kind, head):
    agent = begin(kind, access_log=True)
    server, lose = broken_off(agent, far_end, head + b"half")
    with agent.connect() as sock:
        sock.sendall("GET http://{}:{}/ HTTP/1.1\r\n\r\n".format(*server.target).encode())
        read_head(sock)
        assert sock.recv(4, socket.MSG_WAITALL) == b"half"
        lose()
        with pytest.raises(ConnectionResetError):
            read_rest(sock)
    assert agent.access()[0].endswith("the jump host was lost" if kind == "ssh" else "the far end was lost")


class Outage:
    """The tunnel goes, and comes back."""

    def __init__(self, agent, sshd):
        self.agent, self.sshd = agent, sshd

    def begin(self):
        if self.agent.kind == "direct":
            namespace.set_route(False)
        elif self.agent.kind == "reverse":
            self.agent.brought.stop()
        else:
            self.sshd.leave()
            os.kill(self.agent.ssh_pid(), signal.SIGKILL)
        until(lambda: not self.agent.status()["ready"], "it is down", 30)

    def end(self):
        if self.agent.kind == "direct":
            namespace.set_route(True)
        elif self.agent.kind == "reverse":
            self.agent.bring_again()
        else:
            self.sshd.start()


DOWN = {
    "ssh": b"nobody listens at the jump host",
    "direct": b"no route to the internet",
    "reverse": b"what brought the tunnel here has ended",
}


@pytest.mark.parametrize("kind", KINDS)
def test_requests_are_held_over_an_outage_and_told_if_it_is_long(begin, tmp_path, far_end, kind):
    sshd = prepare(tmp_path / "own").start()
    server = far_end(echo)
    agent = begin(kind, sshd, hold_s=4, alive_interval_s=0.2, retry_max_s=1, connect_timeout_s=2)
    outage = Outage(agent, sshd)
    outage.begin()
    try:
        answer = agent.ask("CONNECT {}:{} HTTP/1.1\r\n\r\n".format(*server.target).encode(), 30)
        assert answer.startswith(b"HTTP/1.1 503 Service Unavailable (the tunnel has been down for ")
        assert DOWN[kind] in answer
        with agent.connect(30) as sock:
            sock.sendall("CONNECT {}:{} HTTP/1.1\r\n\r\n".format(*server.target).encode())
            until(lambda: agent.status()["held"] == 2, "it is held")
            outage.end()
            assert read_head(sock).startswith(b"HTTP/1.1 200 ")
    finally:
        if not has_route():
            namespace.set_route(True)
        sshd.stop()
    until(lambda: agent.status()["reconnects"] == 1, "it is up again")


@pytest.mark.parametrize("kind", KINDS)
def test_a_state_directory_that_the_job_removed_comes_back(begin, far_end, kind):
    import shutil

    agent = begin(kind, alive_interval_s=0.2, alive_count=2)
    shutil.rmtree(str(agent.state))
    if kind == "reverse":
        until(agent.status, "the directory is there")
        agent.bring_again()
    until(lambda: agent.status().get("ready"), "status.json is there")
    sock, head = agent.tunnel(far_end(echo).target)
    sock.close()
    assert head.startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize("uid, said", [(1, b"HTTP/1.1 "), (4321, b"")])
def test_a_second_user_does_not_get_through(agent, far_end, uid, said):
    server = far_end(echo)
    os.seteuid(uid)  # of the socket's maker, whom the kernel names
    try:
        sock = socket.socket()
    finally:
        os.seteuid(0)
    with sock:
        sock.settimeout(10)
        sock.connect((agent.address, PORT))
        with contextlib.suppress(ConnectionError):  # who is thrown out at once
            sock.sendall("CONNECT {}:{} HTTP/1.1\r\n\r\n".format(*server.target).encode())
            assert sock.recv(9) == said
    if said:
        until(lambda: server.connections == 1, "it was taken there")
    else:
        assert server.connections == 0


@pytest.mark.parametrize("kind", KINDS)
def test_what_it_costs(begin, far_end, kind):
    agent = begin(kind)
    assert agent.memory_kb() < 16 * 1024
    fds = agent.fds()
    for _ in range(40):
        sock, _ = agent.tunnel(far_end(echo).target)
        sock.sendall(HANDED_OVER)
        assert sock.recv(100) == HANDED_OVER
        sock.close()
    until(lambda: agent.status().get("active") == 0, "all are over")
    # ssh keeps a few connections to its control socket in advance.
    until(lambda: agent.fds() <= fds + 10, "no descriptor is left")


def test_ways_of_two_kinds_take_turns(start_agent, tmp_path, far_end):
    dead = prepare(tmp_path / "dead")
    agent = start_agent([jump_of(dead, "dead"), *DIRECT])
    assert agent.lines()[-1] == "ready c1 direct"
    server = far_end(echo)
    for _ in range(3):
        sock, head = agent.tunnel(server.target)
        with sock:
            assert head.startswith(b"HTTP/1.1 200 ")
            sock.sendall(HANDED_OVER)
            assert sock.recv(100) == HANDED_OVER

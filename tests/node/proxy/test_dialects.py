"""Every dialect, every answer, against a real ssh and a real sshd."""

import socket
import struct
import subprocess

import pytest

from hpcproxy.node.proxy.replies import CONNECTED
from tests.node.harness import HANDED_OVER, OPENINGS, clean_environment, echo, jump_of, read_head, read_rest
from tests.servers import free_port
from tests.sshd import prepare
from tests.waiting import until


def socks5(sock, kind, address, port, command=1, methods=b"\0"):
    sock.sendall(b"\5" + bytes([len(methods)]) + methods)
    assert sock.recv(2) == b"\5\0"
    sock.sendall(struct.pack("BBBB", 5, command, 0, kind) + address + struct.pack(">H", port))
    return read_rest(sock) if command != 1 else sock.recv(10)


def name(text):
    return bytes([len(text)]) + text.encode()


IPV4 = socket.inet_aton("127.0.0.1")


@pytest.mark.parametrize("methods", [b"\0", b"\0\1", b"\0\2", b"\2\0\1"])
@pytest.mark.parametrize("kind, address", [(1, IPV4), (3, name("127.0.0.1")), (3, name("localhost"))])
def test_socks5_connects(agent, far_end, methods, kind, address):
    server = far_end(echo)
    with agent.connect() as sock:
        assert socks5(sock, kind, address, server.port, methods=methods) == b"\5\0\0\1\0\0\0\0\0\0"
        sock.sendall(b"hello")
        assert sock.recv(100) == b"hello"


def test_socks5_connects_to_ipv6(agent, far_end):
    try:
        server = far_end_v6(far_end)
    except OSError:
        pytest.skip("this kernel has no IPv6")
    with agent.connect() as sock:
        assert socks5(sock, 4, socket.inet_pton(socket.AF_INET6, "::1"), server.port)[1] == 0
        sock.sendall(b"hello")
        assert sock.recv(100) == b"hello"


def far_end_v6(far_end):
    import socketserver

    family = socketserver.TCPServer.address_family
    socketserver.TCPServer.address_family = socket.AF_INET6
    try:
        return far_end(echo, host="::1")
    finally:
        socketserver.TCPServer.address_family = family


@pytest.mark.parametrize(
    "kind, address, port, command, code",
    [
        (1, IPV4, 1, 1, 5),
        (3, name("nosuch.invalid"), 80, 1, 4),
        (3, name("denied.example"), 80, 1, 2),
        (1, socket.inet_aton("10.1.2.3"), 80, 1, 2),
        (3, name("localhost"), 0, 1, 1),
        (3, name("a b"), 80, 1, 1),
        (3, name(""), 80, 1, 1),
        (1, IPV4, 80, 2, 7),
        (1, IPV4, 80, 3, 7),
        (1, IPV4, 80, 9, 7),
        (9, IPV4, 80, 1, 8),
    ],
)
def test_socks5_says_why_not(agent, kind, address, port, command, code):
    with agent.connect() as sock:
        assert socks5(sock, kind, address, port, command)[:2] == bytes([5, code])
        assert read_rest(sock) == b""


def test_socks5_without_an_acceptable_method(agent):
    assert agent.ask(b"\5\1\2") == b"\5\xff"


@pytest.mark.parametrize("tail", [b"", b"user"])
def test_socks4(agent, far_end, tail):
    server = far_end(echo)
    with agent.connect() as sock:
        sock.sendall(b"\4\1" + struct.pack(">H", server.port) + IPV4 + tail + b"\0")
        assert sock.recv(8) == b"\0\x5a" + b"\0" * 6
        sock.sendall(b"hello")
        assert sock.recv(100) == b"hello"


def test_socks4a(agent, far_end):
    server = far_end(echo)
    with agent.connect() as sock:
        sock.sendall(b"\4\1" + struct.pack(">H", server.port) + b"\0\0\0\1user\0localhost\0")
        assert sock.recv(8)[:2] == b"\0\x5a"


@pytest.mark.parametrize(
    "request_", [b"\4\1\0\1" + IPV4 + b"\0", b"\4\2\0\1" + IPV4 + b"\0", b"\4\1\0\1\0\0\0\1\0a b\0"]
)
def test_socks4_says_no(agent, request_):
    assert agent.ask(request_)[:2] == b"\0\x5b"


@pytest.mark.parametrize(
    "target, status",
    [
        ("127.0.0.1:1", "502 Bad Gateway (Connection refused)"),
        (
            "denied.example:443",
            "403 Forbidden (denied.example:443 is denied by the rules of this tunnel (deny denied.example))",
        ),
        ("DENIED.example.:443", "403 "),
        ("10.1.2.3:443", "403 "),
        ("0xa.1:443", "403 "),
        ("host", "400 "),
        ("host:0", "400 "),
        ("host:65536", "400 "),
        ("host:x", "400 "),
        ("a/b:80", "400 "),
        ("::1:80", "400 "),
        ("[::1:80", "400 "),
        ("[nonsense]:80", "400 "),
        ("-oProxyCommand=x:80", "400 "),
    ],
)
def test_connect_says_why_not(agent, target, status):
    answer = agent.ask("CONNECT {} HTTP/1.1\r\n\r\n".format(target).encode()).decode()
    assert answer.startswith("HTTP/1.1 " + status)
    head, _, body = answer.partition("\r\n\r\n")
    assert "Content-Length: {}\r\n".format(len(body)) in head + "\r\n"


def test_connect_says_what_the_jump_hosts_resolver_says(agent):
    """Which is this machine's: with a name server no such name, without one a failure."""
    with pytest.raises(socket.gaierror) as known:
        socket.getaddrinfo("nosuch.invalid", 443)
    answer = agent.ask(b"CONNECT nosuch.invalid:443 HTTP/1.1\r\n\r\n").decode()
    assert answer.startswith("HTTP/1.1 502 Bad Gateway ({})".format(known.value.strerror))


def test_a_far_end_that_does_not_answer(agent):
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        with socket.create_connection(full.getsockname()):  # its queue is full now: it does not answer the next
            port = full.getsockname()[1]
            assert agent.ask("CONNECT 127.0.0.1:{} HTTP/1.1\r\n\r\n".format(port).encode()).startswith(b"HTTP/1.1 504 ")
            with agent.connect() as sock:
                assert socks5(sock, 1, IPV4, port)[1] == 6


def test_a_jump_host_that_forbids_the_target(start_agent, tmp_path, far_end):

    server = far_end(echo)
    sshd = prepare(tmp_path / "limited", "PermitOpen 127.0.0.1:1").start()
    try:
        agent = start_agent([jump_of(sshd)])
        answer = agent.ask("CONNECT 127.0.0.1:{} HTTP/1.1\r\n\r\n".format(server.port).encode())
        assert answer.startswith(b"HTTP/1.1 502 Bad Gateway (administratively prohibited")
        with agent.connect() as sock:
            assert socks5(sock, 1, IPV4, server.port)[1] == 2
    finally:
        sshd.stop()


@pytest.mark.parametrize(
    "head", [b"CONNECT {} HTTP/1.0\r\n\r\n", b"CONNECT {} HTTP/1.1\r\nHost: y\r\nContent-Length: 0\r\n\r\n"]
)
def test_connect_with_bytes_sent_ahead(agent, far_end, head):
    server = far_end(echo)
    early = b"\x16\x03 sent before the answer"
    with agent.connect() as sock:
        sock.sendall(head.replace(b"{}", "{}:{}".format(*server.target).encode()) + early)
        assert read_head(sock).startswith(b"HTTP/1.1 200 ")
        assert sock.recv(100) == early
        sock.sendall(b"more")
        assert sock.recv(100) == b"more"


@pytest.mark.parametrize("port", [0, 8443, 8080])
def test_a_server_that_speaks_first_never_comes_before_our_answer(agent, far_end, port):
    def banner(sock):
        sock.sendall(b"SSH-2.0-x\r\n")
        sock.sendall(b"got " + sock.recv(100))

    server = far_end(banner, port)
    for _ in range(50):
        with agent.connect() as sock:
            sock.sendall("CONNECT {}:{} HTTP/1.1\r\n\r\n".format(*server.target).encode())
            head, answer = read_head(sock), sock.recv(100)
            sock.sendall(b"hi")
            assert (head, answer, read_rest(sock)) == (
                b"HTTP/1.1 200 Connection established\r\n\r\n",
                b"SSH-2.0-x\r\n",
                b"got hi",
            )


def test_one_that_speaks_first_only_after_it_was_learned_is_broken_off_and_relayed_from_then_on(agent, far_end):
    """It waits for TLS the first time, and never again: the worst that a far end can do to our order."""
    seen = []

    def turncoat(sock):
        seen.append(1)
        if len(seen) > 2:
            sock.sendall(b"HTTP/1.1 200 forged\r\n\r\n")
        sock.sendall(b"got " + sock.recv(100))

    server = far_end(turncoat)
    sock, head = agent.tunnel(server.target)
    with sock:
        sock.sendall(HANDED_OVER)
        assert read_rest(sock) == b"got " + HANDED_OVER
    wrong = 0
    for _ in range(20):
        with agent.connect() as sock:
            sock.sendall("CONNECT {}:{} HTTP/1.1\r\n\r\n".format(*server.target).encode())
            try:
                head, rest = read_head(sock), sock.recv(100)
            except ConnectionError:
                wrong += 1
            else:
                wrong += (head, rest) != (CONNECTED, b"HTTP/1.1 200 forged\r\n\r\n")
    assert wrong <= 1


@pytest.mark.parametrize("opening", OPENINGS)
def test_a_far_end_that_takes_one_connection_only_is_served(agent, opening):
    """As `nc -l` and an FTP server's data port are: there is no second connection to hand over."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        sock, head = agent.tunnel(server.getsockname())
        with sock, server.accept()[0] as far:
            server.close()
            assert b" 200 " in head
            sock.sendall(opening + b"hello")
            far.settimeout(10)
            heard = far.recv(100)
            far.sendall(b"heard")
            assert (heard, sock.recv(100)) == (opening + b"hello", b"heard")


@pytest.mark.parametrize("opening", OPENINGS)
def test_the_far_ends_end_is_the_clients_end(agent, far_end, opening):
    def answer_and_close(sock):
        sock.recv(100)
        sock.sendall(b"x" * 300000)

    server = far_end(answer_and_close)
    sock, head = agent.tunnel(server.target)
    with sock:
        assert b" 200 " in head
        sock.sendall(opening + b"x")
        assert read_rest(sock) == b"x" * 300000


@pytest.mark.parametrize("opening", OPENINGS)
def test_the_clients_end_is_passed_on(agent, far_end, opening):
    def read_all(sock):
        sock.sendall(str(len(read_rest(sock))).encode())

    server = far_end(read_all)
    sock, _ = agent.tunnel(server.target)
    with sock:
        sock.sendall(opening + b"y" * 200000)
        sock.shutdown(socket.SHUT_WR)
        assert read_rest(sock) == str(200000 + len(opening)).encode()


def test_a_far_end_that_closes_at_once(agent, far_end):
    server = far_end(lambda sock: None)
    for _ in range(20):
        sock, head = agent.tunnel(server.target)
        with sock:
            assert head == b"HTTP/1.1 200 Connection established\r\n\r\n"
            assert read_rest(sock) == b""


@pytest.mark.parametrize("opening", OPENINGS)
def test_the_access_log_counts_what_was_moved(agent, far_end, opening):
    def swallow_and_answer(sock):
        left = 100000
        while left:
            left -= len(sock.recv(left))
        sock.sendall(b"z" * 70000)

    server = far_end(swallow_and_answer)
    sock, _ = agent.tunnel(server.target)
    with sock:
        sock.sendall(opening.ljust(100000, b"u"))
        read_rest(sock)
    mine = "{}:{} ".format(*server.target)

    line = until(
        lambda: [each for each in agent.access() if mine in each and " 100000 " in each], "a line for " + mine
    )[-1]
    assert line.split()[1:4] == [mine.strip(), "100000", "70000"]
    assert line.endswith(" ok")


@pytest.mark.parametrize(
    "data, status",
    [
        (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"GET http://h/ HTTP/2.0\r\n\r\n", 505),
        (b"GET https://h/ HTTP/1.1\r\n\r\n", 501),
        (b"GET ftp://h/ HTTP/1.1\r\n\r\n", 501),
        (b"GET http://u:p@h/ HTTP/1.1\r\n\r\n", 400),
        (b"GET http://::1:3080/ HTTP/1.1\r\n\r\n", 400),
        (b"nonsense\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00", 400),
        (b"\r\n\r\nGET http://h/ HTTP/1.1\r\n\r\n", 400),
        (b"GET http://h/ HTTP/1.1\nHost: h\n\n", 400),
        (b"GET http://h/ HTTP/1.1\r\nA: b\r\n folded\r\n\r\n", 400),
        (b"GET http://h/ HTTP/1.1\r\nA : b\r\n\r\n", 400),
        (b"GET http://h/ HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
        (b"POST http://h/ HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
        (b"POST http://h/ HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n", 400),
        (b"POST http://h/ HTTP/1.1\r\nContent-Length: +1\r\n\r\n", 400),
        (b"POST http://h/ HTTP/1.1\r\nContent-Length: 1, 1\r\n\r\n", 400),
        (b"POST http://h/ HTTP/1.1\r\nTransfer-Encoding: xchunked\r\n\r\n", 501),
        (b"POST http://h/ HTTP/1.1\r\nTransfer-Encoding: chunked, identity\r\n\r\n", 501),
        (b"POST http://h/ HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
        (b"CONNECT h:1 HTTP/1.1\r\nContent-Length: 5\r\n\r\n", 400),
        (b"GET http://h/ HTTP/1.1\r\nA: " + b"b" * 80000, 431),
        (b"GET http://127.0.0.1:1/ HTTP/1.1\r\n\r\n", 502),
        (b"GET http://nosuch.invalid/ HTTP/1.1\r\n\r\n", 502),
        (b"GET http://denied.example/ HTTP/1.1\r\n\r\n", 403),
    ],
)
def test_statuses(agent, data, status):
    assert agent.ask(data).startswith("HTTP/1.1 {} ".format(status).encode())


@pytest.mark.parametrize("scheme", ["http", "socks4", "socks4a", "socks5", "socks5h"])
def test_curl(agent, far_end, scheme, tmp_path):
    def serve(sock):
        read_head(sock)
        sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello")

    server = far_end(serve)
    proxy = agent.proxy.replace("http", scheme)
    command = ["curl", "-q", "-sS", "--max-time", "10", "--proxy", proxy, "http://127.0.0.1:{}/".format(server.port)]
    for extra in ([], ["--proxytunnel"]):
        done = subprocess.run(command + extra, env=clean_environment(tmp_path), stdout=subprocess.PIPE, check=True)
        assert done.stdout == b"hello"


def test_an_unused_port_is_refused_truly(agent):
    sock, head = agent.tunnel(("127.0.0.1", free_port()))
    sock.close()
    assert b" 502 " in head

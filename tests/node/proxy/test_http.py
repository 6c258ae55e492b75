"""Absolute-form requests: what arrives at the far end, what comes back, and on which connections."""

import socket
import time

import pytest

from hpcproxy.node.proxy.forward import LOOK_S
from tests.node.harness import read_head, read_rest
from tests.waiting import until


def recorder(answers, heads):
    """A far end that keeps each request head and gives the next answer, connection by connection."""

    def serve(sock):
        while True:
            head = read_head(sock)
            if not head:
                return
            heads.append(head)
            answer = answers.pop(0) if answers else b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n"
            sock.sendall(answer)
            if b"Content-Length" not in answer and b"chunked" not in answer:
                return

    return serve


def ok(body=b"hello", extra=b""):
    return b"HTTP/1.1 200 OK\r\n" + extra + b"Content-Length: %d\r\n\r\n" % len(body) + body


def get(server, path="/", extra="", version="1.1", method="GET"):
    return "{} http://{}:{}{} HTTP/{}\r\n{}\r\n".format(method, server.host, server.port, path, version, extra).encode()


def test_the_far_end_sees_an_ordinary_request(agent, far_end):
    heads = []
    server = far_end(recorder([ok()], heads))
    hop = "Host: other\r\nConnection: close, X-Private\r\nProxy-Connection: close\r\nKeep-Alive: 5\r\nTE: trailers\r\n"
    hop += "X-Private: 1\r\nProxy-Authorization: Basic eDp5\r\nX-Kept: a b\r\n"
    answer = agent.ask(get(server, "/p?q=1", hop))
    assert answer == b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello"
    assert heads == ["GET /p?q=1 HTTP/1.1\r\nHost: {}:{}\r\nX-Kept: a b\r\n\r\n".format(*server.target).encode()]


def test_two_requests_go_over_one_connection(agent, far_end):
    heads = []
    server = far_end(recorder([ok(b"one"), ok(b"two")], heads))
    with agent.connect() as sock:
        for body in (b"one", b"two"):
            sock.sendall(get(server))
            assert b"Connection" not in read_head(sock)
            assert sock.recv(3) == body
    assert (len(heads), server.connections) == (2, 1)


def test_pipelined_requests_are_answered_in_order(agent, far_end):
    server = far_end(recorder([ok(b"one"), ok(b"two")], []))
    answer = agent.ask(get(server) + get(server, extra="Connection: close\r\n"))
    assert answer.index(b"one") < answer.index(b"two")


def test_a_kept_connection_that_the_far_end_closes_meanwhile(agent, far_end):
    def serve(sock):
        read_head(sock)
        sock.sendall(ok())

    server = far_end(serve)
    with agent.connect() as sock:
        for _ in range(5):
            sock.sendall(get(server))
            assert read_head(sock).startswith(b"HTTP/1.1 200 ")
            assert sock.recv(5) == b"hello"


def test_http_10_without_keep_alive_is_closed(agent, far_end):
    server = far_end(recorder([ok()], []))
    assert agent.ask(get(server, version="1.0")).endswith(b"Connection: close\r\n\r\nhello")


def test_http_10_with_keep_alive(agent, far_end):
    heads = []
    server = far_end(recorder([ok(), ok()], heads))
    with agent.connect() as sock:
        for _ in range(2):
            sock.sendall(get(server, version="1.0", extra="Connection: keep-alive\r\n"))
            assert b"\r\nConnection: keep-alive\r\n" in read_head(sock)
            assert sock.recv(5) == b"hello"
    assert all(b" HTTP/1.0\r\n" in head for head in heads)


def test_a_response_that_ends_with_the_connection(agent, far_end):
    server = far_end(recorder([b"HTTP/1.0 200 OK\r\nX: y\r\n\r\nall of it"], []))
    assert agent.ask(get(server)) == b"HTTP/1.1 200 OK\r\nX: y\r\nConnection: close\r\n\r\nall of it"


@pytest.mark.parametrize("method, status", [("HEAD", 200), ("GET", 204), ("GET", 304)])
def test_responses_without_a_body(agent, far_end, method, status):
    line = "HTTP/1.1 {} X\r\nContent-Length: 5\r\n\r\n".format(status).encode()
    server = far_end(recorder([line, ok(b"next!")], []))
    with agent.connect() as sock:
        sock.sendall(get(server, method=method))
        assert read_head(sock).startswith("HTTP/1.1 {} ".format(status).encode())
        sock.sendall(get(server))
        read_head(sock)
        assert sock.recv(5) == b"next!"


def test_chunks_both_ways(agent, far_end):
    body = b"5\r\nhello\r\n6;x=y\r\n world\r\n0\r\nTrailer: t\r\n\r\n"
    seen = []

    def serve(sock):
        read_head(sock)
        data = b""
        while not data.endswith(b"\r\n\r\n"):
            data += sock.recv(1000)
        seen.append(data)
        sock.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + data)
        sock.recv(1)

    server = far_end(serve)
    with agent.connect() as sock:
        sock.sendall(get(server, method="POST", extra="Transfer-Encoding: chunked\r\n"))
        for index in range(len(body)):
            sock.sendall(body[index : index + 1])
        assert b"Transfer-Encoding: chunked\r\n" in read_head(sock)
        data = b""
        while not data.endswith(b"\r\n\r\n"):
            data += sock.recv(1000)
    assert (data, seen) == (body, [body])


def test_a_large_upload_and_download(agent, far_end):
    size = 3000000

    def serve(sock):
        read_head(sock)
        left = size
        while left:
            left -= len(sock.recv(min(left, 65536)))
        sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size + b"d" * size)

    server = far_end(serve)
    with agent.connect() as sock:
        sock.sendall(get(server, method="PUT", extra="Content-Length: {}\r\nConnection: close\r\n".format(size)))
        sock.sendall(b"u" * size)
        assert read_head(sock).startswith(b"HTTP/1.1 200 ")
        assert read_rest(sock) == b"d" * size


def test_expect_100_continue(agent, far_end):
    def serve(sock):
        assert b"Expect: 100-continue" in read_head(sock)
        sock.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        sock.sendall(ok(b"got " + sock.recv(100)))

    server = far_end(serve)
    with agent.connect() as sock:
        sock.sendall(get(server, method="POST", extra="Expect: 100-continue\r\nContent-Length: 4\r\n"))
        assert read_head(sock) == b"HTTP/1.1 100 Continue\r\n\r\n"
        sock.sendall(b"body")
        assert read_head(sock).startswith(b"HTTP/1.1 200 ")
        assert sock.recv(100) == b"got body"


def test_an_answer_before_the_body_is_sent(agent, far_end):
    def serve(sock):
        read_head(sock)
        sock.sendall(b"HTTP/1.1 417 No\r\nContent-Length: 0\r\n\r\n")
        sock.recv(1)

    server = far_end(serve)
    answer = agent.ask(get(server, method="POST", extra="Expect: 100-continue\r\nContent-Length: 4\r\n"))
    assert answer.startswith(b"HTTP/1.1 417 No\r\n")


def test_websocket_upgrade(agent, far_end):
    def serve(sock):
        head = read_head(sock)
        assert b"\r\nUpgrade: websocket\r\n" in head
        assert b"\r\nConnection: Upgrade\r\n" in head
        sock.sendall(b"HTTP/1.1 101 Switching\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-X: y\r\n\r\nfirst")
        sock.sendall(sock.recv(100))

    server = far_end(serve)
    with agent.connect() as sock:
        sock.sendall(get(server, extra="Connection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n"))
        head = read_head(sock)
        assert head.startswith(b"HTTP/1.1 101 ")
        assert b"\r\nUpgrade: websocket\r\n" in head
        assert sock.recv(5) == b"first"
        sock.sendall(b"frame")
        assert read_rest(sock) == b"frame"


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"nonsense\r\n\r\n",
        b"SSH-2.0-x\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"HTTP/1.1 101 Switching\r\n\r\n",
    ],
)
def test_a_far_end_that_speaks_no_http(agent, far_end, answer):
    def serve(sock):
        read_head(sock)
        sock.sendall(answer)

    assert agent.ask(get(far_end(serve), method="POST", extra="Content-Length: 0\r\n")).startswith(b"HTTP/1.1 502 ")


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\nContent-Length: 5\n\nhello",
        b"HTTP/1.1 200 OK\r\nContent-Length : 5\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 5, 5\r\n\r\nhello",
    ],
)
def test_a_sloppy_response_reaches_the_client_mended(agent, far_end, answer):
    def serve(sock):
        while read_head(sock):
            sock.sendall(answer)

    server = far_end(serve)
    with agent.connect() as sock:
        for _ in range(2):
            sock.sendall(b"\r\n" + get(server))
            assert read_head(sock) == b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"
            assert sock.recv(5) == b"hello"
    assert server.connections == 1


@pytest.mark.parametrize(
    "answer", [ok(b"x" * 10)[:-5], b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel"]
)
def test_a_response_cut_short_is_no_clean_end(agent, far_end, answer):
    def serve(sock):
        read_head(sock)
        sock.sendall(answer)

    with pytest.raises(ConnectionResetError):
        agent.ask(get(far_end(serve)))


@pytest.mark.parametrize("body", [b"zz\r\n", b"1\r\nab\r\n", b"1\nx\r\n", b"-1\r\n", b"0x1\r\n", b"1" * 17 + b"\r\n"])
def test_broken_chunks_are_a_bad_request(agent, far_end, body):
    seen = []

    def serve(sock):
        read_head(sock)
        seen.append(read_rest(sock))

    server = far_end(serve)
    answer = agent.ask(get(server, method="POST", extra="Transfer-Encoding: chunked\r\n") + body)
    assert answer.startswith(b"HTTP/1.1 400 ")
    until(lambda: seen, "the far end sees the end")
    assert body not in seen[0]


def test_connect_after_a_request(agent, far_end):
    server = far_end(recorder([ok()], []))
    with agent.connect() as sock:
        sock.sendall(get(server))
        read_head(sock)
        sock.recv(5)
        sock.sendall("CONNECT {}:{} HTTP/1.1\r\n\r\n".format(*server.target).encode())
        assert read_head(sock).startswith(b"HTTP/1.1 200 ")


def test_a_client_that_leaves_frees_its_far_end(agent, far_end):
    gone = []

    def serve(sock):
        read_head(sock)
        gone.append(sock.recv(1))

    server = far_end(serve)
    with agent.connect() as sock:
        sock.sendall(get(server, method="POST", extra="Content-Length: 5\r\n"))
        until(lambda: server.connections, "the request arrives")
        sock.shutdown(socket.SHUT_WR)
    assert until(lambda: gone, "the far end is let go") == [b""]


@pytest.mark.parametrize("head", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"], ids=["no response", "no body"])
def test_a_client_that_leaves_a_silent_far_end_frees_it(agent, far_end, head):
    gone = []

    def serve(sock):
        read_head(sock)
        sock.sendall(head)
        gone.append(sock.recv(1))

    server = far_end(serve)
    with agent.connect() as sock:
        sock.sendall(get(server))
        until(lambda: server.connections, "the request arrives")
        if head:
            assert read_head(sock).startswith(b"HTTP/1.1 200 ")
    assert until(lambda: gone, "the far end is let go", 3 * LOOK_S) == [b""]
    mine = " {}:{} ".format(*server.target)
    line = until(lambda: [each for each in agent.access() if mine in each], "the request is over")[0]
    assert line.endswith(" client gone")


def test_a_client_that_only_ends_its_sending_has_its_response(agent, far_end):
    def serve(sock):
        read_head(sock)
        time.sleep(1.5 * LOOK_S)  # so that the agent looks after the client meanwhile
        sock.sendall(ok())

    server = far_end(serve)
    with agent.connect(5 * LOOK_S) as sock:
        sock.sendall(get(server))
        sock.shutdown(socket.SHUT_WR)
        assert read_rest(sock, 5 * LOOK_S).endswith(b"hello")


@pytest.mark.parametrize("count, size", [(1, 80000), (1000, 90)])
def test_a_long_head_of_a_response(agent, far_end, count, size):
    long = b"".join(b"X-%d: %s\r\n" % (number, b"v" * size) for number in range(count))
    answer = agent.ask(get(far_end(recorder([ok(extra=long)], [])), extra="Connection: close\r\n"))
    assert long in answer
    assert answer.endswith(b"hello")


def test_chunks_of_an_http10_server_reach_the_client(agent, far_end):
    body = b"5\r\nhello\r\n0\r\n\r\n"
    server = far_end(recorder([b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + body], []))
    with agent.connect() as sock:
        sock.sendall(get(server))
        assert b"Transfer-Encoding: chunked\r\n" in read_head(sock)
        assert sock.recv(100) == body


@pytest.mark.parametrize("drains", [True, False], ids=["reads on", "closes"])
def test_an_upload_that_is_refused_early_has_its_answer(agent, far_end, drains):
    """As urllib does: all of the body first, then the answer; a reset in between would take the answer away."""
    size = 20000000

    def serve(sock):
        read_head(sock)
        sock.sendall(b"HTTP/1.1 413 Too large\r\nContent-Length: 3\r\n\r\nno\n")
        if drains:
            read_rest(sock)

    server = far_end(serve)
    with agent.connect() as sock:
        sock.sendall(get(server, method="PUT", extra="Content-Length: {}\r\n".format(size)))
        for _ in range(200):
            sock.sendall(b"u" * (size // 200))
        answer = read_rest(sock, 60)
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert answer.endswith(b"no\n")


def test_what_is_left_of_a_refused_upload_is_no_request(agent, far_end):
    heads = []

    def serve(sock):
        heads.append(read_head(sock))
        sock.sendall(b"HTTP/1.1 413 Too large\r\nContent-Length: 0\r\n\r\n")

    server = far_end(serve)
    smuggled = get(server, "/smuggled")
    with agent.connect() as sock:
        sock.sendall(get(server, method="PUT", extra="Content-Length: 5000000\r\n") + b"u" * 300000)
        assert read_head(sock).startswith(b"HTTP/1.1 413 ")
        sock.sendall(smuggled)
        sock.shutdown(socket.SHUT_WR)
        assert read_rest(sock) == b""
    assert len(heads) == 1

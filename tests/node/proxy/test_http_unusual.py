"""Absolute-form requests of clients and answers of far ends that do what few do: passed on, or refused by name."""

import time

import pytest

from tests.node.harness import read_head, read_rest
from tests.node.proxy.test_http import get, ok, recorder
from tests.waiting import until


@pytest.mark.parametrize("where", ["http://{}:{}/?{}", "http://{}:{}/"], ids=["URL", "header"])
@pytest.mark.parametrize("bytewise", [False, True], ids=["at once", "in pieces"])
def test_a_long_head_of_a_request(agent, far_end, where, bytewise):
    heads, long = [], "x" * 60000
    server = far_end(recorder([ok()], heads))
    url = where.format(*server.target, long)
    extra = "" if long in url else "Cookie: {}\r\n".format(long)
    request = "GET {} HTTP/1.1\r\n{}Connection: close\r\n\r\n".format(url, extra).encode()
    with agent.connect() as sock:
        for piece in [request] if not bytewise else [request[:40000], request[40000:-3], request[-3:]]:
            sock.sendall(piece)
            time.sleep(0.05 * bytewise)  # so that they come in pieces
        assert read_rest(sock).endswith(b"hello")
    assert long.encode() in heads[0]


def test_a_head_of_a_request_beyond_the_bound(agent, far_end):
    heads = []
    answer = agent.ask(get(far_end(recorder([ok()], heads)), extra="X: {}\r\n".format("x" * 70000)))
    assert answer.startswith(b"HTTP/1.1 431 ")
    assert heads == []


def kept_then_fresh(first, more):
    """Answers `first` and keeps that connection; what comes there then is in `more`; afresh on the next."""
    served = []

    def serve(sock):
        read_head(sock)
        served.append(sock)
        if len(served) > 1:
            sock.sendall(ok(b"fresh"))
            return
        sock.sendall(first)
        more.append(read_rest(sock))

    return serve


@pytest.mark.parametrize(
    "first, unasked",
    [
        (ok(), b"HTTP/1.1 408 Request Time-out\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"),
        (b"HTTP/1.1 204 No\r\nContent-Length: 5\r\n\r\n", b"hello"),
    ],
    ids=["a timeout", "the body of a 204"],
)
def test_what_comes_unasked_answers_no_request(agent, far_end, first, unasked):
    """As HAProxy and Apache do on a kept connection that nobody uses."""
    server = far_end(kept_then_fresh(first + unasked, []))
    with agent.connect() as sock:
        sock.sendall(get(server))
        assert read_head(sock).split()[1] == first.split()[1]
        if b"hello" in first:
            assert sock.recv(5) == b"hello"
        sock.sendall(get(server, method="POST", extra="Content-Length: 0\r\nConnection: close\r\n"))
        assert read_rest(sock).endswith(b"fresh")


@pytest.mark.parametrize(
    "first",
    [
        b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 5\r\n\r\nfirst",
        b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nfirst",
    ],
    ids=["close", "HTTP/1.0"],
)
def test_a_connection_that_the_far_end_has_done_with_is_asked_nothing_more(agent, far_end, first):
    """Though it stays open: what is sent there is for nobody."""
    more = []
    server = far_end(kept_then_fresh(first, more))
    with agent.connect() as sock:
        sock.sendall(get(server))
        read_head(sock)
        assert sock.recv(5) == b"first"
        sock.sendall(get(server, extra="Connection: close\r\n"))
        assert read_rest(sock).endswith(b"fresh")
    until(lambda: more == [b""], "nothing more was sent there")


@pytest.mark.parametrize(
    "answer, why",
    [
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
            "the far end sent a chunk size that is no number",
        ),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhello", "the far end ended in the middle"),
    ],
)
def test_the_log_says_why_a_response_broke_off(agent, far_end, answer, why):
    server = far_end(lambda sock: read_head(sock) and sock.sendall(answer))
    with pytest.raises(ConnectionResetError):
        agent.ask(get(server))
    mine = " {}:{} ".format(*server.target)
    assert until(lambda: [each for each in agent.access() if mine in each], "it is over")[0].endswith(why)


@pytest.mark.parametrize(
    "answer, why",
    [
        (b"HTTP/1.1 200 OK\r\nX: " + b"x" * 600000 + b"\r\n\r\n", b"a response head of more than 262144 bytes"),
        (b"HTTP/1.1 200 OK\r\nX: \0\r\n\r\n", b"no HTTP response (a NUL in the head)"),
        (b"ICY 200 OK\r\n\r\n", b"no HTTP response (no HTTP/1 status line)"),
    ],
)
def test_a_response_that_is_not_passed_on_is_named(agent, far_end, answer, why):
    answer = agent.ask(get(far_end(lambda sock: read_head(sock) and sock.sendall(answer)), method="POST"))
    assert why in answer.split(b"\r\n\r\n", 1)[1]

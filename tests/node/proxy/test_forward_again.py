"""A request is sent twice only if that can do no harm; what is cut short is not whole; who waits costs nothing."""

import os
import signal
import time

import pytest

from hpcproxy.node.proxy import head
from tests.node.harness import read_head, read_rest
from tests.waiting import until

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"


def request(server, method, body=b""):
    head = "{} http://{}:{}/ HTTP/1.1\r\nContent-Length: {}\r\n\r\n".format(method, server.host, server.port, len(body))
    return head.encode() + body


@pytest.mark.parametrize(
    "method, body, again",
    [
        ("GET", b"", True),
        ("HEAD", b"", True),
        ("OPTIONS", b"", True),
        ("POST", b"", False),
        ("POST", b"pay", False),
        ("PUT", b"x", False),
        ("PATCH", b"x", False),
        ("DELETE", b"", False),
    ],
)
def test_what_a_server_may_have_done_is_not_asked_for_twice(agent, far_end, method, body, again):
    """It closes a kept connection with a request read: nobody knows whether it has done that (RFC 9110, 9.2.2)."""
    asked = []

    def serve(sock):
        if not asked:
            asked.append(read_head(sock).split()[0])
            sock.sendall(OK)
            asked.append(read_head(sock).split()[0])
            return
        asked.append(read_head(sock).split()[0])
        sock.sendall(OK)

    server = far_end(serve)
    with agent.connect() as sock:
        sock.sendall(request(server, "GET"))
        assert read_head(sock).startswith(b"HTTP/1.1 200 ")
        assert sock.recv(5) == b"hello"
        sock.sendall(request(server, method, body))
        answer = read_head(sock)
    assert asked == [b"GET", method.encode()] + [method.encode()] * again
    assert answer.split()[1] == (b"200" if again else b"502")


def test_one_that_was_asked_for_on_a_new_connection_is_not_asked_for_again(agent, far_end):
    asked = []

    def serve(sock):
        asked.append(read_head(sock))

    server = far_end(serve)
    with agent.connect() as sock:
        sock.sendall(request(server, "GET"))
        assert read_head(sock).split()[1] == b"502"
    assert len(asked) == 1


def test_a_response_without_a_length_that_a_lost_ssh_cut_is_not_taken_for_whole(start_agent, far_end):
    """Its end is the connection's: the client must see that it was no good one."""

    def serve(sock):
        read_head(sock)
        sock.sendall(b"HTTP/1.0 200 OK\r\n\r\nhalf of it")
        sock.recv(1)

    agent, server = start_agent(), far_end(serve)
    with agent.connect() as sock:
        sock.sendall(request(server, "GET"))
        assert read_head(sock).startswith(b"HTTP/1.1 200 ")
        until(lambda: sock.recv(1), "a part of it is here")
        os.kill(until(agent.ssh_pid, "an ssh"), signal.SIGKILL)
        with pytest.raises(ConnectionResetError):
            read_rest(sock)


def test_a_request_that_waits_for_its_answer_costs_no_processor(agent, far_end):
    def serve(sock):
        read_head(sock)
        sock.recv(1)

    server = far_end(serve)
    with agent.connect() as sock:
        sock.sendall(request(server, "GET"))
        until(lambda: server.connections, "it is with the far end")
        before, since = cpu_ticks(agent), time.process_time()
        while time.process_time() < since + 1:
            """A second's work of our own: on a busy machine, too, one that does not wait gets as much."""
        assert cpu_ticks(agent) - before < 0.5 * os.sysconf("SC_CLK_TCK"), "half a second of work beside one of ours"


def cpu_ticks(agent):
    """What the worker has used of the processor."""
    with open("/proc/{}/stat".format(agent.worker_pid())) as file:
        fields = file.read().rpartition(") ")[2].split()
    return int(fields[11]) + int(fields[12])


NAMES = ["Host", "Content-Length", "Transfer-Encoding", "Expect", "Cache-Control", "Authorization"]


@pytest.mark.parametrize("name", NAMES)
def test_no_connection_header_takes_away_what_the_meaning_hangs_on(name):
    """A client that names it there would have us and the far end read two different requests (RFC 9110, 7.6.1)."""
    headers = [("Connection", "close, {}, x-mine".format(name.lower())), (name, "v"), ("X-Mine", "1")]
    assert head.end_to_end(headers) == [(name, "v")]


@pytest.mark.parametrize(
    "codings",
    [
        ["gzip, chunked"],
        ["chunked, chunked"],
        ["chunked", "chunked"],
        ["chunked", ""],
        ["identity", "chunked"],
        ["gzip"],
        ["chunked;x"],
    ],
)
def test_a_body_in_more_than_one_coding_is_refused(codings):
    with pytest.raises(head.BadRequest, match="other than chunked"):
        head.body_length([("Transfer-Encoding", coding) for coding in codings], 1)
    assert head.body_length([("Transfer-Encoding", "chunked")], 1) == -1


@pytest.mark.parametrize("value", ["", "-1", "+1", "1_0", "0x1", "1, 2", "9" * 19, "\xb2"])
def test_a_length_that_is_no_number_is_refused(value):
    with pytest.raises(head.BadRequest, match="no number"):
        head.body_length([("Content-Length", value)], 1)
    with pytest.raises(head.BadRequest, match="both"):
        head.body_length([("Content-Length", "1"), ("Transfer-Encoding", "chunked")], 1)

"""The node's own route: names are resolved here, what they mean is judged here, and silence costs nobody else."""

import socket
import time

import pytest

from hpcproxy.node.state.closed import KINDS, closed, own_addresses
from hpcproxy.node.state.policy import Policy, parse_rule
from hpcproxy.node.upstream import open_error
from hpcproxy.node.upstream.dial import unpack
from hpcproxy.node.upstream.direct import why_closed
from hpcproxy.node.upstream.target import Target
from tests.node import namespace
from tests.node.harness import Agent, FarEnd, echo, read_head
from tests.node.upstream.test_upstreams import DIRECT
from tests.waiting import until

NEEDS_ROOT = pytest.mark.skipif(not namespace.is_root(), reason="needs root, for a network namespace of its own")

FIB_TRIE = """Main:
  +-- 0.0.0.0/0 3 0 5
     |-- 0.0.0.0
        /0 universe UNICAST
     |-- 10.9.0.0
        /16 link UNICAST
     |-- 10.9.1.2
        /32 host LOCAL
Local:
     |-- 127.0.0.0
        /8 host LOCAL
     |-- 10.9.1.2
        /32 host LOCAL
     |-- 10.9.255.255
        /32 link BROADCAST
"""
IF_INET6 = "fd120000000000000000000000000007 04 40 00 80     eth0\n" + "0" * 31 + "1 01 80 10 80       lo\n"


@pytest.fixture
def proc_net(tmp_path):
    (tmp_path / "fib_trie").write_text(FIB_TRIE)
    (tmp_path / "if_inet6").write_text(IF_INET6)
    return str(tmp_path)


def test_the_addresses_of_a_node(proc_net):
    assert own_addresses(proc_net) == ["10.9.1.2/32", "127.0.0.0/8", "::1", "fd12::7"]
    assert own_addresses("/nonexistent") == []
    assert all(parse_rule(rule) for rule in own_addresses("/proc/net"))
    assert "127.0.0.0/8" in own_addresses("/proc/net")


@pytest.mark.parametrize(
    "host, address, allow, deny, said",
    [
        ("db.test", "192.0.2.5", (), (), ""),
        ("db.test", "10.9.1.2", (), (), "10.9.1.2, this node itself, which is closed unless `allow` names it"),
        ("db.test", "fd12::7", ("*",), (), "fd12::7, this node itself, which is closed unless `allow` names it"),
        (
            "db.test",
            "127.0.0.1",
            (".test",),
            (),
            "127.0.0.1, this node itself, which is closed unless `allow` names it",
        ),
        ("db.test", "127.0.0.1", ("db.test:80",), (), ""),
        ("DB.test.", "127.0.0.1", ("db.test",), (), ""),
        ("db.test", "127.0.0.1", ("db.test:81", "*"), (), "127.0.0.1, this node itself, which is closed unless"),
        ("db.test", "127.0.0.1", ("*", "127.0.0.1:80"), (), ""),
        ("db.test", "192.0.2.5", (), ("192.0.2.0/24",), "192.0.2.5, and that is denied (deny 192.0.2.0/24)"),
        ("db.test", "192.0.2.5", ("db.test",), ("192.0.2.0/24",), "192.0.2.5, and that is denied"),
        ("db.test", "192.0.2.5", ("db.test",), ("192.0.2.0/24:443",), ""),
    ],
)
def test_what_a_name_means_is_judged_too(proc_net, host, address, allow, deny, said):
    rules = Policy(tuple(map(parse_rule, allow)), tuple(map(parse_rule, deny)), closed(["node"], (), proc_net))
    found = why_closed(rules, Target(host, 80), address)
    assert found.startswith(said)
    assert bool(found) == bool(said)


def test_every_errno_of_connect_is_a_kind_that_has_an_answer():
    from hpcproxy.node.proxy.replies import ANSWERS

    assert set(open_error.ERRNO_KINDS.values()) < set(ANSWERS)
    assert (open_error.from_errno(111).kind, open_error.from_errno(111).reason) == ("refused", "Connection refused")
    assert open_error.from_errno(98).kind == "failed"
    # As sshd's words for the same are understood.
    for number, kind in open_error.ERRNO_KINDS.items():
        reason = open_error.from_errno(number).reason
        assert kind == "prohibited" or open_error.explain(reason).kind in (kind, "failed"), reason


def test_an_address_is_reached_as_what_it_is():
    mapped = b"\0" * 10 + b"\xff\xff"
    assert unpack(mapped + b"\xc0\0\2\1") == (socket.AF_INET, "192.0.2.1")
    assert unpack(socket.inet_pton(socket.AF_INET6, "2001:db8::1")) == (socket.AF_INET6, "2001:db8::1")


def test_node_closes_as_much_as_loopback():
    assert KINDS["node"].rules == ()
    rules = {rule.text for rule in closed(["node"], ())[0].rules}
    assert rules >= {rule.text for rule in closed(["loopback"], ())[0].rules}


@pytest.fixture
def node():
    """A network namespace with a name server in it."""
    with namespace.own_network():
        server = namespace.NameServer()
        yield server.names
        server.close()


@NEEDS_ROOT
def test_without_a_route_it_says_so_at_once(node, start_agent):
    namespace.set_route(False)
    agent = start_agent(DIRECT, wait=False)
    assert agent.process.wait(timeout=30) == 0
    said = "route direct: this node has no route to the internet"
    assert agent.lines() == ["failed c1 " + said, "gave-up c1 " + said]


@NEEDS_ROOT
def test_the_node_itself_is_closed_by_name_and_by_address(node, start_agent, far_end):
    server = far_end(echo, host=namespace.ADDRESS)
    node.update({"me.test": [namespace.ADDRESS], "lo.test": ["127.0.0.1", "::1"], "open.test": [namespace.ADDRESS]})
    agent = start_agent(DIRECT, closed=["node"], allow=["*", "open.test"])
    for host in ("127.0.0.1", namespace.ADDRESS, "me.test", "lo.test", "localhost", "[" + namespace.ADDRESS6 + "]"):
        answer = agent.ask("CONNECT {}:{} HTTP/1.1\r\n\r\n".format(host, server.port).encode(), 30)
        assert answer.startswith(b"HTTP/1.1 403 Forbidden ("), host
        assert b"this node itself" in answer
    assert server.connections == 0
    sock, head = agent.tunnel(("open.test", server.port))
    sock.close()
    assert head.startswith(b"HTTP/1.1 200 ")
    until(lambda: agent.status()["denied"] == 6, "all are counted")


@NEEDS_ROOT
def test_the_next_address_is_tried_soon_and_a_silent_one_costs_a_moment(node, start_agent, far_end):
    server = far_end(echo, 8089, "127.0.9.9")
    # Of the first nothing ever comes back: a packet to it goes to loopback and is dropped there.
    node.update({"both.test": ["203.0.113.77", server.host], "refused.test": ["127.0.9.8", server.host]})
    node["six.test"] = ["2001:db8::7", server.host]
    agent = start_agent(DIRECT, connect_timeout_s=8)
    for host in ("both.test", "refused.test", "six.test"):
        began = time.monotonic()
        sock, head = agent.tunnel((host, server.port), 30)
        sock.close()
        assert head.startswith(b"HTTP/1.1 200 "), host
        assert time.monotonic() - began < 6, host


@NEEDS_ROOT
def test_a_silent_name_service_holds_nobody_else_up(node, start_agent, far_end):
    server = far_end(echo)
    for number in range(20):
        node["silent{}.test".format(number)] = None
    agent = start_agent(DIRECT, connect_timeout_s=2)
    waiting = [agent.connect(30) for _ in range(20)]
    for number, sock in enumerate(waiting):
        sock.sendall("CONNECT silent{}.test:80 HTTP/1.1\r\n\r\n".format(number).encode())
    sock, head = agent.tunnel(server.target)
    sock.close()
    assert head.startswith(b"HTTP/1.1 200 ")
    for sock in waiting:
        with sock:
            assert sock.recv(1000).startswith(b"HTTP/1.1 502 Bad Gateway (no answer from this node's name service")
    assert agent.stop() == 0


@NEEDS_ROOT
def test_a_name_that_is_looked_up_while_the_route_goes_is_looked_up_again(node, start_agent, far_end):
    server = far_end(echo, 8089, "127.0.9.9")
    node["slow.test"] = None
    agent = start_agent(DIRECT, alive_interval_s=0.2, connect_timeout_s=60, hold_s=60)
    with agent.connect(120) as sock:
        sock.sendall("CONNECT slow.test:{} HTTP/1.1\r\n\r\n".format(server.port).encode())
        until(lambda: agent.status().get("active") == 1, "it asks")
        namespace.set_route(False)
        until(lambda: agent.status().get("ready") is False, "it is down")
        node["slow.test"] = [server.host]
        namespace.set_route(True)
        began = time.monotonic()
        assert read_head(sock).startswith(b"HTTP/1.1 200 ")
        assert time.monotonic() - began < 50, "it was not until the deadline of the question that nobody answered"


@NEEDS_ROOT
def test_ipv6_literals(node, start_agent, monkeypatch):
    if not socket.has_ipv6:
        pytest.skip("this Python has no IPv6")
    import socketserver

    monkeypatch.setattr(socketserver.TCPServer, "address_family", socket.AF_INET6)
    server = FarEnd(echo, 0, "::1")
    try:
        agent: Agent = start_agent(DIRECT)
        sock, head = agent.tunnel(("[::1]", server.port))
        with sock:
            assert head.startswith(b"HTTP/1.1 200 ")
            sock.sendall(b"hello")
            assert sock.recv(100) == b"hello"
    finally:
        server.close()

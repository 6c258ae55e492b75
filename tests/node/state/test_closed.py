"""What is closed though no rule denies it: every spelling, alias and detour of it, and what `allow` opens again."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcproxy.node.life.hold import BadArguments, parse
from hpcproxy.node.state.closed import KINDS, closed, networks
from hpcproxy.node.state.policy import Policy, closed_by, denied_by, parse_rule
from hpcproxy.node.upstream.target import BadTarget, parse_authority
from tests.node.harness import echo, read_rest
from tests.waiting import until

# fmt: off
LOOPBACK = [
    "127.0.0.1", "127.0.0.2", "127.255.255.254", "127.1", "127.0.1", "0177.0.0.1", "0x7f.0.0.1", "0x7f.1",
    "0x7F000001", "2130706433", "017700000001", "127.0.0.1.", "0.0.0.0", "0", "00", "0x0", "0.0", "0x0.0x0",
    "0.1.2.3", "000.000.000.000", "0127.0.0.1", "::", "::1", "0:0:0:0:0:0:0:1", "::0.0.0.1", "::ffff:127.0.0.1",
    "::ffff:7f00:1", "::ffff:0.0.0.0", "::ffff:0:0", "::127.0.0.1", "::7f00:1", "::ffff:0:127.0.0.1",
    "64:ff9b::127.0.0.1", "64:ff9b::0.0.0.0", "64:ff9b::7f00:1", "64:ff9b:1::127.0.0.1", "64:ff9b:1:7f00:0:100::",
    "2002:7f00:1::", "2002:0:0::1", "localhost", "LOCALHOST", "localhost.", "localhost..", "localhost.localdomain",
    "a.localhost", "x.y.LocalHost.", "localhost6", "ip6-localhost", "ip6-loopback",
]
# fmt: on
LINK_LOCAL = [
    "169.254.169.254",
    "169.254.1.1",
    "0xa9fea9fe",
    "2852039166",
    "0251.0376.0251.0376",
    "::ffff:169.254.169.254",
]
LINK_LOCAL += ["64:ff9b::169.254.169.254", "fe80::1", "febf::1", "169.16689662"]
METADATA = [
    "fd00:ec2::254",
    "FD00:0EC2:0::254",
    "fd20:ce::254",
    "100.100.100.200",
    "metadata.google.internal",
    "Metadata.",
]
METADATA += ["::ffff:100.100.100.200", "168.63.129.16", "metadata.google.internal."]
JUMP = ["jump1.example.org", "JUMP1.example.org.", "jump1", "192.168.31.10", "::ffff:192.168.31.10", "0xc0a81f0a"]
NODES = ["10.9.1.2", "10.9.255.255", "::ffff:10.9.0.1", "0xa.9.1", "fd12:3456::7", "172.20.1.1", "64:ff9b::10.9.1.2"]
ODD = ["0x", "127.0.0.0x", "1.2.3.4.5", "256.0.0.1", "127.0.0.09", "a.1", "1.2.3.400"]
OPEN = [
    "internet.test",
    "128.0.0.1",
    "126.255.255.255",
    "1.1.1.1",
    "010.0.0.1",
    "localhost.example.org",
    "notlocalhost",
    "0a.example",
]
OPEN += [
    "2001:db8::1",
    "64:ff9b::1.1.1.1",
    "170.254.1.1",
    "fec0::1",
    "metadata.example",
    "10.10.0.1",
    "172.21.0.1",
    "1.example",
]

ROUTE = """Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT
eth0\t00000000\t0100090A\t0003\t0\t0\t0\t00000000\t0\t0\t0
eth0\t0000090A\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0
ib0\t000114AC\t0100090A\t0003\t0\t0\t0\t00FFFFFF\t0\t0\t0
tun0\t00000000\t00000000\t0001\t0\t0\t0\t00000080\t0\t0\t0
broken
"""
ROUTE6 = """fd123456000000000000000000000000 40 {0} 00 {0} 00000100 00000001 00000000 00000001     eth0
00000000000000000000000000000000 00 {0} 00 {0} 00000400 00000001 00000000 00200200       lo
ff000000000000000000000000000000 08 {0} 00 {0} 00000100 00000001 00000000 00000001     eth0
zz
""".format("0" * 32)


@pytest.fixture(scope="module")
def kinds(tmp_path_factory):
    """What service mode closes on a node with networks of its own."""
    proc_net = tmp_path_factory.mktemp("proc")
    (proc_net / "route").write_text(ROUTE)
    (proc_net / "ipv6_route").write_text(ROUTE6)
    return closed(KINDS, ["jump1.example.org", "jump1", "192.168.31.10"], str(proc_net))


def policy(kinds, *allow):
    return Policy(tuple(map(parse_rule, allow)), (), kinds)


@pytest.mark.parametrize("allow", [(), ("*",), ("*:1-65535", "0.0.0.0/0", "::/0"), ("0.0.0.0/1", "128.0.0.0/1")])
def test_closed_whatever_it_is_called_and_however_wide_the_rules_are(kinds, allow):
    places = [(LOOPBACK, "loopback"), (LINK_LOCAL, "link-local"), (METADATA, "metadata"), (JUMP, "jump-hosts")]
    for hosts, kind in [*places, (NODES, "nodes")]:
        found = {host: closed_by(policy(kinds, *allow), host, 80) for host in hosts}
        assert found == dict.fromkeys(hosts, KINDS[kind].what)
    found = {host: closed_by(policy(kinds, *allow), host, 80) for host in ODD}
    assert found == dict.fromkeys(ODD, "a number that is no address")
    assert {host: closed_by(policy(kinds, *allow), host, 80) for host in OPEN} == dict.fromkeys(OPEN)


def test_a_zone_and_brackets_are_no_name_at_all():
    for text in ("[::1%lo]:80", "[::1%25lo]:80", "[fe80::1%eth0]:80", "::1%lo", "[[::1]]:80", "127.0.0.1%lo:80"):
        with pytest.raises(BadTarget):
            parse_authority(text)


@pytest.mark.parametrize(
    "allow, opened, shut",
    [
        ("127.0.0.1:8888", [("127.0.0.1", 8888), ("127.1", 8888)], [("127.0.0.1", 80), ("localhost", 8888)]),
        ("localhost:8888", [("localhost", 8888), ("LOCALHOST.", 8888)], [("127.0.0.1", 8888), ("a.localhost", 8888)]),
        (".localhost", [("a.localhost", 1)], [("localhost", 1)]),
        ("127.0.0.0/8", [("127.9.9.9", 1), ("0177.0.0.1", 1)], [("0.0.0.0", 1), ("64:ff9b::127.0.0.1", 1)]),
        ("10.9.7.0/24", [("10.9.7.1", 1)], [("10.9.8.1", 1)]),
        ("10.9.0.0/16", [("10.9.7.1", 1)], [("172.20.1.1", 1)]),
        ("10.0.0.0/8", [], [("10.9.7.1", 1)]),
        ("169.254.169.254", [("169.254.169.254", 80)], [("169.254.169.253", 80)]),
        ("metadata.google.internal", [("metadata.google.internal", 80)], [("169.254.169.254", 80)]),
        (".google.internal", [], [("metadata.google.internal", 80)]),
        ("jump1:22", [("jump1", 22)], [("jump1", 80), ("192.168.31.10", 22)]),
    ],
)  # fmt: skip
def test_allow_opens_what_it_names_and_no_more(kinds, allow, opened, shut):
    for others in ((), ("*",)):
        rules = policy(kinds, allow, *others)
        assert [target for target in opened if denied_by(rules, *target) or closed_by(rules, *target)] == []
        assert [target for target in shut if not (denied_by(rules, *target) or closed_by(rules, *target))] == []


def test_a_deny_rule_is_not_dodged_by_a_detour():
    rules = Policy((), (parse_rule("10.0.0.0/8:443"),), ())
    for host in ("10.1.2.3", "0xa.1", "64:ff9b::10.1.2.3", "2002:a01:203::", "::10.1.2.3", "010.1.2.3"):
        assert denied_by(rules, host, 443) == "deny 10.0.0.0/8:443", host
        assert denied_by(rules, host, 80) is None
    assert denied_by(Policy((parse_rule("10.0.0.0/8"),), (), ()), "64:ff9b::10.1.2.3", 443) == "not in allow"


def test_the_networks_of_a_node(tmp_path):
    (tmp_path / "route").write_text(ROUTE)
    assert networks(str(tmp_path)) == ["10.9.0.0/16", "172.20.1.0/24"]
    (tmp_path / "ipv6_route").write_text(ROUTE6)
    assert networks(str(tmp_path)) == ["10.9.0.0/16", "172.20.1.0/24", "fd12:3456::/64"]
    assert networks("/nonexistent") == []
    assert all(parse_rule(rule).network for rule in networks("/proc/net"))


@given(st.text("0123456789abcdefx.:%[]-", max_size=24), st.integers(0, 65535))
def test_anything_is_judged(host, port):
    kinds = closed(["loopback"], [])
    assert closed_by(policy(kinds), host, port) in (None, KINDS["loopback"].what, "a number that is no address")


def test_the_agent_says_what_is_closed_in_every_dialect(start_agent, far_end):
    server = far_end(echo)
    agent = start_agent(closed=["loopback"], rules_of="the site's rules", deny=["*:25"])
    said = b"is the jump host's own loopback, which is closed unless `allow` names it"
    for host in ("127.0.0.1", "localhost", "[::ffff:127.0.0.1]", "0"):
        answer = agent.ask("CONNECT {}:{} HTTP/1.1\r\n\r\n".format(host, server.port).encode())
        assert answer.startswith(b"HTTP/1.1 403 Forbidden ("), host
        assert said in answer
    assert agent.ask("GET http://127.1:{}/ HTTP/1.1\r\n\r\n".format(server.port).encode()).startswith(b"HTTP/1.1 403 ")
    with agent.connect() as sock:
        sock.sendall(b"\5\1\0\5\1\0\1\x7f\0\0\1" + struct.pack(">H", server.port))
        assert read_rest(sock)[:4] == b"\5\0\5\2"
    assert b"denied by the site's rules (deny *:25)" in agent.ask(b"CONNECT internet.test:25 HTTP/1.1\r\n\r\n")
    until(lambda: agent.status()["denied"] == 7, "all are counted")


def test_what_is_asked_for_is_opened(start_agent, far_end):
    server = far_end(echo)
    agent = start_agent(closed=["loopback"], allow=["*", "127.0.0.1:{}".format(server.port)])
    sock, head = agent.tunnel(("127.0.0.1", server.port))
    with sock:
        assert head.startswith(b"HTTP/1.1 200 ")
    assert b" 403 " in agent.ask(b"CONNECT 127.0.0.1:1 HTTP/1.1\r\n\r\n")


def test_a_node_closes_its_own_networks(start_agent):
    own = [rule.partition("/")[0] for rule in networks("/proc/net") if ":" not in rule]
    if not own:
        pytest.skip("this machine has no network")
    agent = start_agent(closed=["nodes"])
    answer = agent.ask("CONNECT {}:80 HTTP/1.1\r\n\r\n".format(own[0]).encode())
    assert answer.startswith(b"HTTP/1.1 403 Forbidden (")
    assert b"is a network of this cluster" in answer


def test_the_addresses_that_a_jump_hosts_name_has_on_the_node_are_closed_like_the_name(start_agent):
    words = ["--jump-addresses", "203.0.113.9,2001:db8::9"]
    agent = start_agent(closed=["jump-hosts"], jump_hosts=["jump1"], words=words)
    for host in ("jump1", "203.0.113.9", "0xcb007109", "[::ffff:203.0.113.9]", "[2001:db8::9]"):
        answer = agent.ask("CONNECT {}:22 HTTP/1.1\r\n\r\n".format(host).encode())
        assert answer.startswith(b"HTTP/1.1 403 Forbidden ("), host
        assert b"is the jump host itself" in answer


def test_what_is_no_address_of_a_jump_host_is_refused():
    words = ["hold", "--config", "c", "--address", "127.0.0.1", "--port", "1", "--state", "s", "--jump-addresses"]
    for text in ("", "a", "1.2.3.4,", "1.2.3.4, 5.6.7.8"):
        with pytest.raises(BadArguments):
            parse([*words, text])

"""Ways of several kinds (`via: auto`): the first that serves is kept to, and why the others were not is said."""

import contextlib
import json
import os
import signal

import pytest

from hpcproxy.node.state.environment import NONE, way_of
from hpcproxy.node.upstream.outside import needed
from tests.doctor import internet
from tests.node import namespace
from tests.node.harness import echo, jump_of
from tests.node.site_proxies import HttpMock
from tests.sshd import prepare
from tests.waiting import until

NEEDS_ROOT = pytest.mark.skipif(not namespace.is_root(), reason="needs root, for a network namespace of its own")
ENVIRONMENT = {"kind": "environment", "auth_file": ""}
NO_ROUTE = "not by direct: this node has no route to the internet"
NO_PROXY = "not by environment: " + NONE


@pytest.mark.parametrize(
    "environ, name, lacks",
    [
        ({}, "environment", NONE),
        ({"https_proxy": " "}, "environment", NONE),
        ({"https_proxy": "http://proxy.test:3128/"}, "http://proxy.test:3128", ""),
        ({"HTTP_PROXY": "proxy.test:3128"}, "http://proxy.test:3128", ""),
        ({"all_proxy": "socks5h://[2001:db8::1]:1080"}, "socks5://[2001:db8::1]:1080", ""),
        ({"https_proxy": "http://alice:word@proxy.test:3128"}, "http://proxy.test:3128", ""),
        # Of several what programs take for https; one of ours, or the recipe by hand, is none.
        ({"http_proxy": "http://b.test:1", "https_proxy": "http://a.test:1"}, "http://a.test:1", ""),
        ({"https_proxy": "http://127.64.0.1:2015", "http_proxy": "http://a.test:1"}, "http://a.test:1", ""),
        ({"https_proxy": "http://127.1:2015", "HPCPROXY_SAVED_https_proxy": "http://a.test:1"}, "http://a.test:1", ""),
        ({"https_proxy": "socks5h://localhost:2015"}, "environment", NONE),
        ({"https_proxy": "http://proxy.test"}, "environment", "https_proxy names no port"),
        ({"https_proxy": "http://proxy.test:99999"}, "environment", "https_proxy names no port"),
        (
            {"https_proxy": "https://p.test:443"},
            "environment",
            "https_proxy names a https proxy, and http or socks5 is needed",
        ),
        ({"HTTPS_PROXY": "http://$(touch x):1"}, "environment", "HTTPS_PROXY is no address of a proxy"),
    ],
)
def test_the_proxy_that_an_environment_names(environ, name, lacks):
    way = way_of(environ, "/login")
    assert (way.name, way.lacks) == (name, lacks)
    if not lacks:
        assert (way.auth_file, "word" in repr(way)) == ("/login", False)


def test_two_thirds_are_needed():
    assert [needed(count) for count in (1, 2, 3, 4, 6)] == [1, 2, 2, 3, 4]


@pytest.fixture
def network():
    with namespace.own_network():
        yield


@pytest.fixture
def targets(tmp_path, network):
    """Where two servers answer with a certificate that is trusted here, and one with somebody else's; the trust."""
    with contextlib.ExitStack() as stack:
        good = stack.enter_context(internet.running(tmp_path / "good", "Good"))
        portal = stack.enter_context(internet.running(tmp_path / "portal", "Portal"))
        places = ["127.0.0.1:" + each.url.rpartition(":")[2].partition("/")[0] for each in (good, portal)]
        yield places[0], places[1], {"SSL_CERT_FILE": str(good.authority)}


@pytest.fixture
def jump(tmp_path, network):
    sshd = prepare(tmp_path / "jump").start()
    yield sshd
    sshd.stop()


@pytest.fixture
def proxy(network):
    """A proxy of the site's, not on loopback."""
    found = HttpMock(namespace.ADDRESS)
    found.header = ""
    yield found
    found.close()


def ways(*more):
    return [{"kind": "direct"}, ENVIRONMENT, *[dict(way, kind="ssh") for way in more]]


@NEEDS_ROOT
def test_a_node_that_is_out_needs_nothing_else(targets, jump, start_agent, far_end):
    good, portal, trust = targets
    agent = start_agent(ways(jump_of(jump)), direct_targets=[good, portal, good], environ=trust)
    assert agent.lines() == ["ready c1 direct"]
    assert (agent.ssh_pid(), agent.status()["passed_over"]) == (0, None)
    sock, head = agent.tunnel(far_end(echo).target)
    sock.close()
    assert head.startswith(b"HTTP/1.1 200 ")


@NEEDS_ROOT
def test_a_portal_is_not_the_internet(targets, jump, start_agent):
    good, portal, trust = targets
    agent = start_agent(ways(jump_of(jump)), direct_targets=[good, portal, "127.0.0.1:1"], environ=trust)
    note, ready = agent.lines()
    assert ready == "ready c1 jump"
    words = "of 3 targets 2 must answer with a verified certificate: {}: its certificate is not verified; 127.0.0.1:1:"
    assert note.startswith("note c1 way the tunnel goes by jump; not by direct: " + words.format(portal))
    assert "Connection refused" in note
    assert note.endswith("; " + NO_PROXY)
    assert agent.status()["passed_over"] in note
    assert "up through jump after " in agent.log()
    assert NO_PROXY in agent.log()


@NEEDS_ROOT
def test_without_a_route_nobody_is_asked_and_the_sites_proxy_is_taken(targets, jump, proxy, start_agent, far_end):
    trust = targets[2]
    namespace.set_route(False)
    counted = far_end(echo)
    target = "127.0.0.1:{}".format(counted.port)
    environ = dict(trust, https_proxy="http://{}:{}".format(namespace.ADDRESS, proxy.port))
    agent = start_agent(ways(jump_of(jump)), direct_targets=[target], environ=environ, wait=False)
    until(lambda: len(agent.lines()) == 2, "it is ready")
    name = "http://{}:{}".format(namespace.ADDRESS, proxy.port)
    assert agent.lines() == ["note c1 way the tunnel goes by {}; {}".format(name, NO_ROUTE), "ready c1 " + name]
    assert counted.connections == 0


CONNECT, GET = "CONNECT {0}:{1} HTTP/1.1\r\n\r\n", "GET http://{0}:{1}/ HTTP/1.1\r\n\r\n"


@NEEDS_ROOT
@pytest.mark.parametrize(
    "mood, ask", [("407", CONNECT), ("407", GET), ("hang", CONNECT), ("close", CONNECT), ("ssh", CONNECT)]
)
def test_a_proxy_with_a_bad_day_is_left_for_the_jump_host(jump, proxy, start_agent, far_end, mood, ask):
    """It hangs, closes, asks for a password, or is something else by now; what it was asked is told why."""
    namespace.set_route(False)
    environ = {"https_proxy": "http://{}:{}".format(namespace.ADDRESS, proxy.port)}
    agent = start_agent(ways(jump_of(jump)), direct_targets=["127.0.0.1:1"], environ=environ, connect_timeout_s=2)
    assert agent.status()["jump"].startswith("http://")
    proxy.mood = mood
    target = far_end(echo).target
    assert agent.ask(ask.format(*target).encode(), 60)[:11] in (b"HTTP/1.1 40", b"HTTP/1.1 50")
    until(lambda: agent.status().get("jump") == "jump", "it is by ssh")
    assert "not by http://" in agent.status()["passed_over"]
    sock, head = agent.tunnel(target)
    sock.close()
    assert head.startswith(b"HTTP/1.1 200 ")


@NEEDS_ROOT
def test_what_fails_everywhere_is_said_of_each(targets, start_agent):
    namespace.set_route(False)
    agent = start_agent(ways(), direct_targets=["127.0.0.1:1"], wait=False)
    assert agent.process.wait(timeout=60) == 0
    said = "proxy environment: {}; {}".format(NONE, NO_ROUTE)
    assert agent.lines() == ["failed c1 " + said, "gave-up c1 " + said]


@NEEDS_ROOT
def test_the_way_that_served_is_kept_to(targets, jump, start_agent):
    good, _, trust = targets
    namespace.set_route(False)
    agent = start_agent(ways(jump_of(jump)), direct_targets=[good], environ=trust)
    assert agent.status()["jump"] == "jump"
    namespace.set_route(True)
    os.kill(agent.ssh_pid(), signal.SIGKILL)
    until(lambda: agent.status().get("reconnects") == 1, "it is back")
    assert agent.status()["jump"] == "jump"


@NEEDS_ROOT
def test_the_next_is_taken_when_the_one_that_served_does_not_come_back(targets, jump, start_agent, far_end):
    good, _, trust = targets
    agent = start_agent(
        ways(jump_of(jump)), direct_targets=[good], environ=trust, connect_timeout_s=2, alive_interval_s=0.2
    )
    assert agent.lines() == ["ready c1 direct"]
    namespace.set_route(False)
    until(lambda: agent.status().get("jump") == "jump", "it is by ssh")
    assert "this node has no route to the internet any more" in agent.status()["passed_over"]
    sock, head = agent.tunnel(far_end(echo).target)
    sock.close()
    assert head.startswith(b"HTTP/1.1 200 ")


@NEEDS_ROOT
def test_a_silent_world_costs_a_second(network, jump, start_agent):
    """A route into nothing: whoever waits for the node's tunnel waits that much longer, and no more."""
    agent = start_agent(ways(jump_of(jump)), direct_targets=["203.0.113.77:443", "silent.invalid:443"])
    assert agent.lines()[-1] == "ready c1 jump"
    assert "no answer within 0.9 s" in agent.status()["passed_over"]


def test_what_agent_json_says_of_them(tmp_path):
    from hpcproxy.node.state import settings

    found = settings.read({"version": 2, "ways": ways(), "direct_targets": ["a.test:443"]})
    assert [way.kind for way in found.ways] == ["direct", "environment"]
    for wrong in (["a.test"], ["a b.test:1"], "a.test:443"):
        with pytest.raises(settings.BadSettings, match="direct_targets"):
            settings.read({"version": 2, "ways": ways(), "direct_targets": wrong})
    json.dumps(found.direct_targets)

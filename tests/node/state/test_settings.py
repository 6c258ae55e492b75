"""agent.json and the rules in it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcproxy.node.state import settings
from hpcproxy.node.state.policy import BadRule, Policy, denied_by, pack_address, parse_rule

GOOD = {"version": 2, "ways": [{"kind": "ssh", "name": "me@host", "argv": ["ssh", "-N", "--", "host"]}]}
PROXY = {"kind": "socks5", "name": "a", "host": "h", "port": 1080, "auth_file": ""}
FAILURE = {"pattern": "x", "layer": "key", "reason": "y z", "permanent": True, "phase": "", "more": False}


def test_defaults():
    found = settings.read(GOOD)
    assert (found.hold_s, found.max_connections, found.probe) == (8, 1024, ("127.0.0.1", 1))
    assert (found.access_log, found.connect_timeout_s, found.alive_interval_s, found.alive_count) == (False, 10, 5, 3)
    assert (found.retry_max_s, found.grace_s) == (30, None)


@pytest.mark.parametrize(
    "change, words",
    [
        ({"version": 1}, "version: is 1"),
        ({"version": True}, "version: is True"),
        ({"version": None}, "version: is None"),
        ({"holds": 1}, "unknown key 'holds'; valid: version, ways, access_log"),
        ({"ways": []}, "ways: is empty"),
        ({"ways": None}, "ways: must be a list"),
        ({"ways": [1]}, "ways[0]: must be an object with kind"),
        (
            {"ways": [{"name": "a", "argv": ["ssh"]}]},
            "ways[0].kind: must be one of ssh, direct, http, socks5, environment, reverse, adopt, not None",
        ),
        (
            {"ways": [{"kind": "pigeon"}]},
            "ways[0].kind: must be one of ssh, direct, http, socks5, environment, reverse, adopt, not 'pigeon'",
        ),
        (
            {"ways": [{"kind": []}]},
            "ways[0].kind: must be one of ssh, direct, http, socks5, environment, reverse, adopt, not []",
        ),
        ({"ways": [{"kind": "http", "name": "a", "host": "h", "port": 1}]}, "ways[0]: 'auth_file' is"),
        ({"ways": [dict(PROXY, port=0)]}, "ways[0].port: must be a number from 1 to 65535"),
        ({"ways": [dict(PROXY, port="80")]}, "ways[0].port: must be a number"),
        ({"ways": [dict(PROXY, host="a b")]}, "ways[0].host: must be one word"),
        ({"ways": [dict(PROXY, auth_file=None)]}, "ways[0].auth_file: must be text"),
        ({"ways": [{"kind": "direct", "name": "a"}]}, "ways[0]: unknown key 'name'; valid: kind"),
        ({"ways": [{"kind": "ssh", "name": "a"}]}, "ways[0]: 'argv' is missing"),
        ({"ways": [{"kind": "ssh", "name": "a b", "argv": ["ssh"]}]}, "ways[0].name: must be one word"),
        ({"ways": [{"kind": "ssh", "name": "a", "argv": []}]}, "ways[0].argv: is empty"),
        ({"ways": [{"kind": "ssh", "name": "a", "argv": ["ssh", "a\0b"]}]}, "ways[0].argv: must be text"),
        ({"ways": [{"kind": "ssh", "name": "a", "argv": "ssh -N"}]}, "ways[0].argv: must be a list"),
        ({"ways": [{"kind": "ssh", "name": "a", "argv": ["ssh"], "x": 1}]}, "ways[0]: unknown key 'x'"),
        ({"hold_s": "8"}, "hold_s: must be a number"),
        ({"hold_s": -1}, "hold_s: must be a number from 0 to 3600"),
        ({"hold_s": float("nan")}, "hold_s: must be a number"),
        ({"retry_max_s": 0.5}, "retry_max_s: must be a number from 1 to 3600"),
        ({"retry_max_s": 3601}, "retry_max_s: must be a number from 1 to 3600"),
        ({"log_level": "loud"}, "log_level: must be one of error, info, debug, not 'loud'"),
        ({"log_level": []}, "log_level: must be one of error, info, debug, not []"),
        ({"logins_per_s": 0}, "logins_per_s: must be a number from 1 to 10000"),
        ({"grace_s": -1}, "grace_s: must be a number from 0 to 3600"),
        ({"max_connections": 1.5}, "max_connections: must be a number"),
        ({"max_connections": True}, "max_connections: must be a number"),
        ({"access_log": 1}, "access_log: must be true or false"),
        ({"probe": "host"}, "probe: must be HOST:PORT"),
        ({"probe": "host:0"}, "probe: must be HOST:PORT"),
        ({"allow": "*"}, "allow: must be a list"),
        ({"allow": ["a b"]}, "allow: 'a b'"),
        ({"deny": [1]}, "deny: must be text"),
        ({"failures": [dict(FAILURE, layer="a b")]}, "failures[0].layer: must be one word"),
        ({"failures": [dict(FAILURE, permanent="yes")]}, "failures[0].permanent: must be true or false"),
    ],
)
def test_what_is_not_understood_is_refused(change, words):
    with pytest.raises(settings.BadSettings) as error:
        settings.read(dict(GOOD, **change))
    assert words in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "content", ["", "[]", "{", '{"version": 1, "version": 1}', "\ufeff{}", '{"a": {"b": 1, "b": 2}}']
)
def test_files_that_are_none(tmp_path, content):
    path = tmp_path / "agent.json"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(settings.BadSettings) as error:
        settings.load(str(path))
    assert str(error.value).startswith(str(path))


def policy(allow=(), deny=()):
    return Policy(tuple(map(parse_rule, allow)), tuple(map(parse_rule, deny)), ())


@pytest.mark.parametrize(
    "rule, yes, no",
    [
        ("*", [("any.example", 1), ("::1", 1)], []),
        ("*:443", [("a", 443)], [("a", 80)]),
        ("host.example", [("host.example", 1), ("HOST.example.", 1)], [("a.host.example", 1), ("example", 1)]),
        (".example", [("a.example", 1), ("a.b.example", 1)], [("example", 1), ("aexample", 1)]),
        ("h:80-90", [("h", 80), ("h", 90)], [("h", 79), ("h", 91)]),
        ("10.0.0.0/8", [("10.1.2.3", 1), ("0xa.1", 1), ("167772161", 1), ("::ffff:10.0.0.1", 1)], [("11.0.0.1", 1)]),
        ("127.0.0.1:22", [("127.1", 22), ("0177.0.0.1", 22)], [("127.0.0.1", 23), ("localhost", 22)]),
        ("2001:db8::/32", [("2001:db8::1", 1), ("2001:DB8:0:0::1", 1)], [("2001:db9::1", 1), ("10.0.0.1", 1)]),
        ("[::1]:443", [("::1", 443), ("0:0:0:0:0:0:0:1", 443)], [("::1", 80)]),
        ("[2001:db8::]/32:443", [("2001:db8::1", 443)], [("2001:db8::1", 80)]),
        ("0.0.0.0/0", [("1.2.3.4", 1)], [("a.example", 1), ("2001::1", 1)]),
    ],
)
def test_rules(rule, yes, no):
    for host, port in yes:
        assert denied_by(policy(deny=[rule]), host, port) == "deny " + rule
        assert denied_by(policy(allow=[rule]), host, port) is None
    for host, port in no:
        assert denied_by(policy(deny=[rule]), host, port) is None
        assert denied_by(policy(allow=[rule]), host, port) == "not in allow"


def test_deny_wins():
    both = policy(allow=["*:443"], deny=["bad.example"])
    assert denied_by(both, "bad.example", 443) == "deny bad.example"
    assert denied_by(both, "good.example", 443) is None


@pytest.mark.parametrize(
    "rule",
    [
        "",
        ":",
        "a b",
        "a:b",
        "a:1-",
        "a:2-1",
        "a:65536",
        "10.0.0.1/8",
        "10.0.0.0/33",
        "a/8",
        "*.example",
        "a..b",
        "[::1",
    ],
)
def test_rules_that_are_none(rule):
    with pytest.raises(BadRule):
        parse_rule(rule)


@given(st.text("0123456789abcdefx.:*/-[]", max_size=20))
def test_rules_are_read_or_refused(text):
    try:
        rule = parse_rule(text)
    except BadRule:
        return
    assert 0 <= rule.low <= rule.high <= 65535


@given(st.text(max_size=30))
def test_addresses_are_sixteen_bytes_or_names(text):
    packed = pack_address(text)
    assert packed is None or len(packed) == 16


@pytest.mark.parametrize(
    "key, low, high",
    [
        ("hold_s", 0, 3600),
        ("max_connections", 1, 65536),
        ("connect_timeout_s", 0.1, 3600),
        ("alive_interval_s", 0.1, 3600),
        ("alive_count", 1, 1000),
        ("retry_max_s", 1, 3600),
        ("logins_per_s", 1, 10000),
        ("grace_s", 0, 3600),
    ],
)
def test_each_number_has_its_bounds(key, low, high):
    for value in (low, high):
        assert getattr(settings.read(dict(GOOD, **{key: value})), key) == value
    for value in (low - 1, high + 1):
        with pytest.raises(settings.BadSettings, match="{}: must be a number from {:g} to {:g}".format(key, low, high)):
            settings.read(dict(GOOD, **{key: value}))

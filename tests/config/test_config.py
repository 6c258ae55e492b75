from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from hpcproxy.config.edit import change
from hpcproxy.config.layers import Layer, parse_layer, read_layer, resolve
from hpcproxy.config.model import KEYS, Config, Jump
from hpcproxy.errors import ConfigError, FileError
from tests.hostile import HOSTILE

# One good value for each key that is not its default; a new key without one here fails the first test.
GOOD: dict[str, Any] = {
    "jump": ["u@a", "b:2222"],
    "port": 3000,
    "identity": "/keys/id",
    "agent": False,
    "via": "direct",
    "proxy_ca": "/etc/site/ca.pem",
    "via_first": "http://proxy.example:3128",
    "direct_targets": ["a.example:443", "[2001:db8::1]:443"],
    "proxy_auth_file": "/keys/proxy",
    "adopt": "/run/user/1/control",
    "scheme": "socks5",
    "replace_proxy": True,
    "hold_s": 0,
    "max_connections": 9,
    "allow": [".example.org", "192.0.2.0/24:443"],
    "deny": ["*:25", "[2001:db8::]/32"],
    "access_log": True,
    "access_syslog": True,
    "autostart": True,
    "required": True,
    "quiet": True,
    "ready_timeout_s": 60,
    "connect_timeout_s": 3,
    "alive_interval_s": 7,
    "alive_count": 9,
    "retry_max_s": 5,
    "logins_per_s": 100,
    "grace_s": 10,
    "log_level": "debug",
    "no_proxy": ["a.example", ".b.example"],
    "bypass_private": False,
    "check_url": "http://127.0.0.1:8080/ip",
}


def _resolve(**values: Any) -> Config:
    return resolve(Layer("test.yaml", values))


# ------------------------------------------------------------------------------------------------ precedence


def test_every_key_has_a_good_value_here_and_a_description_for_the_manual() -> None:
    assert set(GOOD) == set(KEYS)
    assert all(field.description for field in Config.model_fields.values())
    for key, value in GOOD.items():
        assert getattr(_resolve(**{key: value}), key) != getattr(Config(), key)


@pytest.mark.parametrize("present", list(product([False, True], repeat=3)), ids=str)
def test_the_later_layer_wins(present: tuple[bool, bool, bool]) -> None:
    ports = (2001, 2002, 2003)
    layers = [Layer(str(port), {"port": port} if there else {}) for port, there in zip(ports, present)]
    expected = [2015, *(port for port, there in zip(ports, present) if there)][-1]
    assert resolve(*layers).port == expected


def test_layers_add_up() -> None:
    config = resolve(Layer("site", {"jump": ["a"], "port": 2001}), Layer("user", {"scheme": "socks5"}))
    assert (config.jump, config.port, config.scheme) == ((Jump("a"),), 2001, "socks5")


def test_a_bad_value_is_told_with_its_own_file_even_where_a_later_one_overrides_it() -> None:
    with pytest.raises(ConfigError, match=r"^site: port: "):
        resolve(Layer("site", {"port": 1}), Layer("user", {"port": 2015}))


def test_a_config_is_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Config().port = 1  # type: ignore[misc]


# ------------------------------------------------------------------------------------------------ files


def test_an_unknown_key_lists_the_valid_ones() -> None:
    with pytest.raises(ConfigError) as caught:
        parse_layer("my.yaml", "prot: 2015\n")
    assert str(caught.value) == f"my.yaml: prot: unknown key; valid: {', '.join(KEYS)}"
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    "text",
    [
        "port: [",
        "- a\n- b\n",
        "hello",
        "1: 2",
        "? [a]\n: b",
        "port: !!python/object:os.system x",
        "port: !!int abc",
        "port: !!int ''",
        "port: !!bool x",
        "port: !!timestamp x",
        "port: 2015-99-99",
        "port: *a",
        "a: 1\n---\nb: 2\n",
        "port: \0",
        "port: 2015\nport: 2016\n",
        "\t",
        "[" * 5000,
    ],
    ids=lambda text: repr(text[:30]),
)
def test_bad_yaml_is_one_clear_error(text: str) -> None:
    with pytest.raises(ConfigError, match=r"^my\.yaml: ") as caught:
        parse_layer("my.yaml", text)
    assert caught.value.exit_code == 2


def test_a_missing_file_is_an_empty_layer(tmp_path: Path) -> None:
    assert read_layer(tmp_path / "none.yaml").values == {}


@pytest.mark.parametrize("text", ["", "# only a comment\n", "---\n", "null\n"])
def test_an_empty_file_is_an_empty_layer(text: str, tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(text)
    assert read_layer(tmp_path / "c.yaml").values == {}


def test_a_file_that_is_not_utf8_or_not_a_file(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_bytes(b"jump: \xff\n")
    with pytest.raises(ConfigError, match="is not UTF-8"):
        read_layer(tmp_path / "c.yaml")
    with pytest.raises(FileError, match="cannot be read: Is a directory"):
        read_layer(tmp_path)


# ------------------------------------------------------------------------------------------------ values


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("value", [None, {}, {"a": 1}, [[1]], 3.5, Path("x")], ids=repr)
def test_a_value_of_the_wrong_type_names_file_and_key(key: str, value: object) -> None:
    optional = ("identity", "proxy_auth_file", "adopt", "via_first", "proxy_ca", "grace_s", "access_syslog")
    if key in optional and value is None:
        assert getattr(_resolve(**{key: None}), key) is None
        return
    with pytest.raises(ConfigError, match=rf"^test\.yaml: {key}: ") as caught:
        _resolve(**{key: value})
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("key", "values"),
    [
        ("port", [0, 22, 1023, 65536, -1, True, "2015", 2015.0]),
        ("ready_timeout_s", [0, 601, True, "30"]),
        ("alive_count", [0, 101]),
        ("autostart", [1, 0, "yes", "true"]),
        ("scheme", ["http", "socks4", "SOCKS5", ""]),
        ("no_proxy", ["a b", [1], ["*.example"], ["a:80"], ["a b"], ["[::1]"], ["fe80::/10"], ["a,b"], [""]]),
        ("check_url", ["ftp://a/", "http://", "https://a b/", "https://a/\n", "http://u:p@a/", "//a", "a"]),
        ("jump", [5, [5], "", ["a", "a"], ["a", None], "a,b", "a b"]),
    ],
)
def test_a_value_out_of_range_is_refused(key: str, values: list[object]) -> None:
    for value in values:
        with pytest.raises(ConfigError, match=rf"^test\.yaml: {key}: "):
            _resolve(**{key: value})


def test_valid_values_are_listed() -> None:
    with pytest.raises(ConfigError, match=r"valid: socks5h, socks5$"):
        _resolve(scheme="http")
    with pytest.raises(ConfigError, match=r"valid: true, false$"):
        _resolve(required="maybe")


@pytest.mark.parametrize("value", HOSTILE, ids=repr)
def test_hostile_jump_hosts_are_refused(value: str) -> None:
    for text in (value, f"user@{value}", f"{value}@host", f"host:{value}", f"user@host:{value}", f"[{value}]"):
        if text == "user@~root":
            continue
        with pytest.raises(ConfigError) as caught:
            _resolve(jump=[text])
        assert caught.value.exit_code == 2


@pytest.mark.parametrize("value", HOSTILE, ids=repr)
@pytest.mark.parametrize("key", ["port", "scheme", "check_url", "no_proxy", "ready_timeout_s"])
def test_hostile_values_are_refused(key: str, value: str) -> None:
    with pytest.raises(ConfigError):
        _resolve(**{key: [value] if key == "no_proxy" else value})


@pytest.mark.parametrize("value", [*HOSTILE, "\0", "\ud800", "~nobody-by-this-name/id"], ids=ascii)
def test_a_hostile_identity_is_refused_or_an_absolute_path_that_ssh_takes_literally(value: str) -> None:
    for text in (value, f"/keys/{value}", f"~/{value}"):
        try:
            path = _resolve(identity=text).identity
        except ConfigError as error:
            assert error.key == "identity"  # noqa: PT017 - refusing is one of two good outcomes
            continue
        assert path is not None
        assert path.is_absolute()
        assert not set(str(path)) & set('"\\%$`\n\t\0')


def test_an_identity_below_home_follows_home(home: Path) -> None:
    assert _resolve(identity="~/.ssh/id").identity == home / ".ssh" / "id"


# ------------------------------------------------------------------------------------------------ jump hosts


@pytest.mark.parametrize(
    ("text", "jump"),
    [
        ("host", Jump("host")),
        ("hello@192.168.31.10", Jump("192.168.31.10", "hello")),
        ("h.example.org:2222", Jump("h.example.org", None, 2222)),
        ("u.x-y+z_1@h-1_2:65535", Jump("h-1_2", "u.x-y+z_1", 65535)),
        ("[2001:db8::1]", Jump("2001:db8::1")),
        ("u@[2001:DB8:0::1]:22", Jump("2001:db8::1", "u", 22)),
    ],
)
def test_forms_of_a_jump_host(text: str, jump: Jump) -> None:
    assert Jump.parse(text) == jump
    assert Jump.parse(str(jump)) == jump
    assert _resolve(jump=text).jump == _resolve(jump=[text]).jump == (jump,)


@pytest.mark.parametrize(
    "text",
    [
        "-host", "u@-host", "-u@host", "host-", "host.", ".host", "u@", "@host", "a@b@c", "host:", "host:0",
        "host:65536", "host:22x", "host:٢٢", "host:" + "9" * 5000, "2001:db8::1", "[host]", "[::1", "[fe80::1%eth0]",
        "[::1%$(touch x)]", "u v@h", "u@h:22:23", "host\n", "host:22\n", "ssh://host", "u:p@host", "1u@host", "hôst",
    ],
    ids=lambda text: repr(text[:20]),
)  # fmt: skip
def test_what_is_no_jump_host(text: str) -> None:
    with pytest.raises(ValueError, match=r"\S"):
        Jump.parse(text)


# ------------------------------------------------------------------------------------------------ changing the file

_values = st.fixed_dictionaries({}, optional={key: st.just(value) for key, value in GOOD.items()})
_comments = st.sampled_from(["", "# a comment\n", "\n", "   # indented: 5\n", "# größe\n"])
_tails = st.sampled_from(["", "  # why", "   "])


@st.composite
def _texts(draw: st.DrawFn) -> str:
    """A settings file as people write them: any keys in any order, some style, comments everywhere."""
    text = draw(st.sampled_from(["", "---\n", "# mine\n"]))
    for key, value in draw(st.permutations(sorted(draw(_values).items()))):
        flow = draw(st.booleans())
        line = yaml.safe_dump({key: value}, default_flow_style=False) if not flow else f"{key}: {_flow(value)}\n"
        text += draw(_comments) + line.rstrip("\n") + draw(_tails) + "\n"
    return text + draw(_comments)


def _flow(value: object) -> str:
    return yaml.safe_dump(value, default_flow_style=True).replace("\n...", "").strip()


@settings(max_examples=300)
@given(_texts(), _values)
def test_change_sets_the_values_and_leaves_the_rest(text: str, values: dict[str, Any]) -> None:
    before = parse_layer("t", text).values
    after = change(text, values, "t")
    assert parse_layer("t", after).values == {**before, **values}
    assert [line for line in after.splitlines() if line.lstrip().startswith("#")] == [
        line for line in text.splitlines() if line.lstrip().startswith("#")
    ]
    assert change(after, values, "t") == after


def test_change_keeps_every_other_byte() -> None:
    text = "# mine\nport: 2015   # the usual\njump:\n  - a   # first\n  - b\n# end\nscheme: socks5\n"
    expected = "# mine\nport: 3000   # the usual\njump:\n- c\n# end\nscheme: socks5\nrequired: true\n"
    assert change(text, {"port": 3000, "jump": ["c"], "required": True}, "t") == expected
    assert change(text, {"port": 2015, "jump": ["a", "b"]}, "t") == text
    assert change("port: 1", {"scheme": "socks5"}, "t") == "port: 1\nscheme: socks5\n"


@pytest.mark.parametrize(
    "text",
    [
        "{port: 2015}\n",
        "  port: 2015\n  scheme: socks5\n",
        "null\n",
        "port: 2015\n...\n",
        "identity: &a /x\nscheme: socks5\njump: *a\n",
        "identity: |\n  /x\nport: 2015\n",
        "jump:\nport: 2015\n",
        "jump: >-\n  a\n\n# c\nport: 2015\n",
        "jump: 'a\n  b'\nport: 2015\n",
        "\ufeffport: 2015\n",
        "port: 2015\r\njump: b\r\n",
        '"port": 2015\n',
        "? port\n: 2015\n",
    ],
    ids=repr,
)
def test_change_sets_the_value_or_refuses_in_any_style(text: str) -> None:
    before = parse_layer("t", text).values
    try:
        after = change(text, {"port": 3000, "jump": ["c"]}, "t")
    except ConfigError as error:
        assert "by hand" in str(error)  # noqa: PT017 - refusing is one of two good outcomes
        return
    assert parse_layer("t", after).values == {**before, "port": 3000, "jump": ["c"]}


@pytest.mark.parametrize("text", ["alice@realm@host", "DOMAIN\\alice@host"])
def test_a_user_that_cannot_be_typed_here_gets_an_alias(text: str) -> None:
    with pytest.raises(ValueError, match=r"give it a name in ~/\.ssh/config \(Host NAME"):
        Jump.parse(text)

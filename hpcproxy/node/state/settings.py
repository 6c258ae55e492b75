"""agent.json, version 2, into frozen, validated values; whatever is not understood is refused."""

import json
import re
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Pattern, Tuple

from .closed import KINDS, LOOPBACK
from .log import LEVELS
from .policy import BadRule, Policy, Rule, parse_rule

VERSION = 2

SSH, DIRECT, HTTP, SOCKS5, ENVIRONMENT = "ssh", "direct", "http", "socks5", "environment"
ADOPT, REVERSE = "adopt", "reverse"
# What a way of each kind is made of. For ssh a name for people and its whole command line; for a proxy of the site's
# where it is, and the file with USER:PASSWORD for it, or ""; where it is only the job's environment knows, it is looked
# for there (state/environment.py). Ways of several kinds are tried as they stand, and the first that serves is kept to.
PROXY = ["kind", "name", "host", "port", "auth_file"]
WAYS = {SSH: ["kind", "name", "argv"], DIRECT: ["kind"], HTTP: PROXY, SOCKS5: PROXY, ENVIRONMENT: PROXY[::4]}
WAYS.update({REVERSE: ["kind"], ADOPT: ["kind", "path"]})


class Way(NamedTuple):
    """One tunnel: `kind` is one of WAYS; `lacks` is why it is none after all."""

    name: str
    argv: Tuple[str, ...] = ()
    kind: str = SSH
    host: str = ""
    port: int = 0
    auth_file: str = ""
    lacks: str = ""
    called: str = ""  # what this ssh takes for its own name, and starts for each host of ProxyJump; "": ssh
    path: str = ""  # of the control socket that is adopted


Failure = NamedTuple(
    "Failure",
    [("pattern", Pattern[str]), ("layer", str), ("reason", str), ("permanent", bool), ("phase", str), ("more", bool)],
)
Settings = NamedTuple(
    "Settings",
    [
        ("ways", Tuple[Way, ...]),
        ("direct_targets", Tuple[str, ...]),
        ("proxy_ca", str),
        ("proxy_ca_targets", Tuple[str, ...]),
        ("failures", Tuple[Failure, ...]),
        ("hold_s", float),
        ("max_connections", int),
        ("policy", Policy),
        ("rules_of", str),
        ("closed", Tuple[str, ...]),
        ("jump_hosts", Tuple[str, ...]),
        ("access_log", bool),
        ("access_syslog", bool),
        ("probe", Tuple[str, int]),
        ("probe_https", Tuple[str, int]),
        ("connect_timeout_s", float),
        ("alive_interval_s", float),
        ("alive_count", int),
        ("retry_max_s", float),
        ("grace_s", Optional[float]),
        ("logins_per_s", float),
        ("log_level", str),
        ("syslog", bool),
    ],
)
DEFAULTS: Dict[str, Any] = {
    "direct_targets": [],
    "proxy_ca": "",
    "proxy_ca_targets": [],
    "failures": [],
    "hold_s": 8,
    "max_connections": 1024,
    "allow": [],
    "deny": [],
    "rules_of": "the rules of this tunnel",
    "closed": list(LOOPBACK),
    "jump_hosts": [],
    "access_log": False,
    "access_syslog": False,
    "probe": "127.0.0.1:1",
    "probe_https": "192.0.2.1:443",
    "connect_timeout_s": 10,
    "alive_interval_s": 5,
    "alive_count": 3,
    "retry_max_s": 30,
    "grace_s": None,
    "logins_per_s": 32,
    "log_level": "info",
    "syslog": False,
}
PHASES = ("", "greeted", "login", "offered", "seen", "up")  # how far a login has come, for the rows that depend on it
KEYS = ["version", "ways"] + sorted(DEFAULTS)


class BadSettings(Exception):
    """agent.json cannot be used; the message is one line that says where and why."""


def load(path: str) -> Settings:
    """The settings in the file at `path`; BadSettings."""
    try:
        with open(path, "rb") as file:
            value = json.loads(file.read().decode("utf-8"), object_pairs_hook=no_doubles)
    except OSError as error:
        raise BadSettings("{}: {}".format(path, error.strerror))
    except ValueError as error:
        raise BadSettings("{}: no JSON: {}".format(path, error))
    except BadSettings as error:
        raise BadSettings("{}: {}".format(path, error))
    try:
        return read(value)
    except BadSettings as error:
        raise BadSettings("{}: {}".format(path, error))


def no_doubles(pairs: List[Tuple[str, Any]]) -> Dict[str, Any]:
    """A JSON object, each key once."""
    found: Dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise BadSettings("{}: given twice".format(key))
        found[key] = value
    return found


def read(value: Any) -> Settings:
    """Settings from a decoded agent.json; BadSettings."""
    given = fields("agent.json", value, KEYS)
    # Version first: the keys of another version would be misunderstood.
    if type(given.get("version")) is not int or given["version"] != VERSION:
        raise BadSettings("version: is {!r}, this agent reads {}".format(given.get("version"), VERSION))
    unknown("agent.json", given, KEYS)
    whole = dict(DEFAULTS, **given)
    ways = tuple(way(index, item) for index, item in enumerate(listed("ways", whole.get("ways"))))
    if not ways:
        raise BadSettings("ways: is empty")
    return Settings(
        ways=ways,
        direct_targets=places("direct_targets", whole["direct_targets"]),
        proxy_ca=text("proxy_ca", whole["proxy_ca"]) if whole["proxy_ca"] != "" else "",
        proxy_ca_targets=places("proxy_ca_targets", whole["proxy_ca_targets"]),
        failures=tuple(failure(index, item) for index, item in enumerate(listed("failures", whole["failures"]))),
        hold_s=number("hold_s", whole["hold_s"], 0, 3600),
        max_connections=int(number("max_connections", whole["max_connections"], 1, 65536, whole_only=True)),
        policy=Policy(rules("allow", whole["allow"]), rules("deny", whole["deny"]), ()),
        rules_of=text("rules_of", whole["rules_of"]),
        closed=tuple(one_of("closed", item, tuple(sorted(KINDS))) for item in listed("closed", whole["closed"])),
        jump_hosts=tuple(rule.text for rule in rules("jump_hosts", whole["jump_hosts"])),
        access_log=truth("access_log", whole["access_log"]),
        access_syslog=truth("access_syslog", whole["access_syslog"]),
        probe=probe("probe", whole["probe"]),
        probe_https=probe("probe_https", whole["probe_https"]),
        connect_timeout_s=number("connect_timeout_s", whole["connect_timeout_s"], 0.1, 3600),
        alive_interval_s=number("alive_interval_s", whole["alive_interval_s"], 0.1, 3600),
        alive_count=int(number("alive_count", whole["alive_count"], 1, 1000, whole_only=True)),
        retry_max_s=number("retry_max_s", whole["retry_max_s"], 1, 3600),
        logins_per_s=number("logins_per_s", whole["logins_per_s"], 1, 10000),
        log_level=one_of("log_level", whole["log_level"], LEVELS),
        syslog=truth("syslog", whole["syslog"]),
        grace_s=None if whole["grace_s"] is None else number("grace_s", whole["grace_s"], 0, 3600),
    )


def way(index: int, value: Any) -> Way:
    """One tunnel."""
    where = "ways[{}]".format(index)
    kind = one_of(where + ".kind", fields(where, value, ["kind"]).get("kind"), tuple(WAYS))
    given = exactly(where, value, WAYS[kind])
    if kind in (DIRECT, REVERSE):
        return Way(kind, kind=kind)
    if kind == ADOPT:
        return Way(kind, kind=kind, path=text(where + ".path", given["path"]))
    if kind == ENVIRONMENT:
        return Way(kind, kind=kind, auth_file=auth_file(where, given))
    name = word(where + ".name", given["name"])
    if kind == SSH:
        argv = tuple(text(where + ".argv", item) for item in listed(where + ".argv", given["argv"]))
        if not argv:
            raise BadSettings("{}.argv: is empty".format(where))
        return Way(name, argv)
    host, port = word(where + ".host", given["host"]), number(where + ".port", given["port"], 1, 65535, whole_only=True)
    return Way(name, (), kind, host, int(port), auth_file(where, given))


def auth_file(where: str, given: Dict[str, Any]) -> str:
    """The file with a login, or ""."""
    return text(where + ".auth_file", given["auth_file"]) if given["auth_file"] != "" else ""


def failure(index: int, value: Any) -> Failure:
    """One row of the table that says what a line of ssh's log means."""
    where = "failures[{}]".format(index)
    given = exactly(where, value, ["pattern", "layer", "reason", "permanent", "phase", "more"])
    return Failure(
        expression(where + ".pattern", given["pattern"]),
        word(where + ".layer", given["layer"]),
        text(where + ".reason", given["reason"]),
        truth(where + ".permanent", given["permanent"]),
        one_of(where + ".phase", given["phase"], PHASES),
        truth(where + ".more", given["more"]),
    )


def expression(where: str, value: Any) -> Pattern[str]:
    """`value` is a regular expression."""
    try:
        return re.compile(text(where, value))
    except re.error as error:
        raise BadSettings("{}: {!r} is no regular expression: {}".format(where, value, error))


def fields(where: str, value: Any, keys: List[str]) -> Dict[str, Any]:
    """`value` is an object."""
    if not isinstance(value, dict):
        raise BadSettings("{}: must be an object with {}".format(where, ", ".join(keys)))
    return value


def unknown(where: str, given: Dict[str, Any], keys: List[str]) -> None:
    """No key in `given` that is not in `keys`."""
    for key in given:
        if key not in keys:
            raise BadSettings("{}: unknown key {!r}; valid: {}".format(where, key, ", ".join(keys)))


def exactly(where: str, value: Any, keys: List[str]) -> Dict[str, Any]:
    """`value` is an object with all of `keys` and no other."""
    given = fields(where, value, keys)
    unknown(where, given, keys)
    for key in keys:
        if key not in given:
            raise BadSettings("{}: {!r} is missing".format(where, key))
    return given


def listed(where: str, value: Any) -> List[Any]:
    """`value` is a list."""
    if not isinstance(value, list):
        raise BadSettings("{}: must be a list".format(where))
    return value


def text(where: str, value: Any) -> str:
    """`value` is text that can be an argument: not empty, without NUL."""
    if not isinstance(value, str) or not value or "\0" in value:
        raise BadSettings("{}: must be text, not {!r}".format(where, value))
    return value


def word(where: str, value: Any) -> str:
    """`value` is one printable word: it becomes a field of a line."""
    found = text(where, value)
    if not found.isprintable() or len(found.split()) != 1 or found != found.strip():
        raise BadSettings("{}: must be one word, not {!r}".format(where, value))
    return found


def one_of(where: str, value: Any, words: Tuple[str, ...]) -> str:
    """`value` is one of `words`."""
    if value not in words:
        raise BadSettings("{}: must be one of {}, not {!r}".format(where, ", ".join(words), value))
    return str(value)


def truth(where: str, value: Any) -> bool:
    """`value` is true or false."""
    if not isinstance(value, bool):
        raise BadSettings("{}: must be true or false, not {!r}".format(where, value))
    return value


def number(where: str, value: Any, low: float, high: float, whole_only: bool = False) -> float:
    """`value` is a number between `low` and `high`."""
    wrong = isinstance(value, bool) or not isinstance(value, int if whole_only else (int, float))
    if wrong or not low <= value <= high:
        raise BadSettings("{}: must be a number from {:g} to {:g}, not {!r}".format(where, low, high, value))
    return float(value)


def rules(where: str, value: Any) -> Tuple[Rule, ...]:
    """`value` is a list of host patterns."""
    read_one: Callable[[str], Rule] = parse_rule
    try:
        return tuple(read_one(text(where, item)) for item in listed(where, value))
    except BadRule as error:
        raise BadSettings("{}: {}".format(where, error))


def probe(where: str, value: Any) -> Tuple[str, int]:
    """`value` is HOST:PORT."""
    host, _, port = text(where, value).rpartition(":")
    if not host or not host.isprintable() or not (port.isdecimal() and len(port) < 6 and 0 < int(port) < 65536):
        raise BadSettings("{}: must be HOST:PORT, not {!r}".format(where, value))
    return host.strip("[]"), int(port)


def places(where: str, value: Any) -> Tuple[str, ...]:
    """`value` is a list of HOST:PORT, a word each."""
    for item in listed(where, value):
        probe(where, item)
    return tuple(word(where, item) for item in value)

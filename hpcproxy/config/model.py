"""Layers of YAML and flags become one frozen, validated `Config`.

Precedence, lowest first: the defaults below, the site's file, the user's file, the flags of the command line.
Reads the files it is given; writes nothing.
"""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Optional
from urllib.parse import urlsplit

import pydantic
import yaml

from hpcproxy.errors import ConfigError, FileError
from hpcproxy.node.state.policy import BadRule, parse_rule

SITE_CONFIG = Path("/etc/hpcproxy/config.yaml")
# What PyYAML raises for a text that is none: Python's own errors too, for a tag that does not fit its value,
# a date that is none, a number beyond all bounds.
YAML_ERRORS = (yaml.YAMLError, ValueError, LookupError, AttributeError, ArithmeticError, RecursionError)

_ALIAS = "; give it a name in ~/.ssh/config (Host NAME, then HostName, User, Port) and use that"
_USER = re.compile(r"[A-Za-z_][A-Za-z0-9_.+-]*")
_HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9_.-]*[A-Za-z0-9])?")
_JUMP = re.compile(r"(?:(?P<user>[^@]*)@)?(?P<host>\[[^\]]*\]|[^@:]*)(?::(?P<port>[0-9]+))?", re.ASCII)
# What every client understands (docs/clients): names, addresses, `.suffix`, IPv4 networks; no `*.`, no port, no space.
_NO_PROXY_NAME = re.compile(r"\.?[A-Za-z0-9]([A-Za-z0-9_.-]*[A-Za-z0-9])?", re.ASCII)
# ssh splits and expands option values itself; these characters cannot be passed through it on every version.
_PATH_REFUSED = re.compile(r"[\x00-\x1f\x7f\"\\%$`]")


@dataclass(frozen=True)
class Jump:
    """A jump host as `ssh` takes it; `port` None leaves the port to the user's ssh configuration."""

    host: str
    # Optional, here and below: pydantic evaluates annotations, and Python 3.9 cannot do that with `X | None`.
    user: Optional[str] = None
    port: Optional[int] = None

    @classmethod
    def parse(cls, text: str) -> Jump:
        """Return the jump host that `[USER@]HOST[:PORT]` names; raises ValueError with the reason.

        The character sets are narrow on purpose: a value that ssh or a shell could read as anything but a name is
        refused here, once, whatever quoting later stages do.
        """
        match = _JUMP.fullmatch(text)
        if match is None:
            raise ValueError(f"{text!r} is not [USER@]HOST[:PORT]{_ALIAS}")
        user, host, port = match["user"], match["host"], match["port"]
        if user is not None and not _USER.fullmatch(user):
            raise ValueError(
                f"user {user!r} may hold letters, digits and _ . + - only, and starts with a letter or _{_ALIAS}"
            )
        if host.startswith("["):
            host = _ipv6(host[1:-1])
        elif not _HOST.fullmatch(host):
            raise ValueError(
                f"host {host!r} may hold letters, digits and _ . - only, and starts with a letter or digit"
            )
        if port is not None and not 1 <= int(port) <= 65535:  # noqa: PLR2004 - the range of TCP ports
            raise ValueError(f"port {port} is not between 1 and 65535")
        return cls(host=host, user=user, port=int(port) if port else None)

    @property
    def destination(self) -> str:
        """`USER@HOST`, as ssh takes it after `--`."""
        return f"{self.user}@{self.host}" if self.user else self.host

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return (f"{self.user}@" if self.user else "") + host + (f":{self.port}" if self.port else "")


def _ipv6(text: str) -> str:
    try:
        address = ipaddress.IPv6Address(text)
    except ValueError:
        address = None
    # A scope (after %) may hold any character at all, and ssh expands % itself.
    if address is None or "%" in text:
        raise ValueError(f"[{text}] is not an IPv6 address")
    return str(address)


def _jumps(value: object) -> object:
    if isinstance(value, str):
        value = [value]
    if not isinstance(value, (list, tuple)) or not all(isinstance(item, (str, Jump)) for item in value):
        raise ValueError("expected [USER@]HOST[:PORT] or a list of them")
    jumps = tuple(item if isinstance(item, Jump) else Jump.parse(item) for item in value)
    if len(set(jumps)) != len(jumps):
        raise ValueError("the same jump host is named twice")
    return jumps


def safe_path(value: Path) -> Path:
    """Return `value` with `~` expanded, if ssh can take it as it stands; raises ValueError."""
    if _PATH_REFUSED.search(str(value)):
        raise ValueError(f"path {str(value)!r} holds a character that cannot be passed to ssh safely")
    try:
        path = value.expanduser()
        os.fsencode(path)
    except RuntimeError:
        raise ValueError(f"{str(value)!r} names the home of a user who does not exist here") from None
    except UnicodeEncodeError:
        raise ValueError(f"{str(value)!r} is not a path that this system can hold") from None
    if not path.is_absolute():
        raise ValueError(f"{str(value)!r} must be an absolute path or begin with ~/")
    return path


def _entry(value: str) -> str:
    if not _NO_PROXY_NAME.fullmatch(value) and not _is_numeric(value):
        raise ValueError(f"{value!r} is not a name, an address, a .suffix or an IPv4 network (no *, no port, no space)")
    return value


def _is_numeric(value: str) -> bool:
    """Whether `value` is an IPv6 address or an IPv4 network."""
    try:
        return bool(ipaddress.IPv4Network(value, strict=False) if "/" in value else _ipv6(value))
    except ValueError:
        return False


def _rule(value: str) -> str:
    try:
        parse_rule(value)
    except BadRule as error:
        raise ValueError(str(error)) from None
    return value


def _http_url(value: str) -> str:
    if not re.fullmatch(r"https?://[A-Za-z0-9.-]+(:[0-9]{1,5})?(/[!-~]*)?", value, re.ASCII):
        raise ValueError(f"{value!r} is not an http:// or https:// address")
    try:
        urlsplit(value).port  # noqa: B018 - it is the question that raises
    except ValueError:
        raise ValueError(f"{value!r}: there is no such port") from None
    return value


Seconds = Annotated[int, pydantic.Field(ge=1, le=600)]
Rules = tuple[Annotated[str, pydantic.AfterValidator(_rule)], ...]


class Config(pydantic.BaseModel):
    """All settings, valid and final. Field descriptions are the text of docs/configuration.md."""

    model_config = pydantic.ConfigDict(frozen=True, extra="forbid", strict=True)

    jump: Annotated[tuple[Jump, ...], pydantic.BeforeValidator(_jumps)] = pydantic.Field(
        default=(),
        description="Jump hosts, `[USER@]HOST[:PORT]`, one or a list. Nodes share them out, and each other is tried "
        "when one fails.",
    )
    port: int = pydantic.Field(
        default=2015, ge=1024, le=65535, description="TCP port of the way out, the same on every node."
    )
    identity: Annotated[Optional[Path], pydantic.Field(strict=False)] = pydantic.Field(
        default=None, description="Private key for the jump host; without it ssh chooses as it always does."
    )
    gate: bool = pydantic.Field(
        default=True,
        description="Put the gate in front of ssh: HTTP and SOCKS on one port, for this job's user only. `false`, or a "
        "node without python3 (3.6 or later), lets ssh itself listen.",
    )
    via: Literal["ssh", "direct"] = pydantic.Field(
        default="ssh",
        description="How the gate gets out: `ssh`, through a jump host, or `direct`, by the node's own route, where it "
        "has one; `direct` needs no ssh and no jump host.",
    )
    scheme: Literal["socks5h", "socks5"] = pydantic.Field(
        default="socks5h",
        description="How the variables spell the way out where ssh itself listens: `socks5h` resolves names at the "
        "jump host, `socks5` is the older recipe's spelling and needs DNS on the node. The gate's are `http`.",
    )
    replace_proxy: bool = pydantic.Field(
        default=False,
        description="Take the place of a proxy that your environment names already. By default a proxy of your "
        "site's stays in force, and a line says so; one on loopback, the old recipe, is always replaced.",
    )
    autostart: bool = pydantic.Field(
        default=False, description="An interactive shell inside a job starts the way out if none is up."
    )
    required: bool = pydantic.Field(
        default=False, description="Stop the job if the way out is missing, instead of running on without it."
    )
    ready_timeout_s: Seconds = pydantic.Field(
        default=30, description="Seconds a job's prologue waits until every node is ready."
    )
    connect_timeout_s: Seconds = pydantic.Field(
        default=10, description="Seconds one attempt to reach a jump host may take."
    )
    alive_interval_s: Seconds = pydantic.Field(
        default=5, description="Seconds of silence after which ssh asks the jump host whether it is there."
    )
    alive_count: Annotated[int, pydantic.Field(ge=1, le=100)] = pydantic.Field(
        default=3,
        description="So many times `alive_interval_s` without an answer and the connection counts as dead and is made "
        "anew, 2 at least.",
    )
    retry_max_s: Seconds = pydantic.Field(
        default=30, description="Longest pause, in seconds, between two attempts to bring the way out back."
    )
    logins_per_s: Annotated[int, pydantic.Field(ge=1, le=10000)] = pydantic.Field(
        default=32,
        description="Logins in a second that the nodes of one job bring to each jump host: the first ones of a job of "
        "more than 8 nodes are spread over nodes / `logins_per_s` seconds, at most 120.",
    )
    linger_s: Annotated[Optional[int], pydantic.Field(ge=0, le=600)] = pydantic.Field(
        default=None,
        description="Seconds the way out stays at most, after Slurm has told the job to end, while other processes of "
        "the job live on the node; by default `KillWait` of slurm.conf less 2, or 28 where that cannot be read there.",
    )
    hold_s: Annotated[int, pydantic.Field(ge=0, le=600)] = pydantic.Field(
        default=8, description="Seconds the gate lets new requests wait while ssh is away, before it answers 503."
    )
    max_connections: Annotated[int, pydantic.Field(ge=1, le=65536)] = pydantic.Field(
        default=1024, description="Connections the gate serves at once; one more is answered 503."
    )
    allow: Rules = pydantic.Field(
        default=(),
        description="If given, only these may be reached: names, `.suffixes`, `*`, addresses, networks, each with an "
        "optional `:port` or `:port-port`.",
    )
    deny: Rules = pydantic.Field(default=(), description="What may not be reached, whatever `allow` says.")
    access_log: bool = pydantic.Field(
        default=False, description="Keep a line for each connection in the state directory."
    )
    access_syslog: Optional[bool] = pydantic.Field(
        default=None,
        description="Send a line for each connection to the node's system log, where it outlives the job; without it "
        "only a roll-out in service mode does.",
    )
    log_level: Literal["error", "info", "debug"] = pydantic.Field(
        default="info",
        description="What the log in the state directory holds; `debug`: every attempt, all that ssh says.",
    )
    no_proxy: tuple[Annotated[str, pydantic.AfterValidator(_entry)], ...] = pydantic.Field(
        default=(), description="Further names, addresses, `.suffixes` or IPv4 networks that are reached directly."
    )
    bypass_private: bool = pydantic.Field(
        default=True,
        description="Reach private networks (10/8, 172.16/12, 192.168/16) directly; "
        "`false` if a tracker of yours has a private address behind the jump host.",
    )
    check_url: Annotated[str, pydantic.AfterValidator(_http_url)] = pydantic.Field(
        default="https://ipinfo.io/ip", description="What `check` fetches; it must answer with the caller's address."
    )

    @property
    def jump_hosts(self) -> tuple[Jump, ...]:
        """The jump hosts that nodes log in to: none where they get out by themselves."""
        return self.jump if self.via == "ssh" else ()

    @property
    def lacks_jump_host(self) -> bool:
        """Whether nodes are to log in to a jump host, and none is named."""
        return self.via == "ssh" and not self.jump

    @pydantic.field_validator("via", mode="after")
    @classmethod
    def _via(cls, value: str, info: pydantic.ValidationInfo) -> str:
        if value != "ssh" and info.data.get("gate") is False:
            raise ValueError(f"`via: {value}` needs the gate: take `gate: false` out")
        return value

    @pydantic.field_validator("identity", mode="after")
    @classmethod
    def _identity(cls, value: Path | None) -> Path | None:
        return None if value is None else safe_path(value)

    @pydantic.field_validator("no_proxy", "allow", "deny", mode="before")
    @classmethod
    def _lists(cls, value: object) -> object:
        if isinstance(value, str):
            return (value,)
        return tuple(value) if isinstance(value, list) else value  # YAML has lists only


KEYS = tuple(Config.model_fields)


@dataclass(frozen=True)
class Layer:
    """Raw settings and where they came from, for error messages; `text` is what the file says, None: no file."""

    source: str
    values: Mapping[str, Any]
    text: str | None = None


def parse_layer(source: str, text: str) -> Layer:
    """Return the settings in YAML `text`; raises ConfigError on bad YAML, a non-mapping or an unknown key."""
    return Layer(source, parse_mapping(source, text, KEYS), text)


def parse_mapping(source: str, text: str, keys: tuple[str, ...]) -> dict[str, Any]:
    """Return the mapping in YAML `text`, whose keys are among `keys`, each once; raises ConfigError."""
    try:
        values = yaml.safe_load(text)
    except YAML_ERRORS as error:
        mark = getattr(error, "problem_mark", None)
        where = f"line {mark.line + 1}" if mark else ""
        raise ConfigError(source, where, f"not valid YAML: {getattr(error, 'problem', None) or error}") from None
    values = {} if values is None else values
    if not isinstance(values, dict):
        raise ConfigError(source, "", "expected `key: value` lines", keys)
    for key in values:
        if key not in keys:
            raise ConfigError(source, str(key), "unknown key", keys)
    _refuse_doubles(source, text)
    return values


def _refuse_doubles(source: str, text: str) -> None:
    """Raise ConfigError for a key given twice: PyYAML would silently take the last."""
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    names = [name.value for name, _ in root.value] if isinstance(root, yaml.MappingNode) else []
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(source, name, "is given more than once")


def read_layer(path: Path) -> Layer:
    """Return the settings in the file at `path`, none if it does not exist; raises ConfigError or FileError."""
    try:
        text = path.read_bytes().decode()  # a line's end stays what it is
    except FileNotFoundError:
        return Layer(str(path), {})
    except UnicodeDecodeError:
        raise ConfigError(str(path), "", "is not UTF-8 text") from None
    except OSError as error:
        raise FileError(path, f"cannot be read: {error.strerror}") from None
    return parse_layer(str(path), text)


def resolve(*layers: Layer) -> Config:
    """Return the one configuration that `layers`, lowest precedence first, amount to; raises ConfigError.

    A wrong value is reported with the layer it came from, even where a later layer overrides it: a wrong line in a
    file is a mistake to hear of now, not on the day the override goes.
    """
    merged: dict[str, Any] = {}
    for layer in layers:
        _validate(layer.source, layer.values)
        merged.update(layer.values)
    return _validate("settings", merged)


def _validate(source: str, values: Mapping[str, Any]) -> Config:
    try:
        return Config.model_validate(dict(values))
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        key = str(first["loc"][0]) if first["loc"] else ""
        reason = first["msg"].removeprefix("Value error, ")
        shown = f"{reason} (got {first['input']!r})" if first["type"] != "value_error" else reason
        raise ConfigError(source, key, shown, _valid_values(key)) from None


def _valid_values(key: str) -> tuple[str, ...]:
    field = Config.model_fields.get(key)
    if field is None:
        return KEYS
    if field.annotation is bool:
        return ("true", "false")
    return tuple(getattr(field.annotation, "__args__", ())) if "Literal" in str(field.annotation) else ()

"""The settings, one table: key, type, bounds, default, text and who needs it; and one frozen, validated `Config`. Pure.

What shells and the agent get of it (files/plan.py) and the reference in docs/configuration.md are made from this table.
The agent, which imports nothing of ours, has bounds of its own, and a test holds them against these.
"""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Optional
from urllib.parse import urlsplit

import pydantic

from hpcproxy.node.state.policy import BadRule, parse_rule

_ALIAS = "; give it a name in ~/.ssh/config (Host NAME, then HostName, User, Port) and use that"
_USER = re.compile(r"[A-Za-z_][A-Za-z0-9_.+-]*")
_HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9_.-]*[A-Za-z0-9])?")
_JUMP = re.compile(r"(?:(?P<user>[^@]*)@)?(?P<host>\[[^\]]*\]|[^@:]*)(?::(?P<port>[0-9]+))?", re.ASCII)
_PROXY = re.compile(r"(?P<kind>http|socks5)://(?P<place>[^@/]+)/?", re.ASCII)
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


def _tunnel(value: str) -> str:
    if value in {"ssh", "direct"}:
        return value
    match = _PROXY.fullmatch(value)
    if match is None:
        advice = "; a login goes into the file that `proxy_auth_file` names" if "@" in value else ""
        raise ValueError(f"{value!r} is none of ssh, direct, http://HOST:PORT, socks5://HOST:PORT{advice}")
    jump = Jump.parse(match["place"])
    if jump.port is None:
        raise ValueError(f"{value!r} names no port")
    return f"{match['kind']}://{jump}"


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

# Who needs a setting: the program that is typed, the scripts, the agent.
CLIENT, SHELL, AGENT = "client", "shell", "agent"
_ALL = (CLIENT, SHELL, AGENT)


def _setting(
    default: object, text: str, needs: Sequence[str], *, low: int | None = None, high: int | None = None, told: str = ""
) -> Any:  # noqa: ANN401 - the type stands beside it
    """Return a field; `told` is what the manual says of the default where the value alone does not."""
    extra: dict[str, Any] = {"needs": list(needs), "told": told}
    return pydantic.Field(default=default, ge=low, le=high, description=text, json_schema_extra=extra)


class Config(pydantic.BaseModel):
    """All settings, valid and final. The texts are those of docs/configuration.md."""

    model_config = pydantic.ConfigDict(frozen=True, extra="forbid", strict=True)

    jump: Annotated[tuple[Jump, ...], pydantic.BeforeValidator(_jumps)] = _setting(
        (),
        "Jump hosts, `[USER@]HOST[:PORT]`, one or a list. Nodes share them out, and each other is tried when one fails."
        " Names from your `~/.ssh/config` work.",
        _ALL,
    )
    port: int = _setting(2015, "TCP port of the tunnel, the same on every node.", (CLIENT, SHELL), low=1024, high=65535)
    identity: Annotated[Optional[Path], pydantic.Field(strict=False)] = _setting(
        None, "Private key for the jump host; without it ssh chooses as it always does.", (CLIENT, SHELL)
    )
    agent: bool = _setting(
        True,
        "Put the agent in front of ssh: HTTP and SOCKS on one port, for this job's user only. `false`, or a node"
        " without python3 (3.6 or later), lets ssh itself listen.",
        (SHELL,),
    )
    via: Annotated[str, pydantic.AfterValidator(_tunnel)] = _setting(
        "ssh",
        "How the agent gets out: `ssh`, through a jump host; `direct`, by the node's own route, where it has one;"
        " `http://HOST:PORT` or `socks5://HOST:PORT`, through a proxy of the site's. Only `ssh` needs ssh and a jump"
        " host. [More](#without-a-jump-host).",
        (CLIENT, SHELL),
    )
    proxy_auth_file: Annotated[Optional[Path], pydantic.Field(strict=False)] = _setting(
        None,
        "The file with `USER:PASSWORD` for the proxy in `via`, in its first line; yours alone (mode 0600), and read by"
        " the agent only.",
        (CLIENT,),
    )
    scheme: Literal["socks5h", "socks5"] = _setting(
        "socks5h",
        "How the variables spell the tunnel where ssh itself listens: `socks5h` resolves names at the jump host,"
        " `socks5` is the older recipe's spelling and needs DNS on the node. The agent's are `http`.",
        (SHELL,),
    )
    replace_proxy: bool = _setting(
        False,
        "Take the place of a proxy that your environment names already. By default a proxy of your site's stays in"
        " force, and a line says so; one on loopback, the old recipe, is always replaced.",
        (SHELL,),
    )
    autostart: bool = _setting(False, "An interactive shell inside a job starts the tunnel if none is up.", (SHELL,))
    required: bool = _setting(
        False, "Stop the job if the tunnel is missing, instead of running on without it.", (SHELL,)
    )
    ready_timeout_s: int = _setting(
        30, "Seconds a job's prologue waits until every node is ready.", (CLIENT, SHELL), low=1, high=600
    )
    connect_timeout_s: int = _setting(10, "Seconds one attempt to reach a jump host may take.", _ALL, low=1, high=600)
    alive_interval_s: int = _setting(
        5, "Seconds of silence after which ssh asks the jump host whether it is there.", (SHELL, AGENT), low=1, high=600
    )
    alive_count: int = _setting(
        3,
        "So many times `alive_interval_s` without an answer and the connection counts as dead and is made anew, 2 at"
        " least.",
        (SHELL, AGENT),
        low=1,
        high=100,
    )
    retry_max_s: int = _setting(
        30,
        "Longest pause, in seconds, between two attempts to bring the tunnel back.",
        (SHELL, AGENT),
        low=1,
        high=600,
    )
    logins_per_s: int = _setting(
        32,
        "Logins in a second that the nodes of one job bring to each jump host: the first ones of a job of more than 8"
        " nodes are spread over nodes / `logins_per_s` seconds, at most 120. `ready_timeout_s` and `task_wait_s` begin"
        " after that.",
        (SHELL, AGENT),
        low=1,
        high=10000,
    )
    grace_s: Optional[int] = _setting(
        None,
        "Seconds the tunnel stays at most, after Slurm has told the job to end, while other processes of the job live"
        " on the node; by default `KillWait` of slurm.conf less 2, or 28 where that cannot be read there.",
        (SHELL, AGENT),
        low=0,
        high=600,
        told="`KillWait` − 2",
    )
    hold_s: int = _setting(
        8,
        "Seconds the agent lets new requests wait while ssh is away, before it answers 503.",
        (AGENT,),
        low=0,
        high=600,
    )
    max_connections: int = _setting(
        1024, "Connections the agent serves at once; one more is answered 503.", (AGENT,), low=1, high=65536
    )
    allow: Rules = _setting(
        (),
        "If given, only these may be reached: names, `.suffixes`, `*`, addresses, networks, each with an optional"
        " `:port` or `:port-port`.",
        (CLIENT, AGENT),
    )
    deny: Rules = _setting((), "What may not be reached, whatever `allow` says.", (AGENT,))
    access_log: bool = _setting(
        False,
        "Keep a line for each connection in the state directory, as long as the tunnel lives: time, host and port,"
        " bytes up and down, seconds, outcome.",
        (AGENT,),
    )
    access_syslog: Optional[bool] = _setting(
        None,
        "Send a line for each connection to the node's system log ([who reached what](security.md#who-reached-what)),"
        " where it outlives the job. Without it a roll-out in service mode does, and nothing else.",
        (AGENT,),
        told="by `mode`",
    )
    log_level: Literal["error", "info", "debug"] = _setting(
        "info",
        "What the log in the state directory holds: `error` what went wrong, `info` each change of state, `debug` every"
        " attempt and all that ssh says.",
        (SHELL, AGENT),
    )
    no_proxy: tuple[Annotated[str, pydantic.AfterValidator(_entry)], ...] = _setting(
        (),
        "Further names, addresses, `.suffixes` or IPv4 networks that are reached directly. No `*.`, no port: half of"
        " the clients do not know them.",
        (SHELL,),
    )
    bypass_private: bool = _setting(
        True,
        "Reach private networks (10/8, 172.16/12, 192.168/16) directly; `false` if a tracker of yours has a private"
        " address behind the jump host.",
        (SHELL,),
    )
    check_url: Annotated[str, pydantic.AfterValidator(_http_url)] = _setting(
        "https://ipinfo.io/ip", "What `check` fetches; it must answer with the caller's address.", (CLIENT,)
    )

    @property
    def jump_hosts(self) -> tuple[Jump, ...]:
        """The jump hosts that nodes log in to: none where they get out by themselves."""
        return self.jump if self.via == "ssh" else ()

    @property
    def lacks_jump_host(self) -> bool:
        """Whether nodes are to log in to a jump host, and none is named."""
        return self.via == "ssh" and not self.jump

    @property
    def site_proxy(self) -> Optional[tuple[str, Jump]]:
        """The kind of the site's proxy that nodes get out by, and where it is."""
        kind, _, place = self.via.partition("://")
        return (kind, Jump.parse(place)) if place else None

    @pydantic.field_validator("via", mode="after")
    @classmethod
    def _via(cls, value: str, info: pydantic.ValidationInfo) -> str:
        if value != "ssh" and info.data.get("agent") is False:
            raise ValueError(f"`via: {value}` needs the agent: take `agent: false` out")
        return value

    @pydantic.field_validator("identity", "proxy_auth_file", mode="after")
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
OLD_KEYS = {"gate": "agent", "linger_s": "grace_s"}  # names that keys had before; they mean the same


@dataclass(frozen=True)
class Setting:
    """A row of the table; `kind` is the type, `low` and `high` bound a number, `told` is the default in words."""

    key: str
    kind: Any
    low: int | None
    high: int | None
    default: Any
    text: str
    needs: tuple[str, ...]
    told: str


def settings() -> tuple[Setting, ...]:
    """Return the table, in the order in which people read it."""
    return tuple(_row(key, field) for key, field in Config.model_fields.items())


def _row(key: str, field: pydantic.fields.FieldInfo) -> Setting:
    bounds = {name: getattr(one, name) for one in field.metadata for name in ("ge", "le") if hasattr(one, name)}
    extra: Any = field.json_schema_extra
    return Setting(
        key=key,
        kind=field.annotation,
        low=bounds.get("ge"),
        high=bounds.get("le"),
        default=field.default,
        text=field.description or "",
        needs=tuple(extra["needs"]),
        told=extra["told"],
    )

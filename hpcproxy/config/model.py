"""The settings, one table: key, type, bounds, default, text and who needs it; and one frozen, validated `Config`. Pure.

What shells and the agent get of it (files/plan.py) and the reference in docs/configuration.md are made from this table.
The agent, which imports nothing of ours, has bounds of its own, and a test holds them against these.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Optional

import pydantic

from hpcproxy.config import values

Jump = values.Jump  # of the types those that others need, too
safe_path = values.safe_path

Seconds = Annotated[int, pydantic.Field(ge=1, le=600)]


def _authorities(value: str | None) -> str | None:
    return None if value is None else values.authorities(value)


def _first_way(value: str | None) -> str | None:
    return None if value is None else values.first_way(value)


Rules = tuple[Annotated[str, pydantic.AfterValidator(values.rule)], ...]

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

    jump: Annotated[tuple[Jump, ...], pydantic.BeforeValidator(values.jumps)] = _setting(
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
    adopt: Annotated[Optional[Path], pydantic.Field(strict=False)] = _setting(
        None,
        "With `via: adopt`: the control socket (`ControlPath`) of an ssh in which you have logged in, on the machine"
        " where it is to be used. It is kept from ending by itself, and never ended.",
        (CLIENT,),
    )
    via: Annotated[str, pydantic.AfterValidator(values.tunnel)] = _setting(
        "ssh",
        "How the agent gets out: `ssh`, through a jump host; `direct`, by the node's own route, where it has one;"
        " `http://HOST:PORT` or `socks5://HOST:PORT`, through a proxy of the site's; `auto`, by the first of these that"
        " serves; `reverse`, by [`hpcproxy serve`](reverse.md) from where you are logged in; `adopt`, through an ssh"
        " that you have logged in yourself. Only `ssh` needs ssh and a jump host. [More](#without-a-jump-host).",
        (CLIENT, SHELL),
    )
    via_first: Annotated[Optional[str], pydantic.AfterValidator(_first_way)] = _setting(
        None,
        "What `via: auto` tries before all else: the site's word, `direct`, `http://HOST:PORT` or `socks5://HOST:PORT`.",
        (CLIENT,),
    )
    direct_targets: Annotated[
        tuple[Annotated[str, pydantic.AfterValidator(values.place)], ...], pydantic.Field(min_length=1, max_length=16)
    ] = _setting(
        ("pypi.org:443", "github.com:443", "huggingface.co:443"),
        "What `via: auto` asks on a node that has a default route: two thirds of these must answer, within a second,"
        " with a certificate that is verified. Then the node reaches the internet by itself.",
        (CLIENT,),
        told="PyPI, GitHub, Hugging Face",
    )
    proxy_auth_file: Annotated[Optional[Path], pydantic.Field(strict=False)] = _setting(
        None,
        "The file with `USER:PASSWORD` for the proxy in `via`, in its first line; yours alone (mode 0600), and read by"
        " the agent only.",
        (CLIENT,),
    )
    proxy_ca: Annotated[Optional[str], pydantic.AfterValidator(_authorities)] = _setting(
        None,
        "For a proxy of the site's that intercepts TLS: the list of authorities that programs are given by their usual"
        " variables, a path; `auto` looks whether one is needed. [More](#a-proxy-that-intercepts-tls).",
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
    quiet: bool = _setting(
        False,
        "Say nothing when all is well. Without it the hook says one line: through which jump host, on how many nodes,"
        " how soon.",
        (SHELL,),
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
    no_proxy: tuple[Annotated[str, pydantic.AfterValidator(values.entry)], ...] = _setting(
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
    check_url: Annotated[str, pydantic.AfterValidator(values.http_url)] = _setting(
        "https://ipinfo.io/ip", "What `check` fetches; it must answer with the caller's address.", (CLIENT,)
    )

    @property
    def jump_hosts(self) -> tuple[Jump, ...]:
        """The jump hosts that nodes log in to, if only as the last way: none where they get out by themselves."""
        return self.jump if self.via in ("ssh", "auto") else ()

    @property
    def uses_ssh(self) -> bool:
        """Whether nodes may log in to a jump host, or are to though none is named."""
        return self.via == "ssh" or bool(self.jump_hosts)

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
        if value == "adopt" and info.data.get("adopt") is None:
            raise ValueError("`via: adopt` needs to know which ssh: say `adopt: PATH`, its control socket")
        return value

    @pydantic.field_validator("identity", "proxy_auth_file", "adopt", mode="after")
    @classmethod
    def _identity(cls, value: Path | None) -> Path | None:
        return None if value is None else safe_path(value)

    @pydantic.field_validator("no_proxy", "allow", "deny", "direct_targets", mode="before")
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

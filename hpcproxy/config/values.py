"""What single values of the settings may be: jump hosts, paths, names, rules, ways and addresses. Pure.

Each function returns the value as it is used, or raises ValueError with the reason.
"""

from __future__ import annotations

import ipaddress
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Optional
from urllib.parse import urlsplit

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


def jumps(value: object) -> object:
    """One jump host or a list of them, each once."""
    if isinstance(value, str):
        value = [value]
    if not isinstance(value, (list, tuple)) or not all(isinstance(item, (str, Jump)) for item in value):
        raise ValueError("expected [USER@]HOST[:PORT] or a list of them")
    hosts = tuple(item if isinstance(item, Jump) else Jump.parse(item) for item in value)
    if len(set(hosts)) != len(hosts):
        raise ValueError("the same jump host is named twice")
    return hosts


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


def entry(value: str) -> str:
    """An entry of no_proxy that every client understands."""
    if not _NO_PROXY_NAME.fullmatch(value) and not _is_numeric(value):
        raise ValueError(f"{value!r} is not a name, an address, a .suffix or an IPv4 network (no *, no port, no space)")
    return value


def _is_numeric(value: str) -> bool:
    """Whether `value` is an IPv6 address or an IPv4 network."""
    try:
        return bool(ipaddress.IPv4Network(value, strict=False) if "/" in value else _ipv6(value))
    except ValueError:
        return False


def rule(value: str) -> str:
    """A rule as the agent reads it."""
    try:
        parse_rule(value)
    except BadRule as error:
        raise ValueError(str(error)) from None
    return value


def tunnel(value: str) -> str:
    """A value of `via`."""
    if value in {"ssh", "direct", "reverse", "adopt", "auto"}:
        return value
    match = _PROXY.fullmatch(value)
    if match is None:
        advice = "; a login goes into the file that `proxy_auth_file` names" if "@" in value else ""
        raise ValueError(
            f"{value!r} is none of auto, ssh, direct, reverse, adopt, http://HOST:PORT, socks5://HOST:PORT{advice}"
        )
    jump = Jump.parse(match["place"])
    if jump.port is None:
        raise ValueError(f"{value!r} names no port")
    return f"{match['kind']}://{jump}"


def http_url(value: str) -> str:
    """An address that `check` can fetch."""
    if not re.fullmatch(r"https?://[A-Za-z0-9.-]+(:[0-9]{1,5})?(/[!-~]*)?", value, re.ASCII):
        raise ValueError(f"{value!r} is not an http:// or https:// address")
    try:
        urlsplit(value).port  # noqa: B018 - it is the question that raises
    except ValueError:
        raise ValueError(f"{value!r}: there is no such port") from None
    return value


def first_way(value: str) -> str:
    """A value of `via_first`: one of `via` that needs no jump host."""
    if tunnel(value) in {"ssh", "auto"}:
        raise ValueError(f"{value!r} is none of direct, http://HOST:PORT, socks5://HOST:PORT")
    return tunnel(value)


def authorities(value: str) -> str:
    """A value of `proxy_ca`."""
    return value if value == "auto" else str(safe_path(Path(value)))


def place(value: str) -> str:
    """A name or an address and its port."""
    jump = Jump.parse(value)
    if jump.user is not None or jump.port is None:
        raise ValueError(f"{value!r} is not HOST:PORT")
    return str(jump)

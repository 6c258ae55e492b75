"""How each host is reached: what the inventory says, then what ssh's own configuration says. Runs `ssh -G`.

One answer serves for all hosts where no line of any file that ssh reads depends on the host, which ssh itself is asked.
"""

from __future__ import annotations

import os
import pwd
import re
import subprocess
import threading
from dataclasses import dataclass, replace
from pathlib import Path

from hpcproxy.config.model import Jump
from hpcproxy.openssh import configuration

_ROOT = "root"
_SSH_PORT = 22
_READS = re.compile(rb"^debug1: Reading configuration data (.+?)\r?$", re.MULTILINE)
# A line by which one host's settings differ from another's. Those of `Host *` and `Match all` do not.
_OF_SOME_HOSTS = re.compile(
    rb"^[ \t]*(?:host[ \t=]+(?!\"?\*\"?[ \t]*\r?$)|match[ \t=]+(?!(?:final[ \t]+)?all[ \t]*\r?$)|hostname\b|canonical|"
    rb"hostkeyalias\b)",
    re.MULTILINE | re.IGNORECASE,
)


@dataclass(frozen=True)
class Route:
    """How one host is reached; `known_name` is what is looked up in known_hosts.

    `plain`: nothing of ssh's configuration is needed for it beyond address, port and user, so that Paramiko may go.
    """

    host: str
    address: str
    port: int
    user: str
    known_name: str
    plain: bool


class Routes:
    """The routes of one run. What the inventory says itself (`user`, `port`, an identity) comes before ssh's files."""

    def __init__(self, user: str | None, port: int | None, *, own_identity: bool, own_way: bool) -> None:
        self._user, self._port = user, port
        self._own_identity, self._own_way = own_identity, own_way
        self._asking = threading.Lock()
        self._differ: bool | None = None
        self._common: configuration.Resolved | None = None

        self._users: dict[str, str] = {}

    def of(self, host: str, *, user: str | None = None, port: int | None = None) -> Route:
        """Return how `host` is reached; raises TunnelError with ssh's words if it cannot read its configuration."""
        found = self._resolved(Jump(host, user or self._user, port or self._port))
        login = self._users[host] = user or self._user or _configured_user(found)
        return Route(host, found.hostname, found.port, login, found.name, self._is_plain(found))

    def user(self, host: str) -> str:
        """Return as whom `host` is logged in to, as far as is known."""
        return self._users.get(host, self._user or _ROOT)

    def _resolved(self, jump: Jump) -> configuration.Resolved:
        with self._asking:
            if self._differ is None:
                self._differ = _hosts_differ(jump.host)
            if not self._differ and self._common is None:
                self._common = configuration.ask(Jump(jump.host, self._user, self._port))
        if self._common is None:
            return configuration.ask(jump)
        same = self._common
        return replace(same, asked=jump, hostname=jump.host, user=jump.user or same.user, port=jump.port or same.port)

    def _is_plain(self, found: configuration.Resolved) -> bool:
        way = self._own_way or not (found.proxy_jump or found.proxy_command)
        keys = self._own_identity or (
            found.identity_agent in (None, "SSH_AUTH_SOCK", os.environ.get("SSH_AUTH_SOCK"))
            and not found.identities_only
            and all(_is_default(path) for path in found.identity_files)
        )
        return way and keys and not found.certificate_files


def _is_default(identity: Path) -> bool:
    return identity.parent.name == ".ssh" and identity.name.startswith("id_")


def _configured_user(found: configuration.Resolved) -> str:
    """Return the user that ssh's files name; root where they name none, which `ssh -G` tells by our own name."""
    return _ROOT if found.user in ("", pwd.getpwuid(os.getuid()).pw_name) else found.user


def _hosts_differ(host: str) -> bool:
    """Whether ssh's configuration may say something else for other hosts than for `host`; in doubt it does."""
    try:
        asked = configuration.run(["ssh", "-G", "-v", "--", host], 20)
        files = [Path(os.fsdecode(name)) for name in _READS.findall(asked.stderr)]
        return any(_OF_SOME_HOSTS.search(file.read_bytes()) for file in files)
    except (OSError, subprocess.TimeoutExpired):
        return True

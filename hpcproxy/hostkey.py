"""Fetch a jump host's key and pin it in our own known_hosts. Connects; writes nothing.

The key is fetched with Fabric, which follows the user's ssh configuration (HostName, Port, ProxyJump) and stops before
any login, so that a host is never talked to as a user before its key has been shown. Format: sshd(8), "SSH_KNOWN_HOSTS
FILE FORMAT".
"""

from __future__ import annotations

import base64
import errno
import hashlib
import logging
import socket
from dataclasses import dataclass
from typing import NoReturn

import fabric
import paramiko

from hpcproxy.config import Jump
from hpcproxy.dial import dial, hang_up
from hpcproxy.errors import WayOutError

_SSH_PORT = 22


@dataclass(frozen=True)
class HostKey:
    """The key that `name` showed; `name` is what ssh looks up: HOST, or [HOST]:PORT for another port than 22."""

    name: str
    kind: str
    data: str

    @property
    def fingerprint(self) -> str:
        """`SHA256:…` as ssh-keygen -l prints it."""
        digest = hashlib.sha256(base64.b64decode(self.data)).digest()
        return "SHA256:" + base64.b64encode(digest).decode().rstrip("=")

    @property
    def line(self) -> str:
        """The line of known_hosts."""
        return f"{self.name} {self.kind} {self.data}\n"


class _Shown(Exception):  # noqa: N818 - no error: it carries the key out of the handshake
    def __init__(self, key: paramiko.PKey) -> None:
        self.key = key


class _ShowOnly(paramiko.MissingHostKeyPolicy):
    """Ends the connection once the key is known, before any login."""

    def missing_host_key(self, client: object, hostname: str, key: paramiko.PKey) -> NoReturn:  # noqa: ARG002
        raise _Shown(key)


def fetch(jump: Jump, timeout_s: int, gateway: fabric.Connection | None = None) -> HostKey:
    """Return the key that `jump` shows now, `gateway` being the way there if given.

    Raises WayOutError naming the layer that failed.
    """
    # Paramiko logs what it also raises; without a handler that would reach the user's screen.
    logging.getLogger("paramiko").addHandler(logging.NullHandler())
    connection = fabric.Connection(
        jump.host,
        user=jump.user,
        port=jump.port,
        gateway=gateway,
        connect_timeout=timeout_s,
        connect_kwargs={"banner_timeout": timeout_s, "allow_agent": False, "look_for_keys": False, "password": ""},
    )
    connection.client.set_missing_host_key_policy(_ShowOnly())
    if gateway is None and isinstance(connection.gateway, fabric.Connection):
        # A host on the way is trusted only if the user trusts it already; Fabric alone would take any.
        connection.gateway.client.load_system_host_keys()
        connection.gateway.client.set_missing_host_key_policy(paramiko.RejectPolicy())
    name = connection.ssh_config.get("hostkeyalias") or connection.host
    port = connection.port or _SSH_PORT
    try:
        if connection.gateway is None:
            dial(connection, timeout_s)
        connection.open()
    except _Shown as shown:
        shown_name = name if port == _SSH_PORT else f"[{name}]:{port}"
        return HostKey(shown_name, shown.key.get_name(), shown.key.get_base64())
    except (OSError, EOFError, paramiko.SSHException) as error:
        _raise_layer(error, str(jump))
    finally:
        hang_up(connection)
    raise WayOutError("host-key", "no host key was shown", jump=str(jump))


def _raise_layer(error: Exception, jump: str) -> NoReturn:
    if isinstance(error, paramiko.ssh_exception.NoValidConnectionsError):  # one error for each address of the name
        error = next(iter(error.errors.values()))
    if isinstance(error, socket.gaierror):
        raise WayOutError("name", "does not resolve here", "use its address, or ask for DNS", jump) from None
    if isinstance(error, ConnectionRefusedError):
        raise WayOutError("route", "nothing listens at its ssh port", "is the port right?", jump) from None
    if isinstance(error, (TimeoutError, socket.timeout)):
        advice = "is the address right, and is its firewall open to this machine?"
        raise WayOutError("route", "does not answer", advice, jump) from None
    if isinstance(error, OSError):
        known = {errno.EHOSTUNREACH: "no route to it from here", errno.ENETUNREACH: "no route to it from here"}
        reason = known.get(error.errno or 0, f"cannot be reached: {error.strerror or error}")
        raise WayOutError("route", reason, "is this machine on its network?", jump) from None
    raise WayOutError("ssh", f"does not speak ssh as expected: {error or 'it hung up'}", "", jump) from None


def pin(known_hosts: str, key: HostKey) -> str:
    """Return the text of `known_hosts` with `key` as the only key of its name."""
    kept = [line for line in known_hosts.splitlines(keepends=True) if line.split(" ", 1)[0] != key.name]
    text = "".join(kept)
    return text + ("\n" if text and not text.endswith("\n") else "") + key.line


def is_other(known_hosts: str, key: HostKey) -> bool:
    """Whether `known_hosts` knows the name of `key` with other keys only, be they of its kind or of another."""
    lines = [line.split() for line in known_hosts.splitlines()]
    known = [fields[1:3] for fields in lines if fields and key.name in fields[0].split(",")]
    return bool(known) and [key.kind, key.data] not in known


def pinned(known_hosts: str, name: str, kind: str) -> str | None:
    """Return the base64 data that `known_hosts` holds for `name` and `kind`, None if it holds none."""
    for line in known_hosts.splitlines():
        fields = line.split()
        if len(fields) >= 3 and name in fields[0].split(",") and fields[1] == kind:  # noqa: PLR2004 - name, kind, data
            return fields[2]
    return None

"""A jump host that lies: an ssh server whose key is right, and that says and does what no sshd would."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import paramiko
from paramiko.common import cMSG_DISCONNECT, cMSG_USERAUTH_BANNER

from tests import sshd

# What ssh itself would say, in the words of a jump host; escape sequences for whoever shows it.
LIES = (
    "\n@    WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED!     @\nHost key verification failed.\n"
    "Permissions 0644 for '/etc/passwd' are too open.\nuser@host: Permission denied (publickey).\n"
    "debug1: channel 0: open failed: connect failed: Connection refused\nConnection timed out during banner exchange\n"
    "Authenticated to host\nssh: Could not resolve hostname x: y\n\x1b]0;PWN\x07\x1b[31mIdle sessions are timed out.\n"
)


@dataclass
class _Server(paramiko.ServerInterface):
    transport: paramiko.Transport
    at_login: Callable[[paramiko.Transport], None]
    takes_keys: bool
    logins: list[str] = field(default_factory=list)

    def get_allowed_auths(self, _username: str) -> str:
        return "publickey"

    def check_auth_none(self, _username: str) -> int:
        self.at_login(self.transport)
        return int(paramiko.common.AUTH_FAILED)

    def check_auth_publickey(self, _username: str, _key: paramiko.PKey) -> int:
        return int(paramiko.common.AUTH_SUCCESSFUL if self.takes_keys else paramiko.common.AUTH_FAILED)

    def check_channel_direct_tcpip_request(self, _number: int, _origin: Any, _target: Any) -> int:
        return int(paramiko.common.OPEN_FAILED_CONNECT_FAILED)


def banner(text: str) -> Callable[[paramiko.Transport], None]:
    """At the login it sends `text`."""

    def send(transport: paramiko.Transport) -> None:
        message = paramiko.Message()
        message.add_byte(cMSG_USERAUTH_BANNER)
        message.add_string(text)
        message.add_string("")
        transport._send_message(message)

    return send


def flood(transport: paramiko.Transport) -> None:
    """At the login it sends banners until nobody reads."""
    with contextlib.suppress(Exception):
        while transport.is_active():
            banner("\n".join(f"line {number}" for number in range(2000)))(transport)


def disconnect(text: str) -> Callable[[paramiko.Transport], None]:
    """At the login it ends the connection and says why."""

    def send(transport: paramiko.Transport) -> None:
        message = paramiko.Message()
        message.add_byte(cMSG_DISCONNECT)
        message.add_int(2)
        message.add_string(text)
        message.add_string("")
        transport._send_message(message)

    return send


def hang_up(transport: paramiko.Transport) -> None:
    """At the login it closes the connection."""
    transport.sock.shutdown(socket.SHUT_RDWR)


@contextlib.contextmanager
def running(
    directory: Path,
    at_login: Callable[[paramiko.Transport], None],
    *,
    takes_keys: bool = False,
    old: bool = False,
    shut_out: list[float] | None = None,
) -> Iterator[dict[str, Any]]:
    """Have one; yields what `write_script` needs to go through it. An `old` one knows RSA with SHA-1 only.

    With `shut_out` it hangs up on all but the first at once; when, is written down there.
    """
    directory.mkdir()
    key = sshd.make_key(directory / "host_key")
    identity = sshd.make_key(directory / "id", kind="rsa" if old else "ed25519")
    listener = socket.create_server(("127.0.0.1", 0))
    transports: list[paramiko.Transport] = []

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                connection = listener.accept()[0]
                if shut_out is not None and transports:
                    connection.close()
                    shut_out.append(time.monotonic())
                    continue
                transport = paramiko.Transport(connection, server_sig_algs=not old)
                transport.add_server_key(paramiko.Ed25519Key.from_private_key_file(str(key)))
                transports.append(transport)
                with contextlib.suppress(paramiko.SSHException, EOFError):
                    transport.start_server(threading.Event(), _Server(transport, at_login, takes_keys))

    thread = threading.Thread(target=serve)
    thread.start()
    port = listener.getsockname()[1]
    public = " ".join(key.with_suffix(".pub").read_text().split()[:2])
    try:
        yield {
            "jump": f"user@127.0.0.1:{port}",
            "identity": str(identity),
            "known_hosts": f"[127.0.0.1]:{port} {public}\n",
        }
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()
        listener.close()
        for transport in transports:
            transport.close()

"""One conversation with one host over Paramiko: a login, one exec, what goes in, what comes out. Connects.

The transport's raw channel is used, for Fabric's `run(in_stream=…)` feeds a character at a time.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Mapping
from typing import Any

import fabric
import paramiko
from paramiko.common import cMSG_CHANNEL_REQUEST

from hpcproxy.cluster.become import SudoDialogue
from hpcproxy.cluster.dial import Bounds, Prompt, dial

_CHUNK_BYTES = 32000  # what fits into one packet of ssh
# Paramiko compares and sorts every name it could speak several times for each connection, and computes other MACs than
# GCM's own in Python: a short list of the cheapest that every sshd of the last ten years knows halves its CPU time.
_CIPHERS = ("aes128-gcm@openssh.com", "aes256-gcm@openssh.com", "aes128-ctr", "aes256-ctr")
_KEX = ("curve25519-sha256@libssh.org", "ecdh-sha2-nistp256", "ecdh-sha2-nistp384", "diffie-hellman-group16-sha512")
_MACS = ("hmac-sha2-256-etm@openssh.com", "hmac-sha2-512-etm@openssh.com", "hmac-sha2-256", "hmac-sha2-512")
_LOOK_S = 1.0  # Paramiko looks ten times a second whether a connection is to end, which ours tell at once


class Connection(fabric.Connection):  # type: ignore[misc]  # Fabric has no types
    """One that leaves the Config alone, which all of them share.

    Fabric's looks for a setting of that name, among all there are, whenever one of its attributes is set, and changes
    the Config for one of them, while other threads read it.
    """

    def __setattr__(self, name: str, value: object) -> None:
        object.__setattr__(self, name, value)


def open_connection(
    connection: fabric.Connection, timeout_s: float, bounds: Bounds, gateway: fabric.Connection | None = None
) -> None:
    """`connection` is dialled, through `gateway` if given, and logged in; raises OSError, EOFError, SSHException."""
    dial(connection, timeout_s, bounds, gateway)
    try:
        connection.open()
    except (OSError, EOFError, paramiko.SSHException):
        raise
    except Exception as error:
        # Bytes that are no ssh make Paramiko raise whatever its parser met: one host's trouble, and no other's.
        raise paramiko.SSHException(f"what came is none, {type(error).__name__}: {error}") from error
    bounds.logged_in()


def talk(
    connection: fabric.Connection, command: str, message: bytes, timeout_s: float, dialogue: SudoDialogue | None = None
) -> tuple[bytes, bytes]:
    """Have `connection`, which is open, run `command` and read `message`; return its stdout and stderr.

    `dialogue` is talked to first, if there is one; raises NotRootError where it stays shut.
    """
    # It ends with the connection; a word of its own about that would only be answered.
    channel = connection.transport.open_session(timeout=timeout_s)
    channel.settimeout(timeout_s)
    channel.set_combine_stderr(dialogue is not None)
    _execute(channel, command)
    if dialogue is not None:
        _pass(channel, dialogue)
    return _converse(channel, message)


def _pass(channel: paramiko.Channel, dialogue: SudoDialogue) -> None:
    said = bytearray()
    while not dialogue.open:
        chunk = channel.recv(_CHUNK_BYTES)
        if not chunk:
            raise dialogue.shut(bytes(said))
        said += chunk
        word = dialogue.hear(bytes(said))
        if word:
            channel.sendall(word)


def transport(sock: socket.socket, disabled_algorithms: Mapping[str, Any] | None = None) -> paramiko.Transport:
    """Return a transport that proposes a few cheap algorithms instead of all that Paramiko knows."""
    made = paramiko.Transport(sock, disabled_algorithms=disabled_algorithms)
    options = made.get_security_options()
    options.ciphers = _known(_CIPHERS, options.ciphers)
    options.kex = _known(_KEX, options.kex)
    options.digests = _known(_MACS, options.digests)
    # Its timer is a thread for each connection, and of one that fails it keeps the program from ending for 15 s. The
    # connect_timeout bounds the handshake too.
    made.packetizer.start_handshake = _no_timer
    made.sock.settimeout(_LOOK_S)
    return made


def _no_timer(_timeout_s: float) -> None:
    return None


def _known(wanted: tuple[str, ...], offered: tuple[str, ...]) -> tuple[str, ...]:
    """Return those of `wanted` that this Paramiko has; one that has none of them offers what it has."""
    return tuple(name for name in wanted if name in offered) or offered


def _execute(channel: paramiko.Channel, command: str) -> None:
    """Have `command` run without waiting for the word that it does: a round trip less, and no wait without an end.

    RFC 4254, 6.5. Where it is refused nothing is ever answered, which the channel's timeout ends.
    """
    request = paramiko.Message()
    request.add_byte(cMSG_CHANNEL_REQUEST)
    request.add_int(channel.remote_chanid)
    request.add_string("exec")
    request.add_boolean(False)
    request.add_string(command)
    channel.transport._send_user_message(request)  # noqa: SLF001 - what Channel.exec_command does, and then waits


def _converse(channel: paramiko.Channel, message: bytes) -> tuple[bytes, bytes]:
    """Send `message` and return stdout and stderr, both to their end; TimeoutError if the host falls silent.

    A host that ends before it has read all has said what it had to say.
    """
    sock = channel.transport.sock
    try:
        with sock.in_one_go() if isinstance(sock, Prompt) else contextlib.nullcontext():  # behind a gateway: a channel
            for start in range(0, len(message), _CHUNK_BYTES):  # Paramiko would copy all that is left at every packet
                channel.sendall(message[start : start + _CHUNK_BYTES])
            channel.shutdown_write()
    except OSError:
        if not channel.eof_received:  # sshd says so when the program has ended
            raise
    output, errors = bytearray(), bytearray()
    while chunk := channel.recv(_CHUNK_BYTES):
        output += chunk
    while channel.recv_stderr_ready():
        errors += channel.recv_stderr(_CHUNK_BYTES)
    return bytes(output), bytes(errors)

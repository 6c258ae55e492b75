"""Talk to many hosts at once: bounded fan-out, one answer for each, every wait bounded. Connects.

One exec for each host: what `wire.message` made goes in on stdin, the answer comes out. The transport's raw channel is
used, for Fabric's `run(in_stream=…)` feeds a character at a time. Host keys and the private key are read once.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import logging
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fabric
import paramiko
from paramiko.common import cMSG_CHANNEL_REQUEST

from hpcproxy import wire
from hpcproxy.config import Jump
from hpcproxy.dial import Prompt, dial, hang_up
from hpcproxy.errors import FileError, HpcproxyError

_CHUNK_BYTES = 32000  # what fits into one packet of ssh
# Paramiko compares and sorts every name it could speak several times for each connection, and computes other MACs than
# GCM's own in Python: a short list of the cheapest that every sshd of the last ten years knows halves its CPU time.
_CIPHERS = ("aes128-gcm@openssh.com", "aes256-gcm@openssh.com", "aes128-ctr", "aes256-ctr")
_KEX = ("curve25519-sha256@libssh.org", "ecdh-sha2-nistp256", "ecdh-sha2-nistp384", "diffie-hellman-group16-sha512")
_MACS = ("hmac-sha2-256-etm@openssh.com", "hmac-sha2-512-etm@openssh.com", "hmac-sha2-256", "hmac-sha2-512")
_LOOK_S = 1.0  # Paramiko looks ten times a second whether a connection is to end, which ours tell at once
_COLLECT_EVERY = 16  # connections; more of them cost memory, fewer gain none
_SSH_PORT = 22
_M_ARENA_MAX = -8  # mallopt(3)


@dataclass(frozen=True)
class Login:
    """How hosts are reached. `timeout_s` bounds each of connect, banner, login and silence."""

    user: str
    port: int
    identity: Path | None
    gateway: Jump | None
    known_hosts: Path
    timeout_s: float


@dataclass(frozen=True)
class Reply:
    """What became of one host: an answer, or why there is none in `trouble`."""

    host: str
    answer: wire.Answer | None
    trouble: str = ""
    seconds: float = 0.0


OnReply = Callable[[Reply], None]


class NoGatewayError(HpcproxyError):
    """The gateway before the hosts cannot be used."""


class _Connection(fabric.Connection):  # type: ignore[misc]  # Fabric has no types
    """One that leaves the Config alone, which all of them share.

    Fabric's looks for a setting of that name, among all there are, whenever one of its attributes is set, and changes
    the Config for one of them, while other threads read it.
    """

    def __setattr__(self, name: str, value: object) -> None:
        object.__setattr__(self, name, value)


class Fleet:
    """Who can be spoken to, and how. Made once: keys are parsed before the first thread starts."""

    def __init__(self, login: Login) -> None:
        # Paramiko logs what it also raises; without a handler that would reach the admin's screen.
        logging.getLogger("paramiko").addHandler(logging.NullHandler())
        logging.getLogger("paramiko").propagate = False
        self.login = login
        # The inventory says all there is to say; an admin's ~/.ssh/config could say something else on each machine. One
        # for all: making one costs more than a handshake.
        self._config = fabric.Config(lazy=True, ssh_config=paramiko.SSHConfig())
        self._known = _KnownHosts(login.known_hosts)
        self._kwargs = _connect_kwargs(login)
        self._making = threading.Lock()
        self._way: fabric.Connection | Exception | None = None  # the gateway, open; or why it is not

    def ask(self, messages: Mapping[str, bytes], token: str, fanout: int, on_reply: OnReply) -> list[Reply]:
        """Send every host its message, at most `fanout` at once, and return a reply for each, in order."""
        _tidy_up()
        replies: dict[str, Reply] = {}
        with ThreadPoolExecutor(max_workers=max(1, min(fanout, len(messages)))) as pool:
            futures = {pool.submit(self._one, host, message, token): host for host, message in messages.items()}
            for future in _completed(futures):
                reply = future.result()
                replies[reply.host] = reply
                on_reply(reply)
                if len(replies) % _COLLECT_EVERY == 0 and len(replies) < len(messages):
                    gc.collect()  # connections are circles of objects, with what they carried
        return [replies[host] for host in messages]

    def _one(self, host: str, message: bytes, token: str) -> Reply:
        began = time.monotonic()
        try:
            connection = self._connection(host, self.gateway())
        except NoGatewayError as error:
            return Reply(host, None, str(error))
        try:
            output, errors = self._talk(connection, message)
            return Reply(host, _answer(output, errors, token), "", time.monotonic() - began)
        except (HpcproxyError, OSError, EOFError, paramiko.SSHException) as error:
            return Reply(host, None, _explain(error, self.login), time.monotonic() - began)
        finally:
            hang_up(connection)

    def _talk(self, connection: fabric.Connection, message: bytes) -> tuple[bytes, bytes]:
        self._open(connection)
        # It ends with the connection; a word of its own about that would only be answered.
        channel = connection.transport.open_session(timeout=self.login.timeout_s)
        channel.settimeout(self.login.timeout_s)
        _execute(channel, wire.COMMAND)
        return _converse(channel, message)

    def _open(self, connection: fabric.Connection) -> None:
        if connection.gateway is None:
            dial(connection, self.login.timeout_s)
        try:
            connection.open()
        except (OSError, EOFError, paramiko.SSHException):
            raise
        except Exception as error:
            # Bytes that are no ssh make Paramiko raise whatever its parser met: one host's trouble, and no other's.
            raise paramiko.SSHException(f"what came is none, {type(error).__name__}: {error}") from error

    def _connection(self, host: str, gateway: fabric.Connection | None) -> fabric.Connection:
        login = self.login
        connection = _Connection(
            host,
            user=login.user,
            port=login.port,
            config=self._config,
            gateway=gateway,
            connect_timeout=login.timeout_s,
            connect_kwargs=dict(self._kwargs),
        )
        self._guard(connection)
        return connection

    def gateway(self) -> fabric.Connection | None:
        """Return the way to the hosts, one login for all of them; none if they are reached directly.

        Raises NoGatewayError, the same for every host: one that is down is not waited for again and again.
        """
        told = self.login.gateway
        if told is None:
            return None
        with self._making:
            if self._way is None:
                self._way = self._open_gateway(told)
            if isinstance(self._way, Exception):
                raise NoGatewayError(f"behind the gateway {told}, which {_explain(self._way, self.login)}")
            return self._way

    def _open_gateway(self, told: Jump) -> fabric.Connection | Exception:
        connection = _Connection(
            told.host,
            user=told.user or self.login.user,
            port=told.port or _SSH_PORT,
            config=self._config,
            connect_timeout=self.login.timeout_s,
            connect_kwargs=dict(self._kwargs),
        )
        self._guard(connection)
        try:
            self._open(connection)
        except (OSError, EOFError, paramiko.SSHException) as error:
            hang_up(connection)
            return error
        return connection

    def _guard(self, connection: fabric.Connection) -> None:
        """Fabric alone would take any host key; here only those in our file count."""
        connection.client.set_missing_host_key_policy(paramiko.RejectPolicy())
        name = connection.host if connection.port == _SSH_PORT else f"[{connection.host}]:{connection.port}"
        connection.client._host_keys = self._known.of(name)  # noqa: SLF001 - else each would read the file


def _tidy_up() -> None:
    """Give back what rendering has left, and keep down what many connections will."""
    gc.collect()
    # glibc gives every thread a heap of its own, and none ever shrinks. Elsewhere there is no such call.
    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL(None)
        libc.mallopt(_M_ARENA_MAX, 1)
        libc.malloc_trim(0)


def _completed(futures: Mapping[Future[Reply], str]) -> Iterator[Future[Reply]]:
    try:
        yield from as_completed(futures)
    except BaseException:
        for future in futures:
            future.cancel()
        raise


def _transport(sock: socket.socket, disabled_algorithms: Mapping[str, Any] | None = None) -> paramiko.Transport:
    """Return a transport that proposes a few cheap algorithms instead of all that Paramiko knows."""
    transport = paramiko.Transport(sock, disabled_algorithms=disabled_algorithms)
    options = transport.get_security_options()
    options.ciphers = _known(_CIPHERS, options.ciphers)
    options.kex = _known(_KEX, options.kex)
    options.digests = _known(_MACS, options.digests)
    # Its timer is a thread for each connection, and of one that fails it keeps the program from ending for 15 s. The
    # connect_timeout bounds the handshake too.
    transport.packetizer.start_handshake = _no_timer
    transport.sock.settimeout(_LOOK_S)
    return transport


def _no_timer(_timeout_s: float) -> None:
    return None


def _known(wanted: tuple[str, ...], offered: tuple[str, ...]) -> tuple[str, ...]:
    """Return those of `wanted` that this Paramiko has; one that has none of them offers what it has."""
    return tuple(name for name in wanted if name in offered) or offered


def _connect_kwargs(login: Login) -> dict[str, Any]:
    bounds: dict[str, Any] = dict.fromkeys(("banner_timeout", "auth_timeout", "channel_timeout"), login.timeout_s)
    bounds["transport_factory"] = _transport
    if login.identity is None:
        return bounds
    try:
        key = paramiko.PKey.from_path(login.identity)
    except (OSError, paramiko.SSHException, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise FileError(login.identity, f"cannot be used as a private key: {reason}") from None
    return {**bounds, "pkey": key, "allow_agent": False, "look_for_keys": False}


class _KnownHosts:
    """A known_hosts file, read once; Paramiko goes through all of its lines for every connection."""

    def __init__(self, path: Path) -> None:
        try:
            entries = paramiko.HostKeys(str(path))._entries  # noqa: SLF001 - its mapping goes through them all, for each name
        except OSError as error:
            raise FileError(path, f"cannot be read: {error.strerror}", "make it with: hpcproxy trust") from None
        except (paramiko.hostkeys.InvalidHostKey, ValueError) as error:
            line = _printable(str(getattr(error, "line", error)))
            raise FileError(path, f"holds what is no host key: {line}", "take that line out") from None
        self._by_name: dict[str, list[Any]] = {}
        self._hashed = [entry for entry in entries if any(name.startswith("|1|") for name in entry.hostnames)]
        for entry in entries:
            for name in entry.hostnames:
                self._by_name.setdefault(name, []).append(entry)

    def of(self, name: str) -> paramiko.HostKeys:
        """Return the lines of one host, named as in the file; a hashed name may be anybody's."""
        keys = paramiko.HostKeys()
        keys._entries = [*self._by_name.get(name, ()), *self._hashed]  # noqa: SLF001 - as above
        return keys


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


def _answer(output: bytes, errors: bytes, token: str) -> wire.Answer:
    try:
        return wire.parse(output, token)
    except wire.NoAnswerError as error:
        said = (errors or output).decode(errors="replace").strip().splitlines()
        raise wire.NoAnswerError(f"{error}: {_printable(said[-1])}" if said else str(error)) from None


def _printable(text: str) -> str:
    return "".join(character if character.isprintable() else "?" for character in text)[:200]


def _explain(error: Exception, login: Login) -> str:  # noqa: PLR0911 - one line for each thing that can be wrong
    """Return why there is no answer, in words that say what to do."""
    if isinstance(error, HpcproxyError):
        return str(error)
    if isinstance(error, paramiko.ssh_exception.NoValidConnectionsError):  # one error for each address of the name
        error = next(iter(error.errors.values()))
    if isinstance(error, socket.gaierror):
        return "its name does not resolve here"
    if isinstance(error, paramiko.BadHostKeyException):
        return "shows another host key than the one in known_hosts; look into it, then: hpcproxy trust --replace-key"
    if isinstance(error, paramiko.AuthenticationException):
        return f"refuses the login of {login.user}"
    if isinstance(error, (TimeoutError, socket.timeout)):
        return f"does not answer within {login.timeout_s:g} s"
    if isinstance(error, ConnectionRefusedError):
        return "nothing listens at its ssh port"
    if isinstance(error, paramiko.SSHException):
        return _explain_ssh(str(error), login)
    if isinstance(error, OSError):
        return f"cannot be reached: {error.strerror or error}"
    return "hung up"


def _explain_ssh(text: str, login: Login) -> str:
    if "not found in known_hosts" in text:
        return "its host key is not known; look at it with: hpcproxy trust"
    if "banner" in text or "No existing session" in text:
        return f"accepts connections and stays silent for {login.timeout_s:g} s"
    return f"ssh failed: {_printable(text) or 'it hung up'}"

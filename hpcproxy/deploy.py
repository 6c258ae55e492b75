"""Talk to many hosts at once: bounded fan-out, one answer for each, every wait bounded. Connects.

One exec for each host: what `wire.message` made goes in on stdin, the answer comes out (`session`). Host keys and the
private key are read once. Whatever a host does costs its own line and no more than `Bounds` allow.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fabric
import paramiko

from hpcproxy import heard, wire
from hpcproxy.config import Jump
from hpcproxy.dial import TOTAL_TIMES, Bounds, hang_up
from hpcproxy.errors import FileError, HpcproxyError
from hpcproxy.session import Connection, open_connection, talk, transport
from hpcproxy.trouble import explain

_COLLECT_EVERY = 16  # connections; more of them cost memory, fewer gain none
_SSH_PORT = 22
_M_ARENA_MAX = -8  # mallopt(3)


@dataclass(frozen=True)
class Login:
    """How hosts are reached. `timeout_s` bounds each of connect, banner, login, silence; ten times that the whole."""

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
            gateway = self.gateway()
        except NoGatewayError as error:
            return Reply(host, None, str(error))
        answer, trouble = self._talk(host, message, token, gateway)
        return Reply(host, answer, trouble, time.monotonic() - began)

    def _talk(
        self, host: str, message: bytes, token: str, gateway: fabric.Connection | None
    ) -> tuple[wire.Answer | None, str]:
        connection, bounds = self._connection(host), Bounds(self.login.timeout_s * TOTAL_TIMES)
        try:
            open_connection(connection, self.login.timeout_s, bounds, gateway)
            answer = _answer(*talk(connection, wire.COMMAND, message, self.login.timeout_s), token)
        except (HpcproxyError, OSError, EOFError, paramiko.SSHException) as error:
            return None, bounds.broken or explain(error, self.login.user, self.login.timeout_s)
        finally:
            hang_up(connection)
        # Of what was cut off nothing is believed, be it an answer or not.
        return (None, bounds.broken) if bounds.broken else (answer, "")

    def _connection(self, host: str, user: str | None = None, port: int | None = None) -> fabric.Connection:
        connection = Connection(
            host,
            user=user or self.login.user,
            port=port or self.login.port,
            config=self._config,
            connect_timeout=self.login.timeout_s,
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
                why = explain(self._way, self.login.user, self.login.timeout_s)
                raise NoGatewayError(f"behind the gateway {told}, which {why}")
            return self._way

    def _open_gateway(self, told: Jump) -> fabric.Connection | Exception:
        connection = self._connection(told.host, told.user, told.port or _SSH_PORT)
        bounds = Bounds(self.login.timeout_s * TOTAL_TIMES)
        try:
            open_connection(connection, self.login.timeout_s, bounds)
        except (OSError, EOFError, paramiko.SSHException) as error:
            hang_up(connection)
            return error
        bounds.lift()
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


def _connect_kwargs(login: Login) -> dict[str, Any]:
    bounds: dict[str, Any] = dict.fromkeys(("banner_timeout", "auth_timeout", "channel_timeout"), login.timeout_s)
    bounds["transport_factory"] = transport
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
            line = heard.line(str(getattr(error, "line", error)))
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


def _answer(output: bytes, errors: bytes, token: str) -> wire.Answer:
    try:
        return wire.parse(output, token)
    except wire.NoAnswerError as error:
        said = heard.last_line(errors) or heard.last_line(output)
        raise wire.NoAnswerError(f"{error}: {said}" if said else str(error)) from None

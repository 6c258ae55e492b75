"""Talk to many hosts at once: bounded fan-out, one answer for each, every wait bounded. Connects.

One exec for each host: what `protocol.message` made goes in on stdin, the answer comes out (`paramiko_session`,
`openssh_session`). Host keys and the private key are read once. Whatever a host does costs its own line and no more
than `Bounds` allow.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import logging
import secrets
import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fabric
import paramiko

from hpcproxy import heard
from hpcproxy.cluster import become, identity, openssh_session, protocol
from hpcproxy.cluster.become import Secrets
from hpcproxy.cluster.dial import TOTAL_TIMES, Bounds, hang_up
from hpcproxy.cluster.outcome import HostOutcome, OnHost, Outcomes, judge, unheard
from hpcproxy.cluster.paramiko_session import Connection, open_connection, talk, transport
from hpcproxy.cluster.pinned_keys import PinnedKeys
from hpcproxy.cluster.pool import Pool
from hpcproxy.cluster.routes import Route, Routes
from hpcproxy.cluster.trouble import explain, is_refusal
from hpcproxy.config.model import Jump
from hpcproxy.errors import HpcproxyError, Reason

_COLLECT_EVERY = 16  # connections; more of them cost memory, fewer gain none
_SSH_PORT = 22
_M_ARENA_MAX = -8  # mallopt(3)


@dataclass(frozen=True)
class Login:
    """How hosts are reached. `timeout_s` bounds each of connect, banner, login, silence; ten times that the whole."""

    user: str | None  # None: as ssh's configuration says, root where it says nothing
    port: int | None  # None: as ssh's configuration says
    identity: Path | None
    gateway: Jump | None
    known_hosts: Path
    timeout_s: float
    become: str = ""


class NoGatewayError(HpcproxyError):
    """The gateway before the hosts cannot be used; `by_ssh` says that OpenSSH itself may still get in."""

    def __init__(self, text: str, *, by_ssh: bool = False) -> None:
        super().__init__(text)
        self.by_ssh = by_ssh


class Fleet:
    """Who can be spoken to, how, and how many at once. Made once: keys are parsed before the first thread starts.

    `token` marks the lines of an answer, for what a root's `.bashrc` prints is nobody's.
    """

    def __init__(self, login: Login, fanout: int = 32, token: str = "") -> None:
        self.token = token or f"hpcproxy-{secrets.token_hex(8)}"
        self._fanout = fanout
        # Paramiko logs what it also raises; without a handler that would reach the admin's screen.
        logging.getLogger("paramiko").addHandler(logging.NullHandler())
        logging.getLogger("paramiko").propagate = False
        self.login = login
        # The inventory says all there is to say; an admin's ~/.ssh/config could say something else on each machine. One
        # for all: making one costs more than a handshake.
        self._config = fabric.Config(lazy=True, ssh_config=paramiko.SSHConfig())
        self._known = PinnedKeys.read(login.known_hosts)
        self.secrets = Secrets()
        key = identity.load(login.identity, self.secrets)
        self._only_ssh = key is identity.ONLY_SSH or self._known.has_revoked
        self._kwargs = _connect_kwargs(login.timeout_s, None if self._only_ssh else key)
        own_identity, own_way = login.identity is not None, login.gateway is not None
        self._routes = Routes(login.user, login.port, own_identity=own_identity, own_way=own_way)
        self._making = threading.Lock()
        self._way: fabric.Connection | NoGatewayError | None = None  # the gateway, open; or why it is not

    def ask(self, messages: Mapping[str, bytes], on_host: OnHost = unheard) -> Outcomes:
        """Send every host its message, at most `fanout` at once, and return every host's outcome, in order."""
        if not messages:
            return Outcomes(())
        _tidy_up()
        outcomes: dict[str, HostOutcome] = {}
        with Pool(max_workers=max(1, min(self._fanout, len(messages)))) as pool:
            futures = {pool.submit(self._one, host, message): host for host, message in messages.items()}
            for future in _completed(futures):
                outcome = future.result()
                outcomes[outcome.host] = outcome
                on_host(outcome)
                if len(outcomes) % _COLLECT_EVERY == 0 and len(outcomes) < len(messages):
                    gc.collect()  # connections are circles of objects, with what they carried
        return Outcomes(tuple(outcomes[host] for host in messages))

    def _one(self, host: str, message: bytes) -> HostOutcome:
        began = time.monotonic()
        bounds = Bounds(self.login.timeout_s * TOTAL_TIMES)
        try:
            answer: protocol.Answer | None = self._talk(host, message, bounds)
            why: Reason | None = None
        except Exception as error:  # noqa: BLE001 - whatever a host makes a library raise is its own trouble, and no other's
            answer, why = None, explain(error, self._routes.user(host), self.login.timeout_s)
        # Of what was cut off nothing is believed, be it an answer or not.
        if bounds.broken:
            answer, why = None, Reason("host", bounds.broken)
        return judge(host, answer, why, time.monotonic() - began)

    def _talk(self, host: str, message: bytes, bounds: Bounds) -> protocol.Answer:
        """Return what `host` answers: over Paramiko where that can do what is needed, else by OpenSSH itself.

        Who is refused over Paramiko is tried by ssh once more, whose word counts: it knows certificates, security keys,
        authorities and algorithms that Paramiko does not. What ssh can and Paramiko cannot is ssh's for all hosts then.
        """
        route, by_ssh = self._routes.of(host), self._only_ssh
        try:
            gateway = None if by_ssh else self.gateway()
        except NoGatewayError as error:
            if not error.by_ssh:
                raise
            by_ssh = True
        if by_ssh or not route.plain:
            return self._by_ssh(route, message, bounds)
        connection = self._connection(route)
        try:
            try:
                open_connection(connection, self.login.timeout_s, bounds, gateway)
            except paramiko.SSHException as error:
                if bounds.broken or not self._may_be_ours(error, connection):
                    raise
            else:
                command = become.command(self.login.become, self.token)
                return self._answer(*talk(connection, command, message, self.login.timeout_s, self._dialogue(route)))
        finally:
            hang_up(connection)
        answer = self._by_ssh(route, message, bounds)
        self._only_ssh = True
        return answer

    def _may_be_ours(self, error: Exception, connection: fabric.Connection) -> bool:
        """Whether Paramiko's failure may be Paramiko's, and no fault of the host's."""
        if isinstance(error, paramiko.BadHostKeyException) or "not found in known_hosts" in str(error):
            return self._known.has_authorities
        # A host that hangs up at one key too many looks like a silent one, but for the keys that it has exchanged.
        met = getattr(connection.client.get_transport(), "initial_kex_done", False)
        return isinstance(error, paramiko.SSHException) and (met or is_refusal(error))

    def _by_ssh(self, route: Route, message: bytes, bounds: Bounds) -> protocol.Answer:
        login = self.login
        words = openssh_session.argv(
            route.host,
            become.command(login.become, self.token),
            user=route.user,
            port=login.port,
            identity=login.identity,
            known_hosts=login.known_hosts,
            timeout_s=login.timeout_s,
            gateway=login.gateway,
        )
        return self._answer(*openssh_session.talk(words, message, login.timeout_s, bounds, self._dialogue(route)))

    def _dialogue(self, route: Route) -> become.SudoDialogue | None:
        return become.SudoDialogue(self.token, route.user, self.secrets) if self.login.become else None

    def _answer(self, output: bytes, errors: bytes) -> protocol.Answer:
        try:
            return protocol.parse(output, self.token)
        except protocol.NoAnswerError as error:
            said = heard.last_line(errors) or heard.last_line(output)
            raise protocol.NoAnswerError(f"{error}: {said}" if said else str(error)) from None

    def _connection(self, route: Route) -> fabric.Connection:
        connection = Connection(
            route.address,
            user=route.user,
            port=route.port,
            config=self._config,
            connect_timeout=self.login.timeout_s,
            connect_kwargs=dict(self._kwargs),
        )
        # Fabric alone would take any host key; here only those in our file count.
        connection.client.set_missing_host_key_policy(paramiko.RejectPolicy())
        connection.client._host_keys = self._known.of(route.known_name)  # noqa: SLF001 - else each would read the file
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
            if isinstance(self._way, NoGatewayError):
                raise NoGatewayError(str(self._way), by_ssh=self._way.by_ssh)
            return self._way

    def _open_gateway(self, told: Jump) -> fabric.Connection | NoGatewayError:
        bounds, user = Bounds(self.login.timeout_s * TOTAL_TIMES), told.user or self.login.user or "root"
        where = f"behind the gateway {told}, which"
        try:
            connection = self._connection(self._routes.of(told.host, user=told.user, port=told.port or _SSH_PORT))
        except HpcproxyError as error:
            return NoGatewayError(f"{where} cannot be asked for: {error}")
        try:
            open_connection(connection, self.login.timeout_s, bounds)
        except (OSError, EOFError, paramiko.SSHException) as error:
            by_ssh = not bounds.broken and self._may_be_ours(error, connection)
            hang_up(connection)
            why = bounds.broken or explain(error, user, self.login.timeout_s)
            return NoGatewayError(f"{where} {why}", by_ssh=by_ssh)
        bounds.lift()
        return connection


def _tidy_up() -> None:
    """Give back what rendering has left, and keep down what many connections will."""
    gc.collect()
    # glibc gives every thread a heap of its own, and none ever shrinks. Elsewhere there is no such call.
    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL(None)
        libc.mallopt(_M_ARENA_MAX, 1)
        libc.malloc_trim(0)


def _completed(futures: Mapping[Future[HostOutcome], str]) -> Iterator[Future[HostOutcome]]:
    try:
        yield from as_completed(futures)
    except BaseException:
        for future in futures:
            future.cancel()
        raise


def _connect_kwargs(timeout_s: float, key: object) -> dict[str, Any]:
    bounds: dict[str, Any] = dict.fromkeys(("banner_timeout", "auth_timeout", "channel_timeout"), timeout_s)
    bounds["transport_factory"] = transport
    return {**bounds, "pkey": key, "allow_agent": False, "look_for_keys": False} if key is not None else bounds

"""A jump host and an internet in this process: a real SSH server that forwards, and a web server only it can name.

Both listen on loopback and end with the `with` block that made them. The jump host has two addresses, as a real one
has: it is logged in to at 127.0.0.1, and what it opens for its users comes from 127.0.0.10.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import asyncssh

USER = "demo"
OUTER_ADDRESS = "127.0.0.10"
INTERNET_NAME = "internet.test"  # RFC 6761: `test` is a domain that no resolver knows
_INTERNET_ADDRESS = "127.0.0.20"
_HTTP_PORT = 80
_START_TIMEOUT_S = 15


@dataclass(frozen=True)
class Site:
    """The machines as their visitor sees them: the port to log in at."""

    port: int

    @property
    def jump(self) -> str:
        """The jump host as `hpcproxy init --jump` takes it."""
        return f"{USER}@127.0.0.1:{self.port}"


@contextlib.contextmanager
def site(identity: Path) -> Iterator[Site]:
    """Have a jump host and an internet up, with a fresh host key and a login key that is written to `identity`."""
    login = asyncssh.generate_private_key("ssh-ed25519")
    login.write_private_key(identity)
    identity.chmod(0o600)
    with _loop() as loop:
        machines = _Machines(asyncssh.import_authorized_keys(login.export_public_key().decode()))
        try:
            port = asyncio.run_coroutine_threadsafe(machines.start(), loop).result(_START_TIMEOUT_S)
            yield Site(port)
        finally:
            asyncio.run_coroutine_threadsafe(machines.stop(), loop).result(_START_TIMEOUT_S)


@contextlib.contextmanager
def _loop() -> Iterator[asyncio.AbstractEventLoop]:
    """Run an event loop in a thread of its own."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="hpcproxy-demo", daemon=True)
    thread.start()
    try:
        yield loop
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


class _Machines:
    """The servers, and every task that serves one of their connections."""

    def __init__(self, authorized: asyncssh.SSHAuthorizedKeys) -> None:
        self.authorized = authorized
        self.logins: list[asyncssh.SSHServerConnection] = []
        self.servers: list[asyncio.AbstractServer | asyncssh.SSHAcceptor] = []

    async def start(self) -> int:
        """Listen, and return the port of the jump host."""
        internet = await asyncio.start_server(_serve_internet, _INTERNET_ADDRESS, 0)
        self.servers.append(internet)
        internet_port = internet.sockets[0].getsockname()[1]
        jump = await asyncssh.listen(
            "127.0.0.1",
            0,
            server_factory=lambda: _JumpHost(internet_port, self.logins),
            server_host_keys=[asyncssh.generate_private_key("ssh-ed25519")],
            authorized_client_keys=self.authorized,
        )
        self.servers.append(jump)
        return jump.get_port()

    async def stop(self) -> None:
        """Stop listening and hang up on everybody."""
        for server in self.servers:
            server.close()
        for login in self.logins:
            login.abort()
            await login.wait_closed()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        for server in self.servers:
            await server.wait_closed()


class _JumpHost(asyncssh.SSHServer):
    """Lets its user in by key, and forwards to the one name of the internet that there is."""

    def __init__(self, internet_port: int, logins: list[asyncssh.SSHServerConnection]) -> None:
        self.internet_port, self.logins = internet_port, logins

    def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
        """Keep the connection, so that it can be ended with the machines."""
        self.logins.append(conn)

    def connection_requested(
        self,
        dest_host: str,
        dest_port: int,
        orig_host: str,  # noqa: ARG002 - asyncssh's signature
        orig_port: int,  # noqa: ARG002
    ) -> asyncssh.SSHSocketSessionFactory:
        """Answer as sshd does: resolve here, connect from here, and say why where that fails."""
        if (dest_host, dest_port) == (INTERNET_NAME, _HTTP_PORT):
            return self._relay
        known = dest_host in ("127.0.0.1", "localhost", INTERNET_NAME)
        reason = "Connection refused" if known else "Name or service not known"
        raise asyncssh.ChannelOpenError(asyncssh.OPEN_CONNECT_FAILED, reason)

    async def _relay(self, inner: asyncssh.SSHReader[bytes], outer: asyncssh.SSHWriter[bytes]) -> None:
        """Carry one connection from the node's side to the internet's, which sees it come from OUTER_ADDRESS."""
        reader, writer = await asyncio.open_connection(
            _INTERNET_ADDRESS, self.internet_port, local_addr=(OUTER_ADDRESS, 0)
        )
        try:
            await asyncio.gather(_copy(inner, writer), _copy(reader, outer))
        finally:
            writer.close()
            outer.close()


async def _copy(
    source: asyncssh.SSHReader[bytes] | asyncio.StreamReader, target: asyncssh.SSHWriter[bytes] | asyncio.StreamWriter
) -> None:
    """Carry bytes up to the end of `source`, and that end too."""
    while data := await source.read(65536):
        target.write(data)
        await target.drain()
    if target.can_write_eof():
        target.write_eof()


async def _serve_internet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer `GET /ip` with the address the request came from, as the address echoes of the real internet do."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
        address = writer.get_extra_info("peername")[0]
        status, body = (
            ("200 OK", f"{address}\n") if head.startswith(b"GET /ip ") else ("404 Not Found", "no such page\n")
        )
        lines = (f"HTTP/1.1 {status}", "Content-Type: text/plain", f"Content-Length: {len(body)}", "Connection: close")
        writer.write("\r\n".join((*lines, "", body)).encode())
        await writer.drain()
    except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, ConnectionError):
        pass  # the visitor left in the middle, or sent no HTTP: hanging up is the answer
    finally:
        writer.close()

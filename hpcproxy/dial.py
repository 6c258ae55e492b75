"""TCP connections for Paramiko: prompt, bounded, closed only when no thread of it can read them any more. Connects."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from typing import Any

_TCP_QUICKACK: int | None = getattr(socket, "TCP_QUICKACK", None)  # tcp(7); Linux alone has it, and forgets it soon
_TCP_CORK: int | None = getattr(socket, "TCP_CORK", None)
_TCP_USER_TIMEOUT: int | None = getattr(socket, "TCP_USER_TIMEOUT", None)
_END_S = 10.0  # for a thread that has been told; it needs a moment


class Prompt(socket.socket):
    """A connection that says at once what has arrived, and what has ended.

    sshd leaves Nagle's algorithm on until a command runs: of two small packets in a row it keeps the second one back
    until the first is acknowledged, which the kernel here would do after 40 ms.
    """

    def recv(self, size: int, flags: int = 0) -> bytes:
        """As a socket does."""
        data = super().recv(size, flags)
        if _TCP_QUICKACK is not None:
            with contextlib.suppress(OSError):  # it may have been closed meanwhile
                self.setsockopt(socket.IPPROTO_TCP, _TCP_QUICKACK, 1)
        return data

    def close(self) -> None:
        """Hang up: whoever reads here learns of it at once, not when he looks next.

        Paramiko closes what a thread of its own may be about to read. The number would be free for the next connection,
        and that thread would read what is meant for another host. So it stays taken until `release`.
        """
        with contextlib.suppress(OSError):  # the other end was first
            self.shutdown(socket.SHUT_RDWR)

    def release(self) -> None:
        """Close it for good; nobody reads from it any more."""
        super().close()

    @contextlib.contextmanager
    def in_one_go(self) -> Iterator[None]:
        """Fill packets with what is sent meanwhile: a message's end comes with its last words, a round trip less."""
        if _TCP_CORK is not None:
            self.setsockopt(socket.IPPROTO_TCP, _TCP_CORK, 1)
        try:
            yield
        finally:
            if _TCP_CORK is not None:
                with contextlib.suppress(OSError):  # it may have been closed meanwhile
                    self.setsockopt(socket.IPPROTO_TCP, _TCP_CORK, 0)


def dial(connection: Any, timeout_s: float) -> None:  # noqa: ANN401 - Fabric has no types
    """Give the fabric.Connection `connection` its socket; raises OSError.

    Paramiko leaves Nagle's algorithm on, which costs 40 ms at several steps of every login.
    """
    made = socket.create_connection((connection.host, connection.port), timeout=timeout_s)
    sock = Prompt(fileno=made.detach())
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if _TCP_USER_TIMEOUT is not None:  # Paramiko would go on sending for ever to a host that has ceased to read
        sock.setsockopt(socket.IPPROTO_TCP, _TCP_USER_TIMEOUT, int(timeout_s * 1000))
    connection.connect_kwargs["sock"] = sock


def hang_up(connection: Any) -> None:  # noqa: ANN401 - Fabric has no types
    """Close the fabric.Connection `connection`, however far it has come."""
    reader = connection.client.get_transport()  # a thread
    connection.client.close()  # Fabric's own close leaves alone what failed before the login's end
    sock = connection.connect_kwargs.get("sock")
    if not isinstance(sock, Prompt):  # through a gateway, or never dialled
        return
    if reader is not None and reader.is_alive():
        reader.join(_END_S)
    if reader is None or not reader.is_alive():
        sock.release()

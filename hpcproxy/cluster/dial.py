"""TCP connections for Paramiko: prompt, bounded, closed only when no thread of it can read them any more. Connects."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Iterator
from typing import Any

_TCP_QUICKACK: int | None = getattr(socket, "TCP_QUICKACK", None)  # tcp(7); Linux alone has it, and forgets it soon
_TCP_CORK: int | None = getattr(socket, "TCP_CORK", None)
_TCP_USER_TIMEOUT: int | None = getattr(socket, "TCP_USER_TIMEOUT", None)
_END_S = 10.0  # for a thread that has been told; it needs a moment
TOTAL_TIMES = 10  # a conversation may last so many times what one silence may
_LOGIN_MAX_BYTES = 256 * 1024
HEARD_MAX_BYTES = 8 * 1024 * 1024  # of one answer: all our files and a slurm.conf, encoded, are half a megabyte


class Bounds:
    """What one conversation may cost: seconds from now, and bytes that come in. `broken` says which it went beyond."""

    def __init__(self, total_s: float) -> None:
        self.total_s = total_s
        self.broken = ""
        # Paramiko looks for the end of a first line in all that it has of it, again and again.
        self._deadline, self._room_bytes = time.monotonic() + total_s, float(_LOGIN_MAX_BYTES)

    def logged_in(self) -> None:
        """Have room for an answer from now on."""
        self._room_bytes = HEARD_MAX_BYTES

    def lift(self) -> None:
        """Nothing is too much from now on: what follows are conversations with bounds of their own."""
        self._deadline = self._room_bytes = float("inf")

    def left_s(self) -> float:
        """Return the seconds that are left."""
        return self._deadline - time.monotonic()

    def hear(self, size_bytes: int = 0) -> bool:
        """Count what has come in, and return whether more may come."""
        self._room_bytes -= size_bytes
        if self._room_bytes < 0:
            self.broken = "says more than any answer holds"
        elif self.left_s() < 0:
            self.broken = f"is not done after {self.total_s:g} s"
        return not self.broken


class Prompt(socket.socket):
    """A connection that says at once what has arrived, and what has ended.

    sshd leaves Nagle's algorithm on until a command runs: of two small packets in a row it keeps the second one back
    until the first is acknowledged, which the kernel here would do after 40 ms.
    """

    bounds: Bounds | None = None

    def recv(self, size: int, flags: int = 0) -> bytes:
        """As a socket does; beyond its bounds it hangs up. Paramiko comes here every second at least."""
        if self.bounds is not None and not self.bounds.hear():
            self.close()
        data = super().recv(size, flags)
        if self.bounds is not None:
            self.bounds.hear(len(data))
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


class Through:
    """A channel through a gateway that keeps to bounds as a Prompt does; Paramiko takes it for a socket."""

    def __init__(self, channel: Any, bounds: Bounds) -> None:  # noqa: ANN401 - Paramiko has no types
        self._channel, self._bounds = channel, bounds

    def recv(self, size: int) -> bytes:
        """As a channel does; beyond its bounds it hangs up."""
        if not self._bounds.hear():
            self._channel.close()
        data: bytes = self._channel.recv(size)
        self._bounds.hear(len(data))
        return data

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - all else is the channel's
        return getattr(self._channel, name)


def dial(connection: Any, timeout_s: float, bounds: Bounds | None = None, gateway: Any = None) -> None:  # noqa: ANN401
    """Give the fabric.Connection `connection` its socket, through `gateway`, an open one, if given.

    Raises OSError, and SSHException from a gateway.
    Paramiko leaves Nagle's algorithm on, which costs 40 ms at several steps of every login, and knows no end of a login
    that goes on and on.
    """
    bounds = bounds or Bounds(timeout_s * TOTAL_TIMES)
    if gateway is not None:
        aim, source = (connection.host, connection.port), ("", 0)
        channel = gateway.transport.open_channel("direct-tcpip", aim, source, timeout=timeout_s)
        connection.connect_kwargs["sock"] = Through(channel, bounds)
        return
    made = socket.create_connection((connection.host, connection.port), timeout=timeout_s)
    sock = Prompt(fileno=made.detach())
    sock.bounds = bounds
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

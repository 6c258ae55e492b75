"""One far end, asked through the tunnel: connection, TLS, WebSocket, its clock. Connects; sends no secret.

Nothing but a handshake and at most one request without a body goes to a far end, and nothing that it says is shown
as it stands.
"""

from __future__ import annotations

import base64
import contextlib
import email.utils
import enum
import os
import re
import socket
import ssl
import time
from dataclasses import dataclass
from urllib.parse import urlsplit

from hpcproxy import heard
from hpcproxy.account.connect import connect
from hpcproxy.account.tunnels import Tunnel
from hpcproxy.errors import TunnelError
from hpcproxy.openssh import reasons

TIMEOUT_S = 15.0
_HEAD_BYTES = 16384
_DENIED = re.compile(r": 403 \w+ \((.*)\)$")
_STATUS = re.compile(rb"HTTP/1\.[01] (\d{3})")
_DATE = re.compile(rb"\r\ndate:[ \t]*([^\r\n]{10,40})\r\n", re.IGNORECASE)


class Stage(enum.Enum):
    """How far it went."""

    CONNECTED = "connected"
    DENIED = "denied"  # by rules of ours
    PROHIBITED = "prohibited"  # by the jump host's
    NAMELESS = "nameless"  # the jump host knows no such name
    FAILED = "failed"


@dataclass(frozen=True)
class Place:
    """Where an endpoint is: by TLS or not."""

    host: str
    port: int
    tls: bool

    @classmethod
    def of(cls, url: str) -> Place:
        """Return the place that `url`, of http(s) or ws(s), names; raises ValueError."""
        parts = urlsplit(url)
        tls = parts.scheme in {"https", "wss"}
        if not parts.hostname or parts.scheme not in {"http", "https", "ws", "wss"}:
            raise ValueError(f"{url!r} is no address")
        return cls(parts.hostname, parts.port or (443 if tls else 80), tls)

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


@dataclass(frozen=True)
class Reached:
    """How far a connection to a far end went, and why not further."""

    stage: Stage
    words: str = ""


@dataclass(frozen=True)
class Spoken:
    """What a far end's answer to an upgrade says: its status, how many seconds its clock is ahead, None if unknown."""

    status: int
    ahead_s: float | None


def try_connection(tunnel: Tunnel, place: Place) -> Reached:
    """Return how far a connection to `place` goes through `tunnel`."""
    try:
        _connected(tunnel, place).close()
    except TunnelError as error:
        return _reached(error, tunnel)
    return Reached(Stage.CONNECTED)


def try_tls(tunnel: Tunnel, place: Place) -> str:
    """Return what is wrong with the TLS of `place`, empty if it is as it should be; raises TunnelError."""
    with _connected(tunnel, place) as raw:
        try:
            ssl.create_default_context().wrap_socket(raw, server_hostname=place.host).close()
        except ssl.SSLCertVerificationError as error:
            return f"{place.host}: {error.verify_message}; its certificate is signed by {_signer(tunnel, place)}"
        except OSError as error:
            return f"{place.host}: no TLS there: {getattr(error, 'reason', None) or error or 'it hung up'}"
    return ""


def try_upgrade(tunnel: Tunnel, place: Place) -> Spoken:
    """Return what `place` answers to a request for a WebSocket (RFC 6455, 4.1), whatever it is; raises TunnelError."""
    deadline = time.monotonic() + TIMEOUT_S
    name = place.host if place.port in {80, 443} else str(place)
    key = base64.b64encode(os.urandom(16)).decode()
    words = f"GET / HTTP/1.1\r\nHost: {name}\r\nUser-Agent: hpcproxy\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    words += f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n"
    with contextlib.ExitStack() as stack:
        sock = stack.enter_context(_connected(tunnel, place))
        try:
            if place.tls:
                sock = stack.enter_context(_unverified().wrap_socket(sock, server_hostname=place.host))
            sock.sendall(words.encode())
            head = _head(sock, deadline)
        except OSError as error:
            raise TunnelError("answer", f"{place.host} broke off: {error}") from None
    status = _STATUS.match(head)
    if status is None:
        raise TunnelError("answer", f"{place.host} hung up when it was asked for a WebSocket")
    return Spoken(int(status[1]), _ahead_s(head))


def _connected(tunnel: Tunnel, place: Place) -> socket.socket:
    return connect(tunnel.url, place.host, place.port, TIMEOUT_S)


def _reached(error: TunnelError, tunnel: Tunnel) -> Reached:
    """Return what the agent's answer means; where ssh itself listens only its own log tells."""
    text = error.why.reason
    denied = _DENIED.search(text)
    if denied:
        return Reached(Stage.DENIED, heard.line(denied[1]))
    if tunnel.log_tail and not tunnel.url.startswith("http://"):
        text = tunnel.log_tail
    meaning = reasons.open_failure(text)
    if "administratively prohibited" in text:
        return Reached(Stage.PROHIBITED, meaning)
    if "name" in meaning and "resolve" in meaning:
        return Reached(Stage.NAMELESS, meaning)
    return Reached(Stage.FAILED, heard.line(meaning if meaning != text else error.why.reason))


def _signer(tunnel: Tunnel, place: Place) -> str:
    """Return who has signed the certificate that `place` shows, as it says itself."""
    from cryptography import x509  # noqa: PLC0415 - 30 ms that only a certificate in doubt is worth

    try:
        with _connected(tunnel, place) as raw, _unverified().wrap_socket(raw, server_hostname=place.host) as stream:
            shown = stream.getpeercert(binary_form=True) or b""
        return heard.line(f"“{x509.load_der_x509_certificate(shown).issuer.rfc4514_string()}”")
    except (OSError, ValueError, TunnelError):
        return "whom it does not say"


def _unverified() -> ssl.SSLContext:
    """Return what takes any certificate: for a look at one, never for a secret."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def _head(sock: socket.socket, deadline: float) -> bytes:
    head = b""
    while b"\r\n\r\n" not in head and len(head) < _HEAD_BYTES:
        sock.settimeout(max(0.001, deadline - time.monotonic()))
        data = sock.recv(4096)
        if not data:
            break
        head += data
    return head


def _ahead_s(head: bytes) -> float | None:
    found = _DATE.search(head)
    try:
        return None if found is None else email.utils.parsedate_to_datetime(found[1].decode()).timestamp() - time.time()
    except (ValueError, TypeError, OverflowError):
        return None

"""A connection to a far end through a tunnel, by HTTP CONNECT or SOCKS, read to the byte. Connects.

The head of the answer to CONNECT is looked at (MSG_PEEK) and then taken to its end, so that what the far end says first
stays in the socket: python-socks reads on past it, and an ssh banner that came in the same packet is lost.
"""

from __future__ import annotations

import contextlib
import re
import socket
import time
from urllib.parse import urlsplit

from hpcproxy.errors import TunnelError

_HEAD_BYTES = 16384  # what the agent itself takes for a head; ours answers in one of a few hundred bytes
_STATUS = re.compile(rb"HTTP/1\.[01] (\d{3})(?: ([^\r\n]*))?\r?\n")
_END = re.compile(rb"\r?\n\r?\n")


def connect(proxy_url: str, host: str, port: int, timeout_s: float) -> socket.socket:
    """Return a connection to `host:port` through `proxy_url`, no byte of it read; raises TunnelError naming the layer.

    `timeout_s` bounds the whole of it, the far end's patience included.
    """
    url = urlsplit(proxy_url)
    try:
        address = (url.hostname or "", url.port or 0)
    except ValueError as error:
        raise TunnelError("tunnel", f"{proxy_url!r} is no address of a tunnel: {error}") from None
    if url.scheme != "http":
        return _by_socks(proxy_url, url.scheme, address, (host, port), timeout_s)
    return _by_http(proxy_url, address, (host, port), timeout_s)


def _by_http(proxy_url: str, address: tuple[str, int], target: tuple[str, int], timeout_s: float) -> socket.socket:
    deadline = time.monotonic() + timeout_s
    host, port = target
    name = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    with contextlib.ExitStack() as until_it_works:
        try:
            sock = until_it_works.enter_context(socket.create_connection(address, timeout_s))
            sock.sendall(f"CONNECT {name} HTTP/1.1\r\nHost: {name}\r\n\r\n".encode())
            head = _head(sock, deadline)
        except socket.timeout:
            raise TunnelError("far end", f"{host}:{port} did not answer within {timeout_s:g} s") from None
        except OSError as error:
            why = f"nothing answers at {proxy_url}: {error.strerror or error}"
            raise TunnelError("tunnel", why, "start it with: hpcproxy up") from None
        status = _STATUS.match(head)
        if status is None:
            raise TunnelError("tunnel", f"what answers at {proxy_url} is no tunnel")
        if not status[1].startswith(b"2"):
            reason = b" ".join(part for part in status.groups() if part).decode(errors="replace")
            raise TunnelError("far end", f"{host}:{port} was not reached by the jump host: {reason}")
        sock.settimeout(timeout_s)
        until_it_works.pop_all()
        return sock


def _head(sock: socket.socket, deadline: float) -> bytes:
    """Take the answer's head from `sock`, exactly its bytes; b"" if there is none; socket.timeout, OSError."""
    head = b""
    while len(head) < _HEAD_BYTES:
        sock.settimeout(max(0.001, deadline - time.monotonic()))
        data = sock.recv(_HEAD_BYTES, socket.MSG_PEEK)
        end = _END.search(head + data)
        # Without the end in it all that is there belongs to the head.
        head += sock.recv(len(data) if end is None else end.end() - len(head))
        if end is not None:
            return head
        if not data:
            break
    return b""


def _by_socks(
    proxy_url: str, scheme: str, address: tuple[str, int], target: tuple[str, int], timeout_s: float
) -> socket.socket:
    """The same where ssh itself listens: python-socks reads a SOCKS reply to the byte."""
    # Here, not above: 20 ms that only who connects should pay, and no other task.
    import python_socks  # noqa: PLC0415
    from python_socks.sync import Proxy  # noqa: PLC0415

    host, port = target
    try:
        proxy = Proxy(python_socks.ProxyType.SOCKS5, address[0], address[1], rdns=scheme != "socks5")
        return proxy.connect(host, port, timeout=timeout_s)
    except ValueError as error:
        raise TunnelError("tunnel", f"{proxy_url!r} is no address of a tunnel: {error}") from None
    except socket.gaierror:
        raise TunnelError(
            "name", f"{host} does not resolve on this node", "scheme: socks5h resolves it there"
        ) from None
    except (python_socks.ProxyConnectionError, ConnectionError) as error:
        raise TunnelError("tunnel", f"nothing answers at {proxy_url}: {error}", "start it with: hpcproxy up") from None
    except python_socks.ProxyTimeoutError:
        raise TunnelError("far end", f"{host}:{port} did not answer within {timeout_s:g} s") from None
    except python_socks.ProxyError:
        # Only ssh's own log has the reason, and the caller knows where that is.
        raise TunnelError("far end", f"{host}:{port} was not reached by the jump host") from None

"""Carry stdin and stdout over a connection through the way out, for ssh's ProxyCommand. Connects."""

from __future__ import annotations

import os
import selectors
import socket

from hpcproxy.connect import connect

_CHUNK_BYTES = 65536


def relay(proxy_url: str, host: str, port: int, timeout_s: float) -> None:
    """Carry stdin to `host:port` through `proxy_url` and its answer to stdout, until the far end has said all.

    Raises WayOutError naming the layer if there is no connection; OSError if it breaks.
    """
    with connect(proxy_url, host, port, timeout_s) as far, selectors.DefaultSelector() as selector:
        far.settimeout(None)
        selector.register(far, selectors.EVENT_READ)
        try:
            selector.register(0, selectors.EVENT_READ)
        except PermissionError:  # a regular file is always readable and cannot be waited for
            _send_file(far)
        while True:
            for key, _ in selector.select():
                if key.fileobj is far:
                    data = far.recv(_CHUNK_BYTES)
                    if not data:
                        return
                    _write_all(1, data)
                elif not _send_some(far):
                    selector.unregister(0)


def _send_file(far: socket.socket) -> None:
    while _send_some(far):
        pass


def _send_some(far: socket.socket) -> bool:
    """Send what stdin has now; at its end tell the far end so and return False."""
    data = os.read(0, _CHUNK_BYTES)
    if data:
        far.sendall(data)
    else:
        far.shutdown(socket.SHUT_WR)
    return bool(data)


def _write_all(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]

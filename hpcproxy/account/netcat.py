"""Carry stdin and stdout over a connection through the tunnel, for ssh's ProxyCommand. Connects."""

from __future__ import annotations

import os
import re
import selectors
import signal
import socket
import sys
from collections.abc import Mapping, Sequence

from hpcproxy import heard
from hpcproxy.account.connect import connect
from hpcproxy.errors import TunnelError

CONNECT_TIMEOUT_S = 30
_CHUNK_BYTES = 65536
_PORT = re.compile(r"[1-9][0-9]{0,4}")
_LAST_PORT = 65535


class _ReaderGoneError(Exception):
    """Whoever read our stdout has gone: the far end has nothing to do with it."""


def by_itself(words: Sequence[str], environ: Mapping[str, str]) -> int | None:
    """Run `nc HOST PORT` where the environment has the tunnel; return the exit code, None for all that is not that.

    ssh starts one for each of its connections, 64 at once are usual: loading the whole program for it would take half
    a second and 50 MB each.
    """
    url = environ.get("HPCPROXY_URL")
    if len(words) != 2 or words[0].startswith("-") or not _PORT.fullmatch(words[1]) or not url:  # noqa: PLR2004
        return None
    if int(words[1]) > _LAST_PORT:
        return None
    try:
        carry(url, words[0], int(words[1]), CONNECT_TIMEOUT_S)
    except TunnelError as error:
        said = str(error)
        print(f"hpcproxy: {heard.line(said, len(said) + 1)}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        return 128 + signal.SIGPIPE
    return 0


def carry(proxy_url: str, host: str, port: int, timeout_s: float) -> None:
    """As relay, but a connection that breaks is a TunnelError; BrokenPipeError if nobody reads our stdout any more."""
    try:
        relay(proxy_url, host, port, timeout_s)
    except _ReaderGoneError:
        raise BrokenPipeError from None
    except OSError as error:
        raise TunnelError("far end", f"the connection to {host}:{port} broke: {error.strerror or error}") from None


def relay(proxy_url: str, host: str, port: int, timeout_s: float) -> None:
    """Carry stdin to `host:port` through `proxy_url` and its answer to stdout, until the far end has said all.

    Raises TunnelError naming the layer if there is no connection; OSError if it breaks.
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
    try:
        while data:
            data = data[os.write(descriptor, data) :]
    except BrokenPipeError:
        raise _ReaderGoneError from None

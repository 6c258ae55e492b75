"""Real servers on loopback, good and bad ones; each listens when its constructor has returned."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


def free_port() -> int:
    """Return a port of 127.0.0.1 on which nothing listens now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class _Address(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        body = b"203.0.113.7\n" if self.path == "/ip" else b"no such page\n"
        self.send_response(200 if self.path == "/ip" else 404)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


# What a configuration must say for the agent to reach `internet`, which is on loopback here.
REACHED = ["*", "127.0.0.1"]


@contextlib.contextmanager
def internet() -> Iterator[str]:
    """Have a web server that answers `/ip` with an address; yields its URL."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Address)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/ip"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextlib.contextmanager
def black_hole() -> Iterator[int]:
    """Have a port whose queue is full: the kernel drops what else knocks, as a firewall would; yields the port."""
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(socket.socket())
        server.bind(("127.0.0.1", 0))
        server.listen(0)
        for _ in range(4):
            client = stack.enter_context(socket.socket())
            client.setblocking(False)
            client.connect_ex(server.getsockname())
        yield int(server.getsockname()[1])


@contextlib.contextmanager
def silent() -> Iterator[int]:
    """Have a port that takes connections and never says a word; yields the port."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as server:
        yield int(server.getsockname()[1])


def hanging_up() -> contextlib.AbstractContextManager[int]:
    """Have a port that takes connections and closes them at once; yields the port."""
    return _hanging_up(b"")


def greeting_and_hanging_up() -> contextlib.AbstractContextManager[int]:
    """Have a port that greets as sshd does, reads what the client begins with and closes; yields the port."""
    return _hanging_up(b"SSH-2.0-OpenSSH_9.9\r\n")


@contextlib.contextmanager
def _hanging_up(greeting: bytes) -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=_hang_up, args=(server, greeting))
        thread.start()
        try:
            yield int(server.getsockname()[1])
        finally:
            server.shutdown(socket.SHUT_RDWR)
            thread.join()


def _hang_up(server: socket.socket, greeting: bytes) -> None:
    with contextlib.suppress(OSError):
        while True:
            with server.accept()[0] as client:
                if greeting:
                    client.sendall(greeting)
                    _read_some(client)


def _read_some(client: socket.socket) -> None:
    """Read until nothing more comes: what is closed with something unread is reset, and not ended."""
    client.settimeout(0.2)
    with contextlib.suppress(OSError):
        while client.recv(65536):
            pass

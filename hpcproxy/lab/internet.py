"""The lab's internet: a small web server that answers on ports 80 and 443.

Runs as a program on the host `internet`, standard library only; it ends its start when both ports listen and goes on
in the background. To add a service, give `Internet.routes` another line.
"""

from __future__ import annotations

import http.server
import os
import ssl
import sys
import threading
from collections.abc import Callable
from typing import ClassVar

_BLOCK = b"\0" * 65536


class Internet(http.server.BaseHTTPRequestHandler):
    """Answers each request by the first route whose method and path prefix fit."""

    protocol_version = "HTTP/1.1"
    server_version = "LabInternet"
    disable_nagle_algorithm = True
    timeout = 600

    def answer(self, body: bytes, status: int = 200, kind: str = "text/plain") -> None:
        """Send a whole response."""
        self.start(status, len(body), kind)
        if self.command != "HEAD":
            self.wfile.write(body)

    def start(self, status: int, size_bytes: int, kind: str = "text/plain") -> None:
        """Send the head of a response of `size_bytes`."""
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(size_bytes))
        self.end_headers()

    def body(self) -> bytes:
        """Return the request's body."""
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def front(self) -> None:
        """Answer GET /."""
        self.answer(b"This is the internet.\n")

    def address(self) -> None:
        """Answer GET /ip: the address the request came from."""
        self.answer(f"{self.client_address[0]}\n".encode())

    def zeros(self) -> None:
        """Answer GET /bytes/N: N zero bytes."""
        text = self.path.rpartition("/")[2]
        if not text.isdigit():
            self.answer(b"not a number\n", 400)
            return
        rest = int(text)
        self.start(200, rest, "application/octet-stream")
        while rest > 0 and self.command != "HEAD":
            rest -= self.wfile.write(_BLOCK[:rest])

    def echo(self) -> None:
        """Answer POST /echo: the body comes back."""
        self.answer(self.body(), kind=self.headers.get("Content-Type") or "application/octet-stream")

    def sink(self) -> None:
        """Answer PUT /sink: how many bytes the body had; none of it is kept."""
        rest = size = int(self.headers.get("Content-Length") or 0)
        while rest > 0 and (part := self.rfile.read1(min(rest, len(_BLOCK)))):
            rest -= len(part)
        self.answer(f"{size - rest}\n".encode())

    routes: ClassVar[tuple[tuple[str, str, Callable[[Internet], None]], ...]] = (
        ("GET", "/ip", address),
        ("GET", "/bytes/", zeros),
        ("POST", "/echo", echo),
        ("PUT", "/echo", echo),
        ("PUT", "/sink", sink),
        ("GET", "/", front),
    )

    def dispatch(self) -> None:
        """Answer the request, by 404 where no route fits."""
        method = "GET" if self.command == "HEAD" else self.command
        path = self.path.partition("?")[0]
        for verb, prefix, action in self.routes:
            if method == verb and (
                path == prefix or (len(prefix) > 1 and prefix[-1] == "/" and path.startswith(prefix))
            ):
                action(self)
                return
        self.body()
        self.answer(b"not found\n", 404)

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = dispatch  # noqa: N815  http.server's names


class Server(http.server.ThreadingHTTPServer):
    """A threaded server; with a TLS context the handshake is done in the connection's own thread."""

    request_queue_size = 1024

    def __init__(self, port: int, context: ssl.SSLContext | None = None) -> None:
        super().__init__(("0.0.0.0", port), Internet)  # noqa: S104  all of its own network namespace
        if context is not None:
            self.socket = context.wrap_socket(self.socket, server_side=True, do_handshake_on_connect=False)


def main(certificate: str, key: str, log: str) -> None:
    """Listen on both ports and end; a child of this process serves on."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    servers = (Server(80), Server(443, context))
    if os.fork():
        os._exit(0)
    os.setsid()
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    null = os.open(os.devnull, os.O_RDONLY)
    for source, target in ((null, 0), (output, 1), (output, 2)):
        os.dup2(source, target)
    threads = [threading.Thread(target=server.serve_forever) for server in servers]
    for thread in threads:
        thread.start()


if __name__ == "__main__":
    main(*sys.argv[1:])

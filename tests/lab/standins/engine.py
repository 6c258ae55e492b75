"""A docker engine (docs.docker.com, Engine API) as far as one `docker run --network=host` goes: engine.py SOCKET.

Its containers are processes of this node with nothing in their environment but what the client hands over.
"""

from __future__ import annotations

import json
import os
import re
import socketserver
import struct
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler
from typing import Any

_STDOUT = 1
_asked: dict[str, Any] = {}
_started, _ended = threading.Event(), threading.Event()


class _Engine(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def address_string(self) -> str:
        return "unix"

    def log_message(self, *_: object) -> None:
        """Nobody reads it."""

    def do_HEAD(self) -> None:
        self.answer(200)

    do_GET = do_HEAD  # noqa: N815 - http.server's name

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = re.sub(r"^/v[0-9.]+", "", self.path.partition("?")[0])
        if path == "/containers/create":
            _asked.update(json.loads(body))
            host = _asked["HostConfig"]["NetworkMode"] == "host"
            self.answer(201, {"Id": "c1", "Warnings": []}) if host else self.answer(501, {"message": "no such network"})
        elif path == "/containers/c1/attach":
            self.attach()
        elif path == "/containers/c1/wait":
            self.wait()
        elif path == "/containers/c1/start":
            _started.set()
            self.answer(204)
        else:
            self.answer(404, {"message": f"{path}: not known here"})

    def attach(self) -> None:
        """The container's output, in the frames that the client expects."""
        head = "HTTP/1.1 101 UPGRADED\r\nContent-Type: application/vnd.docker.multiplexed-stream\r\n"
        self.wfile.write(f"{head}Connection: Upgrade\r\nUpgrade: tcp\r\n\r\n".encode())
        _started.wait()
        environment = {"PATH": os.defpath, **dict(entry.partition("=")[::2] for entry in _asked["Env"] or [])}
        done = subprocess.run(
            _asked["Cmd"], env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False
        )
        self.wfile.write(struct.pack(">BxxxI", _STDOUT, len(done.stdout)) + done.stdout)
        self.close_connection = True
        _ended.set()

    def wait(self) -> None:
        """The head at once, for the client starts nothing before; the rest at the container's end."""
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        self.wfile.flush()
        _ended.wait()
        body = json.dumps({"StatusCode": 0}).encode()
        self.wfile.write(b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body))

    def answer(self, status: int, value: object = None) -> None:
        body = b"" if value is None else json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Api-Version", "1.41")
        self.send_header("Content-Type", "application/json")
        if status != 204:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


class _Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True

    def get_request(self) -> Any:
        wire, _ = super().get_request()
        return wire, ("unix", 0)


_Server(sys.argv[1], _Engine).serve_forever()

"""`hpcproxy nc` as ssh starts it: one line for what fails, and nothing loaded that it does not need."""

from __future__ import annotations

import os
import re
import signal
import socketserver
import subprocess
import sys
import threading

import pytest

from tests.cli.test_cli import run

NOBODY = "http://127.0.0.1:9"


@pytest.mark.parametrize("words", [("h", "1"), ("h", "1", "--timeout", "5")], ids=["by itself", "as a task"])
def test_what_fails_is_one_line_either_way(words: tuple[str, ...]) -> None:
    done = run("nc", *words, HPCPROXY_URL=NOBODY)
    assert (done.returncode, done.stdout) == (1, "")
    assert re.fullmatch(r"hpcproxy: tunnel: nothing answers at http://127\.0\.0\.1:9: .*\n", done.stderr)


@pytest.mark.parametrize("port", ["0", "x", "99999", "-1"])
def test_what_is_no_port_is_said_by_the_task(port: str) -> None:
    done = run("nc", "h", port, HPCPROXY_URL=NOBODY)
    assert (done.returncode, done.stdout) == (2, "")
    assert re.fullmatch(rf"hpcproxy: '?{port}'? is not (between 1 and 65535|a whole number)\n", done.stderr)


def test_ssh_waits_for_no_module_that_carries_nothing() -> None:
    """64 of them start at once on a node: with the whole program that is half a minute and 3 GB."""
    argv = [sys.executable, "-X", "importtime", "-m", "hpcproxy", "nc", "h", "1"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, env={**os.environ, "HPCPROXY_URL": NOBODY})
    loaded = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if line.startswith("import time")}
    assert "hpcproxy.account.netcat" in loaded
    assert not loaded & {
        "invoke",
        "pydantic",
        "yaml",
        "jinja2",
        "rich",
        "paramiko",
        "python_socks",
        "hpcproxy.cli.user",
    }


class _Proxy(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        self.request.recv(4096)
        self.request.sendall(b"HTTP/1.1 200 OK\r\n\r\nSSH-2.0-greeting\r\n")
        self.request.recv(1)


@pytest.mark.parametrize("words", [("h", "1"), ("h", "1", "--timeout", "5")], ids=["by itself", "as a task"])
def test_a_reader_that_has_gone_is_no_fault_of_the_far_end(words: tuple[str, ...]) -> None:
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), _Proxy) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        reading, writing = os.pipe()
        os.close(reading)
        environ = {**os.environ, "HPCPROXY_URL": f"http://127.0.0.1:{server.server_address[1]}"}
        argv = [sys.executable, "-m", "hpcproxy", "nc", *words]
        with (
            os.fdopen(writing, "wb") as stdout,
            subprocess.Popen(
                argv, stdin=subprocess.PIPE, stdout=stdout, stderr=subprocess.PIPE, env=environ
            ) as process,
        ):
            code, said = process.wait(timeout=60), process.stderr.read() if process.stderr else b""
        server.shutdown()
    assert (code, said) == (128 + signal.SIGPIPE, b"")

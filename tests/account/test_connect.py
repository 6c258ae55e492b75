"""Through HTTP CONNECT to the byte: what the far end says first is still in the socket, however its packets fall."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import threading
from collections.abc import Iterator

import pytest

from hpcproxy import process
from hpcproxy.account import checks
from hpcproxy.account.connect import connect
from hpcproxy.errors import TunnelError
from tests.servers import free_port
from tests.waiting import DEADLINE_S

HEAD = b"HTTP/1.1 200 Connection established\r\n\r\n"
BANNER = b"SSH-2.0-OpenSSH_10.0\r\n"


@contextlib.contextmanager
def _agent(*pieces: bytes, asked: list[bytes] | None = None) -> Iterator[str]:
    """One that answers a CONNECT in these packets, then ends its sending."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(DEADLINE_S)

        def serve() -> None:
            with contextlib.suppress(socket.timeout), server.accept()[0] as client:
                client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                head = b""
                while not head.endswith(b"\r\n\r\n"):
                    head += client.recv(4096)
                if asked is not None:
                    asked.append(head)
                for piece in pieces:
                    client.sendall(piece)
                    if len(pieces) > 1:
                        threading.Event().wait(0.01)  # so that each is a packet of its own
                client.shutdown(socket.SHUT_WR)
                client.recv(1)

        thread = threading.Thread(target=serve)
        thread.start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}"
        thread.join()


@pytest.mark.parametrize(
    "pieces",
    [
        [HEAD + BANNER],
        [HEAD, BANNER],
        [HEAD[:-1], HEAD[-1:] + BANNER],
        [bytes([byte]) for byte in HEAD] + [BANNER],
        [HEAD.replace(b"\r\n", b"\n") + BANNER],
    ],
    ids=["one packet", "two", "cut in the end", "byte by byte", "bare line feeds"],
)
def test_what_the_far_end_says_first_is_all_there(pieces: list[bytes]) -> None:
    with _agent(*pieces) as url, connect(url, "h.test", 22, 30) as far:
        heard = b""
        while data := far.recv(4096):
            heard += data
    assert heard == BANNER


@pytest.mark.parametrize(
    ("answer", "layer", "words"),
    [
        (
            b"HTTP/1.1 502 Bad Gateway (Connection refused)\r\n\r\n",
            "far end",
            "h.test:22 was not reached .*502 .*refused",
        ),
        (b"HTTP/1.1 403\r\n\r\n", "far end", "h.test:22 was not reached .*403"),
        (b"SSH-2.0-x\r\n\r\n", "tunnel", "is no tunnel"),
        (b"HTTP/1.1 200 yes\r\n", "tunnel", "is no tunnel"),
        (b"", "tunnel", "is no tunnel"),
        (b"x" * 16384, "tunnel", "is no tunnel"),
    ],
)
def test_an_answer_that_is_no_connection_is_named(answer: bytes, layer: str, words: str) -> None:
    with _agent(answer) as url, pytest.raises(TunnelError, match=words) as caught:
        connect(url, "h.test", 22, 30)
    assert caught.value.layer == layer


def test_silence_and_nobody_are_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        with pytest.raises(TunnelError, match=r"h.test:22 did not answer within 0.2 s"):
            connect(url, "h.test", 22, 0.2)
    with pytest.raises(TunnelError, match="nothing answers"):
        connect(url, "h.test", 22, 5)
    with pytest.raises(TunnelError, match="no address of a tunnel"):
        connect("http://127.0.0.1:none", "h.test", 22, 5)


def test_a_far_end_that_says_a_byte_now_and_then_is_waited_for_no_longer_than_any() -> None:
    """Each of its words comes in time, the last of them never."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            with contextlib.suppress(OSError), server.accept()[0] as client:
                client.recv(4096)
                client.sendall(HEAD)
                client.recv(4096)
                client.sendall(b"HTTP/1.1 200 OK\r\nX: ")
                for _ in range(200):
                    client.sendall(b"x")
                    threading.Event().wait(0.1)

        thread = threading.Thread(target=serve)
        thread.start()
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        with pytest.raises(TunnelError, match="did not answer within 1 s"):
            checks.fetch_address(url, "http://far.test/ip", 1)
        thread.join()


@pytest.mark.parametrize(
    ("host", "named"), [("h.test", b"h.test:22"), ("192.0.2.1", b"192.0.2.1:22"), ("2001:db8::1", b"[2001:db8::1]:22")]
)
def test_the_far_end_is_named_as_http_spells_it(host: str, named: bytes) -> None:
    asked: list[bytes] = []
    with _agent(HEAD + BANNER, asked=asked) as url, connect(url, host, 22, 30) as far:
        while far.recv(4096):
            pass
    assert asked == [b"CONNECT " + named + b" HTTP/1.1\r\nHost: " + named + b"\r\n\r\n"]


@contextlib.contextmanager
def _socks(asked: list[bytes], reply: int = 0) -> Iterator[int]:
    """ssh's own listener, as far as one connection goes (RFC 1928): what is asked of it, and what it answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(DEADLINE_S)

        def serve() -> None:
            with contextlib.suppress(OSError), server.accept()[0] as client:
                client.recv(64)
                client.sendall(b"\x05\x00")
                asked.append(client.recv(256))
                client.sendall(bytes([5, reply, 0, 1]) + bytes(6) + (b"" if reply else BANNER))
                client.recv(1)

        thread = threading.Thread(target=serve)
        thread.start()
        yield server.getsockname()[1]
        thread.join()


@pytest.mark.parametrize(
    ("scheme", "sent"),
    [("socks5h", b"\x05\x01\x00\x03\x09localhost\x00\x16"), ("socks5", b"\x05\x01\x00\x01\x7f\x00\x00\x01\x00\x16")],
    ids=["the name", "its address"],
)
def test_who_resolves_the_name_is_the_schemes_say(scheme: str, sent: bytes) -> None:
    asked: list[bytes] = []
    with _socks(asked) as port, connect(f"{scheme}://127.0.0.1:{port}", "localhost", 22, 30) as far:
        assert far.recv(64) == BANNER
    assert asked == [sent]


def test_what_fails_by_socks_has_its_layer() -> None:
    def layer(port: int, host: str = "127.0.0.9", scheme: str = "socks5") -> str:
        with pytest.raises(TunnelError) as caught:
            connect(f"{scheme}://127.0.0.1:{port}", host, 22, 30)
        return caught.value.layer

    with _socks([], reply=5) as port:
        assert layer(port) == "far end"
    assert layer(free_port()) == "tunnel"
    with _socks([]) as port:
        assert layer(port, "no-such-host.invalid") == "name"


@pytest.mark.parametrize(
    ("error", "on_node", "layer", "words"),
    [
        (PermissionError(13, "Permission denied"), False, "ssh", "/bin/bash cannot be run: Permission denied"),
        (FileNotFoundError(2, "No such file"), True, "slurm", "srun is not on PATH"),
        (PermissionError(13, "Permission denied"), True, "slurm", "srun cannot be run: Permission denied"),
        (subprocess.TimeoutExpired("bash", 7), False, "route", "no answer within 7 s"),
        (
            process.TooMuchError("says more than any answer holds"),
            False,
            "ssh",
            "the probe says more than any answer holds",
        ),
    ],
)
def test_a_login_on_trial_that_cannot_begin_is_named(
    error: Exception, on_node: bool, layer: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(checks.process, "run", fails)
    with pytest.raises(TunnelError) as caught:
        checks.probe(b"", {}, 7, on_node=on_node)
    assert (caught.value.layer, caught.value.why.reason) == (layer, words)

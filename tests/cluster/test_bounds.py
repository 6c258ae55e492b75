"""A host that talks without an end, or hardly at all, costs its own line, little time and little memory."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hpcproxy.cluster import fan_out
from tests.cluster.host import TOKEN
from tests.sshd import USER, Sshd, make_key

_LIMIT_S = 20


def _times(trouble: str) -> float:
    """How many limits one host has in all: two seconds where time is what ends it, ample where its size shall do so."""
    return 0.1 if "after 2 s" in trouble else 3.0


@contextlib.contextmanager
def serving(talk: Callable[[socket.socket], None]) -> Iterator[int]:
    """A server on loopback that does `talk` with whoever comes first."""

    def serve() -> None:
        with contextlib.suppress(OSError), listener.accept()[0] as client:
            client.settimeout(5)  # whoever hung up may leave it without a word for minutes
            talk(client)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = threading.Thread(target=serve)
        server.start()
        yield listener.getsockname()[1]
    server.join()


def _flood(client: socket.socket) -> None:
    while True:
        client.sendall(b"x" * 65536)


def _drip(client: socket.socket) -> None:
    while True:
        client.sendall(b".")
        time.sleep(0.2)


def _huge_packet(client: socket.socket) -> None:
    client.sendall(b"SSH-2.0-x\r\n" + (2**31 - 4).to_bytes(4, "big"))
    _flood(client)


@pytest.mark.parametrize(
    ("talk", "trouble"),
    [
        (_flood, "says more than any answer holds"),
        (_huge_packet, "says more than any answer holds"),
        (_drip, "is not done after 2 s"),
    ],
)
def test_a_login_has_an_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, talk: Callable[[socket.socket], None], trouble: str
) -> None:
    """Paramiko itself would read one line for ever, and look for its end in all of it again and again."""
    monkeypatch.setattr(fan_out, "TOTAL_TIMES", _times(trouble))
    (tmp_path / "known_hosts").touch()
    with serving(talk) as port:
        login = fan_out.Login("root", port, make_key(tmp_path / "id"), None, tmp_path / "known_hosts", _LIMIT_S)
        began = time.monotonic()
        (reply,) = fan_out.Fleet(login, 1, TOKEN).ask({"127.0.0.1": b"exit\n"}).hosts
        assert time.monotonic() - began < _LIMIT_S * _times(trouble) + 13
    assert (reply.answer, reply.cause) == (None, trouble)


@pytest.mark.parametrize(
    ("command", "trouble"),
    [
        ("yes 0123456789abcdef", "says more than any answer holds"),
        (f"printf '{TOKEN} done unchanged\\n'; yes >&2", "is not done after 2 s"),  # a window that nobody opens again
        ("while printf .; do sleep 0.2; done", "is not done after 2 s"),
        (f"printf '{TOKEN} done unchanged\\n'; while printf .; do sleep 0.2; done", "is not done after 2 s"),
    ],
)
def test_an_answer_has_an_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, jump_host: Sshd, command: str, trouble: str
) -> None:
    monkeypatch.setattr(fan_out, "TOTAL_TIMES", _times(trouble))
    (tmp_path / "known_hosts").write_text(jump_host.known_hosts)
    login = fan_out.Login(USER, jump_host.port, jump_host.identity, None, tmp_path / "known_hosts", _LIMIT_S)
    began = time.monotonic()
    (reply,) = fan_out.Fleet(login, 1, TOKEN).ask({"127.0.0.1": f"{command}\n".encode()}).hosts
    assert time.monotonic() - began < _LIMIT_S * _times(trouble) + 13
    assert (reply.answer, reply.cause) == (None, trouble)

"""TCP connections for Paramiko, and the file that says whom to trust."""

from __future__ import annotations

import socket
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import paramiko
import pytest

from hpcproxy.cluster import dial, fan_out
from hpcproxy.cluster.dial import Prompt
from hpcproxy.errors import FileError
from tests.cluster.host import TOKEN
from tests.sshd import make_key


def test_a_reader_learns_of_the_end_at_once_and_the_number_stays_taken() -> None:
    ours, theirs = socket.socketpair()
    prompt = Prompt(fileno=ours.detach())
    prompt.settimeout(60)
    heard: list[bytes] = []
    reader = threading.Thread(target=lambda: heard.append(prompt.recv(10)))
    reader.start()
    number = prompt.fileno()
    prompt.close()
    reader.join(30)
    assert heard == [b""]
    with theirs, socket.socket() as other:
        assert prompt.fileno() == number != other.fileno()
        prompt.release()
        assert prompt.fileno() == -1


def test_a_number_is_free_again_only_when_paramikos_thread_has_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That thread would read what is meant for the next connection; here it is slow."""
    receive, release = Prompt.recv, Prompt.release
    readers: list[list[threading.Thread]] = []

    def slow(self: Prompt, size: int, flags: int = 0) -> bytes:
        data = receive(self, size, flags)
        if not data:
            time.sleep(0.3)
        return data

    def watched(self: Prompt) -> None:
        threads = [thread for thread in threading.enumerate() if isinstance(thread, paramiko.Transport)]
        readers.append([thread for thread in threads if thread.sock is self])
        release(self)

    monkeypatch.setattr(Prompt, "recv", slow)
    monkeypatch.setattr(Prompt, "release", watched)
    identity = make_key(tmp_path / "id")
    (tmp_path / "known_hosts").touch()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        login = fan_out.Login("root", listener.getsockname()[1], identity, None, tmp_path / "known_hosts", 1)
        (reply,) = fan_out.Fleet(login, 1, TOKEN).ask({"127.0.0.1": b"exit\n"}).hosts
    assert reply.cause == "accepts connections and stays silent for 1 s"
    assert readers == [[]]


def test_a_thread_that_does_not_end_keeps_the_number(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = socket.socketpair()
    prompt, goes_on = Prompt(fileno=ours.detach()), threading.Event()
    reader = threading.Thread(target=goes_on.wait)
    reader.start()
    client = SimpleNamespace(get_transport=lambda: reader, close=prompt.close)
    monkeypatch.setattr(dial, "_END_S", 0.1)
    with theirs:
        dial.hang_up(SimpleNamespace(client=client, connect_kwargs={"sock": prompt}))
        assert prompt.fileno() != -1
        goes_on.set()
        reader.join()
        dial.hang_up(SimpleNamespace(client=client, connect_kwargs={"sock": prompt}))
        assert prompt.fileno() == -1


@pytest.mark.parametrize("line", [b"c1 ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ\n", b"c1 ssh-ed25519 \xff\xfe\n"])
def test_a_damaged_line_of_known_hosts_is_named(tmp_path: Path, line: bytes) -> None:
    known_hosts = tmp_path / "known_hosts"
    known_hosts.write_bytes(line)
    with pytest.raises(FileError, match="known_hosts"):
        fan_out.Fleet(fan_out.Login("root", 22, None, None, known_hosts, 1))

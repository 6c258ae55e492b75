"""Who listens at the tunnel: seen by a shell, whatever else comes and goes meanwhile."""

from __future__ import annotations

import itertools
import socket
import subprocess
import threading
from collections.abc import Iterator

import pytest

from tests import REPOSITORY

LISTENING = REPOSITORY / "templates" / "lib" / "sourced" / "listening.sh"
LOOKS = f"""
. {LISTENING}
__hpcproxy_uid=$(id -u) __hpcproxy_listen=$1 found=0 tries=0
while [ "$tries" -lt "$2" ]; do
    if __hpcproxy_listening; then found=$((found + 1)); fi
    tries=$((tries + 1))
done
echo "$found"
"""


def listener() -> socket.socket:
    sock = socket.create_server(("127.0.0.1", 0))
    sock.settimeout(10)
    return sock


@pytest.fixture
def bustle() -> Iterator[None]:
    """Sixty listeners, of which one after the other goes and another comes."""
    over = threading.Event()

    def change() -> None:
        there = [listener() for _ in range(60)]
        for place in itertools.cycle(range(len(there))):
            if over.wait(0.0005):
                break
            there[place].close()
            there[place] = listener()
        for sock in there:
            sock.close()

    thread = threading.Thread(target=change)
    thread.start()
    yield
    over.set()
    thread.join()


def looks(shell: str, port: int, count: int) -> int:
    """How many of `count` looks find somebody at `port`."""
    words = [shell, "-c", LOOKS, shell, f"0100007F:{port:04X}", str(count)]
    return int(subprocess.run(words, check=True, capture_output=True, text=True).stdout)


@pytest.mark.parametrize("shell", ["bash", "dash"])
def test_a_listener_is_found_while_others_come_and_go(shell: str, bustle: None) -> None:
    with listener() as ours:
        assert looks(shell, ours.getsockname()[1], 80) == 80


@pytest.mark.parametrize("shell", ["bash", "dash"])
def test_one_that_is_not_there_is_not_found(shell: str, bustle: None) -> None:
    with socket.socket() as taken:  # bound, so that nobody else gets the port, and deaf
        taken.bind(("127.0.0.1", 0))
        assert looks(shell, taken.getsockname()[1], 5) == 0

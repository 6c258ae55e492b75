"""Real bash, dash and zsh: at a terminal, as a person has them, and without, as a job script runs them."""

from __future__ import annotations

import fcntl
import ipaddress
import os
import pty
import shutil
import socket
import subprocess
import termios
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from hpcproxy.files import variables

SHELLS = ("bash", "dash")
PEOPLES = (*SHELLS, "zsh")  # zsh as somebody has it who reads our fragment by `emulate sh`
PROXY_VARIABLES = variables.NAMES


def program_of(shell: str) -> str:
    """Return the path of `shell`; skips the test on a machine that has none, which CI is not."""
    program = shutil.which(shell)
    if program is None:
        pytest.skip(f"there is no {shell} here")
    return program


def argv_of(shell: str, *options: str) -> list[str]:
    program = program_of(shell)
    bare = {"bash": ["--norc", "--noprofile"], "zsh": ["--emulate", "sh", "-f"]}
    return [program, *bare.get(shell, []), *options]


def script(shell: str, text: str, environ: Mapping[str, str] = os.environ) -> subprocess.CompletedProcess[str]:
    """Run `text` as a job script runs: no terminal, nothing read from anybody's rc files."""
    argv = argv_of(shell, "-c", text)
    return subprocess.run(
        argv, capture_output=True, text=True, check=False, env=dict(environ), stdin=subprocess.DEVNULL
    )


def interactive(shell: str, text: str, environ: Mapping[str, str] = os.environ) -> tuple[int, str]:
    """Run `text` in an interactive shell with a terminal of its own; return its exit code and all that it printed.

    The terminal is only for input and job control: what is written to one may be lost when its last user goes.
    """
    keyboard, terminal = pty.openpty()
    try:
        done = subprocess.run(
            argv_of(shell, "-i", "-c", text),
            stdin=terminal,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
            env=dict(environ),
            start_new_session=True,
            preexec_fn=_take_the_terminal,
        )
    finally:
        os.close(terminal)
        os.close(keyboard)
    return done.returncode, done.stdout.decode()


def _take_the_terminal() -> None:
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


@contextmanager
def tunnel_state(job: str = "shell", *, listening: bool = True, **lines: str) -> Iterator[Path]:
    """Have the state directory of a tunnel for `job`, and a listener where it says so."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        if listening:
            server.listen()
        port = server.getsockname()[1]
        values = {
            "version": "1",
            "key": f"{job}.0",
            "step": "",
            "uid": str(os.getuid()),
            "listen": f"0100007F:{port:04X}",
            "url": f"socks5h://127.0.0.1:{port}",
            "no_proxy": "localhost,127.0.0.1,.local",
            **lines,
        }
        directory = Path(os.environ["TMPDIR"]) / f"hpcproxy-{os.geteuid()}" / f"{job}.0-abcd1234"
        directory.parent.mkdir(mode=0o700, exist_ok=True)
        directory.mkdir(mode=0o700)
        (directory / "env").write_text("".join(f"{name}={value}\n" for name, value in values.items()))
        yield directory


def shells_url(port: object) -> str:
    """Return where the tunnel of this user's shells is; any/address.sh has another part for uids beyond 22 bits."""
    return f"http://{ipaddress.IPv4Address('127.128.0.0') + os.getuid()}:{port}"


def url_of(state: Path) -> str:
    """Return where the tunnel of `state` is."""
    return environment_of(state)["url"]


def environment_of(state: Path) -> dict[str, str]:
    """Return what the file of `state` says that shells read."""
    return dict(line.split("=", 1) for line in (state / "env").read_text().splitlines())

"""A real sshd on loopback, run by whoever runs the tests, with keys of its own; it answers when `start` returns."""

from __future__ import annotations

import contextlib
import getpass
import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.servers import free_port
from tests.waiting import until

PROGRAM = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
USER = getpass.getuser()

# sshd keeps the first value that it reads of most options, so `more` comes first.
_CONFIG = """
{more}
ListenAddress 127.0.0.1
Port {port}
HostKey {host_key}
AuthorizedKeysFile {authorized_keys}
PidFile none
StrictModes no
UsePAM no
PasswordAuthentication no
KbdInteractiveAuthentication no
ChallengeResponseAuthentication no
PermitRootLogin yes
PrintMotd no
MaxStartups 100
"""


def make_key(path: Path, passphrase: str = "", kind: str = "ed25519") -> Path:
    """Write a new key pair at `path` and return `path`."""
    argv = ["ssh-keygen", "-q", "-t", kind, "-N", passphrase, "-C", "test", "-f", str(path)]
    subprocess.run(argv, check=True, stdin=subprocess.DEVNULL)
    return path


@dataclass
class Sshd:
    """One sshd; its files lie in `directory`, its clients' key is `identity`."""

    directory: Path
    port: int
    identity: Path
    process: subprocess.Popen[bytes] | None = None

    @property
    def jump(self) -> str:
        return f"{USER}@127.0.0.1:{self.port}"

    @property
    def host_key(self) -> str:
        """The key's type and base64 text."""
        return " ".join((self.directory / "host_key.pub").read_text().split()[:2])

    @property
    def known_hosts(self) -> str:
        return f"[127.0.0.1]:{self.port} {self.host_key}\n"

    @property
    def known(self) -> Path:
        """A list of known hosts that has it, to be changed at will."""
        return self.directory / "known"

    @property
    def authorized_keys(self) -> Path:
        """Whose keys it takes."""
        return self.directory / "authorized_keys"

    @property
    def settings(self) -> dict[str, Any]:
        """What `write_script` needs to go through it."""
        return {"jump": self.jump, "identity": str(self.identity), "known_hosts": self.known_hosts}

    def start(self) -> Sshd:
        """Listen; returns itself when it greets."""
        assert PROGRAM is not None, "these tests need sshd (Debian: openssh-server)"
        argv = [PROGRAM, "-D", "-E", str(self.directory / "log"), "-f", str(self.directory / "config")]
        self.process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, start_new_session=True)
        until(self._greets, f"sshd greets; its log: {self.directory / 'log'}")
        return self

    def _greets(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, (self.directory / "log").read_text()
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=5) as client:
            return client.recv(4) == b"SSH-"
        return False

    def leave(self) -> None:
        """No new logins; those under way go on, as with a real sshd that restarts."""
        if self.process is not None:
            self.process.terminate()
            self.process.wait()
            self.process = None

    def stop(self) -> None:
        """End it and every connection it serves."""
        if self.process is not None:
            for pid in family(self.process.pid):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            self.process.wait()
            self.process = None


def family(pid: int) -> list[int]:
    """Return `pid` and all its descendants: an sshd gives each connection a session of its own."""
    try:
        text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    except OSError:  # it has ended meanwhile
        text = ""
    return [pid, *(member for child in text.split() for member in family(int(child)))]


def prepare(directory: Path, more: str = "", host_key: Path | None = None) -> Sshd:
    """Return an sshd that is set up in `directory` and not started; `more` is put into its configuration."""
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # sshd wants it of root only
    directory.mkdir(parents=True, exist_ok=True)
    own = host_key or make_key(directory / "host_key")
    if host_key:
        shutil.copy(host_key, directory / "host_key")
        shutil.copy(f"{host_key}.pub", directory / "host_key.pub")
        own = directory / "host_key"
    identity = make_key(directory / "id")
    shutil.copy(f"{identity}.pub", directory / "authorized_keys")
    server = Sshd(directory, free_port(), identity)
    base = _CONFIG.format(port=server.port, host_key=own, authorized_keys=directory / "authorized_keys", more=more)
    _write_config(directory / "config", base)
    server.known.write_text(server.known_hosts)
    return server


def _write_config(path: Path, base: str) -> None:
    # From OpenSSH 9.8 on an address that fails often is shut out, and here all clients have one address.
    for text in (f"{base}PerSourcePenalties no\n", base):
        path.write_text(text)
        done = subprocess.run([str(PROGRAM), "-t", "-f", str(path)], capture_output=True, text=True, check=False)
        if done.returncode == 0:
            return
    raise AssertionError(done.stderr)


@contextlib.contextmanager
def running(directory: Path, more: str = "") -> Iterator[Sshd]:
    """Have an sshd for as long as the block lasts."""
    server = prepare(directory, more)
    server.start()
    try:
        yield server
    finally:
        server.stop()

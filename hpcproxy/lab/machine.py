"""One running host of a lab, seen from outside: commands, files, processes and listeners."""

from __future__ import annotations

import contextlib
import ipaddress
import os
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hpcproxy.errors import LabError
from hpcproxy.lab.command import HostProcess, entering, finish, inside, login_environment, start, tail
from hpcproxy.lab.spec import USERS, Host

_LISTEN = "0A"  # TCP_LISTEN in /proc/net/tcp


@dataclass(frozen=True)
class Machine:
    """A host and the pid of its first process."""

    host: Host
    pid: int

    @property
    def name(self) -> str:
        """The host's name."""
        return self.host.name

    def command(
        self, argv: Sequence[str], user: str = "root", *, env: Mapping[str, str] | None = None, cwd: str | None = None
    ) -> list[str]:
        """Return the command line that runs `argv` here as `user`, from outside."""
        if user != "root" and user not in USERS:
            raise LabError(f"lab: no user {user!r}; valid: root, {', '.join(USERS)}")
        home = "/root" if user == "root" else f"/home/{user}"
        environment = {**login_environment(user, home), **(env or {})}
        return entering(self.pid, argv, user, cwd or home, environment)

    def popen(
        self,
        argv: Sequence[str],
        user: str = "root",
        *,
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
        **pipes: Any,  # noqa: ANN401  what Popen takes: stdin, stdout, stderr
    ) -> HostProcess:
        """Start `argv` here as `user`; signals to the result reach the command."""
        return start(self.command(argv, user, env=env, cwd=cwd), **pipes)

    def run(  # noqa: PLR0913  the options subprocess.run has
        self,
        argv: Sequence[str],
        user: str = "root",
        *,
        env: Mapping[str, str] | None = None,
        input: str | None = None,  # noqa: A002  the name subprocess.run has
        timeout_s: float = 60,
        check: bool = False,
        cwd: str | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run `argv` here as `user` to its end; raises LabError after `timeout_s`, or with `check` when it failed."""
        process = self.popen(
            argv,
            user,
            env=env,
            cwd=cwd,
            stdin=subprocess.DEVNULL if input is None else subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        what = f"{self.name}: {' '.join(argv)}"
        done = finish(process, what, input, timeout_s)
        if check and done.returncode != 0:
            raise LabError(f"{what}: exit {done.returncode}: {tail(done.stderr + done.stdout)}")
        return done

    def path(self, path: str) -> Path:
        """Where this host's `path` is for a process outside, its symbolic links followed."""
        return inside(Path(f"/proc/{self.pid}/root"), path)

    def put(self, path: str, data: str | bytes, mode: int = 0o644, owner: tuple[int, int] = (0, 0)) -> None:
        """Write the file with this content, mode and owner; a symbolic link in its place is replaced."""
        parent, name = os.path.split(path)
        directory = self.path(parent)
        directory.mkdir(parents=True, exist_ok=True)
        descriptor, draft = tempfile.mkstemp(dir=directory)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data.encode() if isinstance(data, str) else data)
            os.fchown(file.fileno(), *owner)
            os.fchmod(file.fileno(), mode)
        Path(draft).replace(directory / name)

    def directory(self, path: str, mode: int = 0o755, owner: tuple[int, int] = (0, 0)) -> Path:
        """Make the directory with this mode and owner, and return where it is from outside."""
        there = self.path(path)
        there.mkdir(parents=True, exist_ok=True)
        os.chown(there, *owner)
        there.chmod(mode)
        return there

    def read_tail(self, path: str) -> str:
        """Return the last lines of a log, or a word that there is none."""
        try:
            return tail(self.path(path).read_text(errors="replace"))
        except OSError as error:
            return f"({path}: {error.strerror})"

    def processes(self) -> list[tuple[int, str, str]]:
        """(pid inside, user, command line) of every process here but the first and those just asking."""
        proc = Path(f"/proc/{self.pid}/root/proc")
        names = self._user_names()
        found = []
        for pid in sorted(int(entry.name) for entry in proc.iterdir() if entry.name.isdigit()):
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                words = (proc / str(pid) / "cmdline").read_bytes().rstrip(b"\0").split(b"\0")
                uid = (proc / str(pid)).stat().st_uid
                if pid != 1 and words != [b""]:
                    found.append((pid, names.get(uid, str(uid)), b" ".join(words).decode(errors="replace")))
        return found

    def listeners(self) -> list[tuple[str, int, int]]:
        """(address, port, uid) of every TCP listener here, IPv4 and IPv6."""
        found = []
        for family in ("tcp", "tcp6"):
            for line in Path(f"/proc/{self.pid}/net/{family}").read_text().splitlines()[1:]:
                fields = line.split()
                if fields[3] == _LISTEN:
                    address, _, port = fields[1].partition(":")
                    found.append((_address(address), int(port, 16), int(fields[7])))
        return sorted(found)

    def _user_names(self) -> dict[int, str]:
        rows = (line.split(":") for line in self.path("/etc/passwd").read_text().splitlines())
        return {int(row[2]): row[0] for row in rows}


def _address(text: str) -> str:
    """Return the address that /proc/net/tcp writes as 32-bit words, in a little-endian machine's byte order."""
    words = [bytes.fromhex(text[at : at + 8])[::-1] for at in range(0, len(text), 8)]
    return str(ipaddress.ip_address(b"".join(words)))

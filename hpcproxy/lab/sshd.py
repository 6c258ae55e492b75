"""The jump hosts' ssh servers: a real sshd each, with its own host keys and OpenSSH's stock limits."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping
from pathlib import Path

from hpcproxy.errors import LabError
from hpcproxy.lab.machine import Machine

LOG = "/var/log/sshd.log"
PID_FILE = "/run/sshd.pid"
KEY_TYPES = ("ed25519", "rsa")
PORT = 22
TIMEOUT_S = 20.0


def configure(machine: Machine, first: Mapping[str, str]) -> None:
    """Write sshd_config; the lines of `first` come first, and sshd takes the first value of a keyword."""
    lines = [f"{keyword} {value}" for keyword, value in first.items()]
    lines += [f"HostKey /etc/ssh/ssh_host_{kind}_key" for kind in KEY_TYPES]
    lines += ["UsePAM no", "LogLevel VERBOSE", f"PidFile {PID_FILE}", "Subsystem sftp internal-sftp"]
    machine.put("/etc/ssh/sshd_config", "".join(f"{line}\n" for line in lines))
    machine.directory("/run/sshd")


def make_host_keys(machine: Machine) -> None:
    """Make new host keys, unlike any the host had before."""
    for kind in KEY_TYPES:
        key = f"/etc/ssh/ssh_host_{kind}_key"
        for old in (key, f"{key}.pub"):
            machine.path(old).unlink(missing_ok=True)
        command = ["ssh-keygen", "-q", "-t", kind, "-N", "", "-C", machine.name, "-f", key]
        machine.run(command, check=True)


def start(machine: Machine) -> None:
    """Start sshd and wait until it listens on port 22."""
    machine.run(["/usr/sbin/sshd", "-E", LOG], check=True)
    deadline = time.monotonic() + TIMEOUT_S
    while not listening(machine):
        if time.monotonic() > deadline:
            raise LabError(f"{machine.name}: sshd does not listen: {machine.read_tail(LOG)}")
        time.sleep(0.01)


def stop(machine: Machine, sessions: bool) -> None:
    """Stop sshd, so that connections are refused; with `sessions` the open ones are cut as well."""
    listener = _listener(machine)
    if listener is None:
        return
    for pid in ([*_descendants(machine, listener)] if sessions else []) + [listener]:
        machine.run(["kill", "-KILL", str(pid)])
    machine.path(PID_FILE).unlink(missing_ok=True)
    deadline = time.monotonic() + TIMEOUT_S
    while listening(machine):
        if time.monotonic() > deadline:
            raise LabError(f"{machine.name}: sshd still listens {TIMEOUT_S:.0f} s after SIGKILL")
        time.sleep(0.01)


def listening(machine: Machine) -> bool:
    """Whether something listens on port 22."""
    return any(port == PORT for _, port, _ in machine.listeners())


def _listener(machine: Machine) -> int | None:
    """Return the pid, inside, of the sshd that wrote the pid file, if it still is one."""
    with contextlib.suppress(FileNotFoundError, ValueError):
        pid = int(machine.path(PID_FILE).read_text())
        if any(found == pid and "sshd" in command for found, _, command in machine.processes()):
            return pid
    return None


def _descendants(machine: Machine, pid: int) -> list[int]:
    """Return the sshd processes below `pid`, but not what users run in their sessions, which end as for real."""
    found = []
    for child, _, command in machine.processes():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            parent = int(Path(f"/proc/{machine.pid}/root/proc/{child}/stat").read_text().rpartition(")")[2].split()[1])
            if parent == pid and command.startswith("sshd"):
                found += [*_descendants(machine, child), child]
    return found

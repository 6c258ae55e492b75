"""The one file a lab keeps on the machine: who its root process is. /run/hpcproxy-lab/NAME.json, for root only.

The file is also the lock that lets one process at a time build or remove a lab of that name.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hpcproxy.errors import LabError

DIRECTORY = Path("/run/hpcproxy-lab")
END_TIMEOUT_S = 20.0
LOCK_TIMEOUT_S = 180.0


@dataclass(frozen=True)
class Process:
    """A process of this machine, told from a later one with the same pid by its start and the machine's boot."""

    pid: int
    start_ticks: int
    boot: str

    @classmethod
    def of(cls, pid: int) -> Process:
        """Return the process that has `pid` now; raises ProcessLookupError when none has."""
        fields = _stat(pid)
        if fields is None:
            raise ProcessLookupError(pid)
        return cls(pid, int(fields[19]), _boot())

    @property
    def alive(self) -> bool:
        """True while this very process runs; one that only waits to be reaped does not."""
        fields = _stat(self.pid)
        return (
            fields is not None
            and fields[0] not in ("Z", "X")
            and int(fields[19]) == self.start_ticks
            and _boot() == self.boot
        )

    def end(self, timeout_s: float = END_TIMEOUT_S) -> None:
        """End this process and with it, as it is PID 1 of its namespace, every process below it."""
        if not self.alive:
            return
        descriptor = os.pidfd_open(self.pid)
        try:
            if self.alive:  # asked again: the descriptor now pins who we mean
                signal.pidfd_send_signal(descriptor, signal.SIGKILL)
        finally:
            os.close(descriptor)
        deadline = time.monotonic() + timeout_s
        while self.alive:
            if time.monotonic() > deadline:
                raise LabError(f"lab: process {self.pid} did not end within {timeout_s:.0f} s of SIGKILL")
            time.sleep(0.005)


@dataclass(frozen=True)
class Record:
    """What `attach` needs: the spec, the root process and each host's first process."""

    spec: Mapping[str, Any]
    root: Process
    pids: Mapping[str, int]
    ready: bool


def record_path(name: str) -> Path:
    """Where the record of the lab `name` is."""
    return DIRECTORY / f"{name}.json"


@contextlib.contextmanager
def locked(name: str) -> Iterator[Path]:
    """Let the caller alone build or remove the lab `name`; an empty record left at the end is removed."""
    path = record_path(name)
    descriptor = _lock(path)
    try:
        yield path
    finally:
        if path.stat().st_size == 0:
            path.unlink()
            with contextlib.suppress(OSError):  # other labs, or another process about to lock
                DIRECTORY.rmdir()
        os.close(descriptor)


def read(name: str) -> Record | None:
    """Return the record of the lab `name`; None where there is none or it never got so far."""
    try:
        plain = json.loads(record_path(name).read_text())
        return Record(plain["spec"], Process(**plain["root"]), plain["pids"], plain["ready"])
    except (FileNotFoundError, NotADirectoryError, ValueError, KeyError, TypeError):
        return None  # a half-written record names no process; its lab ended with its builder


def write(name: str, record: Record) -> None:
    """Put the record on disk. Only under `locked`."""
    plain = {"spec": record.spec, "root": record.root.__dict__, "pids": dict(record.pids), "ready": record.ready}
    record_path(name).write_text(json.dumps(plain, indent=1) + "\n")


def clear(name: str) -> None:
    """Empty the record, which goes when the lock is released. Only under `locked`."""
    os.truncate(record_path(name), 0)


def _lock(path: Path) -> int:
    deadline = time.monotonic() + LOCK_TIMEOUT_S
    while True:
        DIRECTORY.mkdir(mode=0o700, exist_ok=True)
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except FileNotFoundError:
            continue  # the directory went between the two lines
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(descriptor), path.stat()):
                return descriptor
        except (BlockingIOError, FileNotFoundError):
            pass
        os.close(descriptor)
        if time.monotonic() > deadline:
            raise LabError(f"lab {path.stem}: another process has been building or removing it for too long")
        time.sleep(0.02)


def _stat(pid: int) -> list[str] | None:
    """Return the fields of proc_pid_stat(5) from the state on; None when there is no such process."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return text.rpartition(")")[2].split()


def _boot() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()

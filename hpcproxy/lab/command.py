"""Commands inside a lab host: entered from outside through the namespaces of the host's first process."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hpcproxy.errors import LabError

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class HostProcess(subprocess.Popen[str]):
    """A command that runs in a host; signals go to the command itself, not to the nsenter that waits for it."""

    def send_signal(self, sig: int) -> None:
        """Send `sig` to the command; nsenter then ends with the command's status."""
        for child in _children(self.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, sig)

    def terminate(self) -> None:
        """Send SIGTERM to the command."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Send SIGKILL to the command."""
        self.send_signal(signal.SIGKILL)

    def kill_group(self) -> None:
        """Kill the command and what it started in its process group."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)


def login_environment(user: str, home: str) -> dict[str, str]:
    """Return what a fresh login of `user` has; nothing of the caller's."""
    return {"HOME": home, "LANG": "C.UTF-8", "LOGNAME": user, "PATH": PATH, "SHELL": "/bin/bash", "USER": user}


def entering(pid: int, argv: Sequence[str], user: str, cwd: str, environment: Mapping[str, str]) -> list[str]:
    """Return the command line that runs `argv` as `user` in the host whose first process is `pid`."""
    enter = ["nsenter", f"--target={pid}", "--mount", "--uts", "--ipc", "--net", "--pid", "--"]
    clean = ["env", "-i", "-C", cwd, *(f"{name}={value}" for name, value in environment.items())]
    become = [] if user == "root" else ["setpriv", f"--reuid={user}", f"--regid={user}", "--init-groups", "--"]
    return [*enter, *clean, *become, *argv]


def start(command: Sequence[str], **pipes: Any) -> HostProcess:  # noqa: ANN401  what Popen takes
    """Start `command` in a session of its own, so that all of it can be ended."""
    return HostProcess(list(command), text=True, encoding="utf-8", errors="replace", start_new_session=True, **pipes)


def finish(process: HostProcess, what: str, feed: str | None, timeout_s: float) -> subprocess.CompletedProcess[str]:
    """Wait for the end of `process` and return its output; one that takes longer is killed and raises LabError."""
    try:
        out, err = process.communicate(feed, timeout=timeout_s)
    except subprocess.TimeoutExpired as late:
        process.kill_group()
        _abandon(process)
        said = tail(b"".join(part for part in (late.output, late.stderr) if part).decode(errors="replace"))
        raise LabError(f"{what}: no end within {timeout_s:g} s; it said: {said}") from None
    except BaseException:
        process.kill_group()
        _abandon(process)
        raise
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def _abandon(process: HostProcess) -> None:
    """Reap the ended process without reading on: a daemon that it left may hold the pipes open for ever."""
    for pipe in (process.stdin, process.stdout, process.stderr):
        if pipe is not None:
            with contextlib.suppress(OSError):  # a full pipe that nobody reads any more
                pipe.close()
    process.wait()


def tail(text: str, lines: int = 12) -> str:
    """Return the last `lines` of `text`, for an error message."""
    return "\n".join(text.strip().splitlines()[-lines:]) or "(nothing)"


def inside(root: Path, path: str) -> Path:
    """Return where `path` is of the host whose file system is at `root`, with symbolic links followed within that host.

    Without this an absolute link such as /var/run would lead out of the lab, into the machine's own files.
    """
    done: list[str] = []
    rest = [part for part in reversed(path.split("/")) if part not in ("", ".")]
    for _ in range(1000):
        if not rest:
            return root.joinpath(*done)
        part = rest.pop()
        here = root.joinpath(*done, part)
        if part == "..":
            done = done[:-1]
        elif here.is_symlink():
            target = str(here.readlink())
            done = [] if target.startswith("/") else done
            rest.extend(step for step in reversed(target.split("/")) if step not in ("", "."))
        else:
            done.append(part)
    raise LabError(f"{path}: too many symbolic links")


def _children(pid: int) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except (FileNotFoundError, ProcessLookupError):
        return []

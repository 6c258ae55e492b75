"""The tunnels of this account on this machine: found by their state directories, started and ended. Runs processes.

A state directory is `hpcproxy-UID/KEY-XXXXXXXX` below `$TMPDIR` or /tmp, KEY being JOB.RESTART or `shell.0`, or
`/run/hpcproxy/KEY` where an admin's Prolog made it. One that is not ours by owner and mode is never read, and of what
anybody can make names in only our own directory is looked through.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import selectors
import signal
import socket
import stat
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hpcproxy import heard, process
from hpcproxy.config.places import RUN
from hpcproxy.errors import TunnelError

_NAME = re.compile(r"(?P<job>shell|[0-9]+)\.(?P<restart>[0-9]+)-[A-Za-z0-9]{8}")
_RUN_NAME = re.compile(r"(?P<job>[0-9]+)\.(?P<restart>[0-9]+)")
# What status.json counts; ssh alone counts its reconnects only.
COUNTS = ("reconnects", "requests", "active", "bytes_up", "bytes_down", "held", "refused", "denied")
_VERSION = "1"  # of the file `env`; the shells' is in templates/lib/any/state.sh
_TRY_S = 5
_START_TIME_FIELD = 19  # of what follows the command's name in /proc/PID/stat; field 22 of proc(5)


@dataclass(frozen=True)
class Tunnel:
    """One tunnel on one node. `since` is in seconds since the epoch, 0 if it was never up."""

    node: str
    job: str
    restart: int
    directory: Path
    pid: int
    url: str
    ready: bool
    since: float
    jump: str | None
    last_error: str | None
    passed_over: str | None  # which ways of other kinds were not taken, and why
    counts: Mapping[str, int]

    def as_json(self) -> dict[str, Any]:
        """Return the fields as JSON takes them."""
        plain = {name: value for name, value in vars(self).items() if name != "counts"}
        return {**plain, "directory": str(self.directory), **self.counts}

    @property
    def no_proxy(self) -> str:
        """What this node's programs are to reach without it."""
        try:
            return _environment(self.directory).get("no_proxy", "")
        except (OSError, ValueError):
            return ""

    @property
    def log_tail(self) -> str:
        """What ssh said last, for a reason that only it knows."""
        try:
            lines = (self.directory / "ssh.log").read_text(errors="replace").splitlines()
        except OSError:
            return ""
        return next((line for line in reversed(lines) if "open failed" in line), "")


def homes(environ: Mapping[str, str]) -> list[Path]:
    """Return the directories of this user that supervisors make their state in; the rule is in tunnel/home.sh."""
    bases = [environ.get("TMPDIR") or "/tmp", "/tmp"]  # noqa: S108 - the owner of what lies there is checked
    found = [Path(base, f"hpcproxy-{os.geteuid()}") for base in bases if base.startswith("/")]
    # On a job's other nodes it stands in a directory of the same name as on the one where this shell's parents were.
    found.append(Path(environ.get("HPCPROXY_STATE") or "/").parent)
    return [home for home in dict.fromkeys(found) if home.is_absolute() and _ours(home)]


def _candidates(environ: Mapping[str, str], run: Path) -> Iterator[tuple[Path, re.Match[str] | None]]:
    """Yield what may be a state directory of ours, each once, and what its name says."""
    for directory in sorted(run.glob("[0-9]*")):
        yield directory, _RUN_NAME.fullmatch(directory.name)
    found = {directory for home in homes(environ) for directory in _in(home)}
    # The one that this shell has from its parents may stand where nobody would look.
    known = Path(environ.get("HPCPROXY_STATE") or "/")
    if known.is_absolute() and known.parent != run:
        found.add(known)
    for directory in sorted(found):
        yield directory, _NAME.fullmatch(directory.name)


def _in(home: Path) -> list[Path]:
    """Return what is in `home`; nothing where the last tunnel of this user has just taken it away with it."""
    try:
        return list(home.iterdir())
    except OSError:
        return []


def find(environ: Mapping[str, str], job: str | None = None, run: Path = RUN) -> list[Tunnel]:
    """Return our tunnels whose supervisor lives, all of them or those of `job`, oldest first."""
    tunnels = []
    for directory, match in _candidates(environ, run):
        if match is None or (job is not None and match["job"] != job) or not _ours(directory):
            continue
        tunnel = _read(directory, match["job"], int(match["restart"]))
        if tunnel is not None:
            tunnels.append(tunnel)
    return sorted(tunnels, key=lambda tunnel: (tunnel.since, tunnel.job))


def _ours(directory: Path) -> bool:
    try:
        status = directory.lstat()
    except OSError:  # its supervisor ended just now, or it is nothing that we may look at
        return False
    return stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid() and not status.st_mode & 0o077


def _read(directory: Path, job: str, restart: int) -> Tunnel | None:
    """Return what the state says; None if its supervisor is gone or it is just being made or removed."""
    try:
        pid_text, started = (directory / "pid").read_text().split()
        said = _environment(directory)
        if start_time(int(pid_text)) != started:
            return None
        status = _status(directory / "status.json") or _said(directory)
    except (OSError, ValueError):
        return None
    if said.get("version") != _VERSION:
        said, status = {}, {"last_error": "another version of hpcproxy has started it"}
    return told(key=(job, restart), directory=directory, pid=int(pid_text), url=said.get("url", ""), status=status)


def _environment(directory: Path) -> dict[str, str]:
    """Return what `env` says, `name=value` a line; raises OSError, or ValueError if it is only being written."""
    lines = (directory / "env").read_text().splitlines()
    said = {name: value for name, _, value in (line.partition("=") for line in lines)}
    if said.get("version", "") == _VERSION and "no_proxy" not in said:
        raise ValueError(directory)
    return said


def told(
    *, key: tuple[str, int], directory: Path, pid: int, url: str, status: Mapping[str, Any], node: str = ""
) -> Tunnel:
    """Return the tunnel of which a status.json says `status`; raises ValueError for one that is none of ours."""
    try:
        return Tunnel(
            node=heard.line(str(status.get("node") or node or socket.gethostname().partition(".")[0])),
            job=key[0],
            restart=key[1],
            directory=directory,
            pid=pid,
            url=url,
            ready=bool(status.get("ready", False)),
            since=float(status.get("since", 0)),
            # JSON spells what no terminal may get in letters that all of them may.
            jump=_line(status.get("jump")),
            last_error=_line(status.get("last_error")),
            passed_over=_line(status.get("passed_over")),
            counts={name: int(status[name]) for name in COUNTS if name in status},
        )
    except TypeError as error:
        raise ValueError(str(error)) from None


def _line(said: object) -> str | None:
    return None if said is None else heard.line(str(said))


def _status(path: Path) -> Mapping[str, Any]:
    try:
        status = json.loads(path.read_text())
    except FileNotFoundError:
        return {}
    return status if isinstance(status, dict) else {}


def _said(directory: Path) -> Mapping[str, Any]:
    """Return what is known where the state is a service account's: what the supervisor has said, a line each."""
    try:
        lines = (directory.parent / "holders" / f"{directory.name}.said").read_text(errors="replace").splitlines()
    except OSError:
        return {}
    words = [line.split(" ", 2) for line in lines]
    ready = [word[-1] for word in words if word[0] == "ready"]
    failed = [word[-1] for word in words if word[0] in ("failed", "gave-up")]
    return {"ready": bool(ready), "jump": ready[-1] if ready else None, "last_error": failed[-1] if failed else None}


def start_time(pid: int) -> str | None:
    """Return when process `pid` started, in ticks since boot; None if there is no such process.

    A pid with the same start time is the same process; a pid alone may be somebody else's by now.
    """
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    return text.rpartition(") ")[2].split()[_START_TIME_FIELD]


def start(
    tunnel_script: Path,
    environ: Mapping[str, str],
    timeout_s: float,
    say: Callable[[str], None],
    *,
    ends_with_us: bool = False,
) -> str:
    """Start a tunnel for shells of this machine and return the jump host it goes through, once it is ready.

    Raises TunnelError if it is not ready after `timeout_s` seconds; nothing is left running then. `ends_with_us`: the
    kernel ends it when the thread that calls this is gone, where `setpriv` (util-linux 2.33) is there to ask for that.
    """
    asked = ("setpriv", "--pdeathsig", "TERM") if ends_with_us and _can_be_tied() else ()
    argv = [*asked, "/bin/bash", "-p", str(tunnel_script), "hold", "shell", "0"]
    supervisor = subprocess.Popen(
        argv,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        cwd="/",
        env=dict(environ),
    )
    try:
        return _await_ready(supervisor, timeout_s, say)
    except BaseException:
        supervisor.send_signal(signal.SIGTERM)
        supervisor.wait()
        raise
    finally:
        if supervisor.stdout is not None:
            supervisor.stdout.close()


def _can_be_tied() -> bool:
    try:
        return not process.run(("setpriv", "--pdeathsig", "TERM", "true"), timeout_s=_TRY_S).returncode
    except (OSError, subprocess.TimeoutExpired, process.TooMuchError):
        return False


def _await_ready(supervisor: subprocess.Popen[bytes], timeout_s: float, say: Callable[[str], None]) -> str:
    deadline = time.monotonic() + timeout_s
    reason = f"not ready after {timeout_s:g} s"
    for line in _lines(supervisor, deadline):
        verb, _, rest = line.partition(" ")
        _node, _, text = rest.partition(" ")
        if verb == "ready":
            return text
        if verb in ("failed", "gave-up"):
            reason = text
        if verb == "gave-up":
            break
        if verb == "failed":
            say(text)
    layer, _, words = reason.partition(" ")
    raise TunnelError(layer, words) if words else TunnelError("tunnel", reason)


def _lines(supervisor: subprocess.Popen[bytes], deadline: float) -> Iterator[str]:
    assert supervisor.stdout is not None  # noqa: S101 - opened with PIPE above
    buffer = b""
    with selectors.DefaultSelector() as selector:
        selector.register(supervisor.stdout, selectors.EVENT_READ)
        while selector.select(max(0.0, deadline - time.monotonic())):
            chunk = os.read(supervisor.stdout.fileno(), 4096)
            if not chunk:
                return
            buffer += chunk
            *lines, buffer = buffer.split(b"\n")
            yield from (line.decode(errors="replace") for line in lines)


def stop(tunnel: Tunnel, timeout_s: float = 10) -> None:
    """End `tunnel` and return when it is gone; raises TunnelError if it is still there after `timeout_s` seconds."""
    started = start_time(tunnel.pid)
    deadline = time.monotonic() + timeout_s
    if started is None:
        return
    with contextlib.suppress(ProcessLookupError):  # it may end by itself at this very moment
        os.kill(tunnel.pid, signal.SIGTERM)
    while start_time(tunnel.pid) == started and _state(tunnel.pid) != "Z":
        if time.monotonic() > deadline:
            raise TunnelError("tunnel", f"process {tunnel.pid} does not end")
        time.sleep(0.02)


def _state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][:1]
    except OSError:
        return "Z"

"""One command with the tunnel of this job or shell: the hook's variables, the command's own exit code. Runs processes.

What the variables are is bashrc.sh's business: a shell reads it, says `proxy_on`, and its variables are taken. In a
job that has no tunnel yet `proxy_on` starts one, which ends with the job. Outside of jobs one is started by us, and
ended with the last of the commands that use it: each holds a shared lock on a file in its state directory.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from hpcproxy.account import tunnels
from hpcproxy.account.tunnels import Tunnel
from hpcproxy.errors import TunnelError
from hpcproxy.files.render import TEMPLATES

_ASKED_WITH = ("/bin/bash", "-p", str(TEMPLATES / "bashrc/variables.sh"))
_NOT_OURS = ("_", "SHLVL", "PWD", "OLDPWD")  # bash's own, of which the command gets what it would have had
_NOT_FOUND, _NOT_EXECUTABLE = 127, 126  # as a shell, env(1) and nohup(1) end
_PASSED_ON = tuple(
    getattr(signal, f"SIG{name}") for name in ("TERM", "INT", "QUIT", "HUP", "USR1", "USR2", "CONT", "WINCH", "ALRM")
)
_LOCK, _STARTED = "run.lock", "run.started"


@dataclass(frozen=True)
class Changes:
    """What a tunnel makes of a program's environment."""

    variables: Mapping[str, str]
    unset: tuple[str, ...]

    def of(self, environ: Mapping[str, str]) -> dict[str, str]:
        """Return `environ` as the program is to have it."""
        kept = {name: value for name, value in environ.items() if name not in self.unset}
        return {**kept, **self.variables}


def changes(fragment: Path, environ: Mapping[str, str]) -> Changes:
    """Return what `proxy_on` of `fragment`, an installed bashrc.sh, changes; it may start the job's tunnel.

    Raises TunnelError where there is no tunnel; why has been said on stderr by then, as a shell would hear it.
    """
    done = subprocess.run(
        [*_ASKED_WITH, str(fragment)], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, env=dict(environ), check=False
    )
    if done.returncode:
        raise TunnelError("tunnel", "there is none, so the command was not started")
    pairs = (os.fsdecode(one).partition("=") for one in done.stdout.split(b"\0") if one)
    after = {name: value for name, _, value in pairs if name not in _NOT_OURS}
    # What bash passes over, exported functions and names that it does not know, was not changed by us.
    gone = tuple(name for name in environ if name.isidentifier() and name not in after and name not in _NOT_OURS)
    return Changes({name: value for name, value in after.items() if environ.get(name) != value}, gone)


def become(command: Sequence[str], environ: Mapping[str, str]) -> int:
    """Become `command`, so that signals and exit code are its own; returns, with the exit code, only if it cannot."""
    try:
        os.execvpe(command[0], list(command), dict(environ))  # noqa: S606 - words, no shell
    except OSError as error:
        return _why_not(command[0], error)


def attend(command: Sequence[str], environ: Mapping[str, str]) -> int:
    """Run `command`, pass on the signals that we get, and return its exit code; 128 and the signal that ended it."""
    early: list[int] = []  # before there is anybody to pass them on to
    child: subprocess.Popen[bytes] | None = None

    def pass_on(number: int, _frame: FrameType | None) -> None:
        # A terminal sends these to both of us: the command has had them then.
        if number in (signal.SIGINT, signal.SIGQUIT) and os.isatty(0):
            return
        if child is None:
            early.append(number)
        else:
            child.send_signal(number)

    # What is ignored here, SIGHUP under nohup, is to be ignored there, and would not be with a handler of ours.
    heard = [number for number in _PASSED_ON if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, pass_on) for number in heard}
    try:
        child = subprocess.Popen(list(command), env=dict(environ))
        for number in early:
            child.send_signal(number)
        code = child.wait()
    except OSError as error:
        return _why_not(command[0], error)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return code if code >= 0 else 128 - code


def _why_not(program: str, error: OSError) -> int:
    os.write(2, os.fsencode(f"hpcproxy: {ascii(program)[1:-1]}: {error.strerror}\n"))
    return _NOT_FOUND if isinstance(error, FileNotFoundError) else _NOT_EXECUTABLE


@contextlib.contextmanager
def used(tunnel: Tunnel, *, started: bool) -> Iterator[None]:
    """While this lasts nobody else's `run` ends `tunnel`.

    The last one ends it, however it ends itself, if one of them had `started` it: what `hpcproxy up` began stays.
    """
    # No link is followed, though the directory is ours alone.
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(tunnel.directory / _LOCK, flags, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH)
        if started:
            os.close(os.open(tunnel.directory / _STARTED, flags, 0o600))
        yield
    finally:
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if (tunnel.directory / _STARTED).exists():
                tunnels.stop(tunnel)
        os.close(descriptor)

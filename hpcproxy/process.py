"""A program of this machine: what it is told, what it says, each with a bound. Runs processes."""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from hpcproxy.errors import HpcproxyError

_CHUNK_BYTES = 65536
_LOOK_S = 0.2  # how often it is looked whether a program has ended whose outputs somebody holds
_LAST_S = 1.0
SAID_MAX_BYTES = 8 * 1024 * 1024


class TooMuchError(HpcproxyError):
    """A program says more than any answer holds."""


class Dialogue(Protocol):
    """What must be said before a message may be sent."""

    open: bool

    def hear(self, said: bytes) -> bytes:
        """Return what is to be sent, now that `said` is all that has come."""


@dataclass(frozen=True)
class Done:
    """How a program has ended, and what it has said."""

    returncode: int
    stdout: bytes
    stderr: bytes


def run(
    argv: Sequence[str],
    message: bytes = b"",
    *,
    timeout_s: float,
    silence_s: float | None = None,
    environ: Mapping[str, str] | None = None,
    dialogue: Dialogue | None = None,
) -> Done:
    """Have `argv` read `message`, away from the terminal; return how it ended. Nothing of its group outlives it.

    What it has started is not waited for, as a wrapper's that stays and holds our ends of the outputs. Where it does
    not come to its end it is first told to end, and has `_LAST_S` for that: srun gives back what it has asked for.

    Raises OSError, TooMuchError, subprocess.TimeoutExpired after `timeout_s`, TimeoutError after `silence_s` without a
    word. `dialogue` is talked to first, if there is one.
    """
    process = subprocess.Popen(
        argv,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=None if environ is None else dict(environ),
        start_new_session=True,
    )
    deadline = time.monotonic() + timeout_s
    try:
        with _Talk(process, message, dialogue).watched() as talk:
            talk.through(deadline, silence_s or timeout_s)
        _await_end(process, deadline, timeout_s)
    except BaseException:
        _signal_group(process, signal.SIGTERM)
        _ends_by(process, time.monotonic() + _LAST_S)
        raise
    finally:
        _signal_group(process, signal.SIGKILL)
        process.wait()
        _close(process)
    return Done(process.returncode, *(bytes(said) for said in talk.said.values()))


def _close(process: subprocess.Popen[bytes]) -> None:
    for stream in (process.stdin, process.stdout, process.stderr):
        if stream is not None:
            with contextlib.suppress(OSError):
                stream.close()


def _signal_group(process: subprocess.Popen[bytes], number: int) -> None:
    """Send it to `process`, which is not reaped yet, and to what it has started: the group's number is its own."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, number)


def _await_end(process: subprocess.Popen[bytes], deadline: float, timeout_s: float) -> None:
    if not _ends_by(process, deadline):
        raise subprocess.TimeoutExpired(process.args, timeout_s)


def _ends_by(process: subprocess.Popen[bytes], deadline: float) -> bool:
    """Whether it ends by `deadline`."""
    pause_s = 0.001
    while not _has_ended(process):
        if time.monotonic() > deadline:
            return False
        time.sleep(pause_s)
        pause_s = min(2 * pause_s, _LOOK_S)
    return True


def _has_ended(process: subprocess.Popen[bytes]) -> bool:
    """Whether it has, without reaping it: its group's number stays its own."""
    try:
        return os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    except ChildProcessError:
        return True  # where SIGCHLD is ignored the kernel reaps


class _Talk:
    """Both directions of one program; `said` holds stdout and stderr."""

    def __init__(self, process: subprocess.Popen[bytes], message: bytes, dialogue: Dialogue | None) -> None:
        self._process, self._message, self._dialogue = process, memoryview(message), dialogue
        self._left = memoryview(b"" if dialogue else message)
        self.said = {stream.fileno(): bytearray() for stream in (process.stdout, process.stderr) if stream is not None}
        self._selector = selectors.DefaultSelector()

    @contextlib.contextmanager
    def watched(self) -> Iterator[_Talk]:
        """The program is listened to, and told what it is to be told."""
        with self._selector:
            for descriptor in self.said:
                self._selector.register(descriptor, selectors.EVENT_READ)
            if self._process.stdin is not None:
                os.set_blocking(self._process.stdin.fileno(), False)
            self._send(self._left)
            if self._dialogue is None and not self._left:
                self._end_message()
            yield self

    def through(self, deadline: float, silence_s: float) -> None:
        """Both outputs are heard to their end, or to that of the program."""
        room_bytes, listening = SAID_MAX_BYTES, set(self.said)
        now = heard = looked = time.monotonic()
        ended = False
        while listening:
            left_s = min(heard + silence_s, deadline) - now
            ready = self._selector.select(0.0 if ended else max(0.0, min(left_s, _LOOK_S)))
            now = time.monotonic()
            if ended and not ready:
                return  # and all that it has said is heard: who holds the other end is somebody else
            if now > deadline:
                raise subprocess.TimeoutExpired(self._process.args, silence_s)
            if not ended and now >= looked + _LOOK_S:
                ended, looked = _has_ended(self._process), now
            if not ready:
                if now > heard + silence_s and not ended:
                    raise TimeoutError
                continue
            heard = now
            for key, _ in ready:
                room_bytes -= self._hear(key.fd, listening)
            if room_bytes < 0:
                raise TooMuchError("says more than any answer holds")
            if ended and now > looked + _LOOK_S:
                return  # a pipe holds no more than one of these reads; who goes on there is somebody else
            self._knock()

    def _hear(self, descriptor: int, listening: set[int]) -> int:
        """Hear or tell what `descriptor` is for; return how many bytes were heard."""
        if descriptor not in self.said:
            self._write(descriptor)
            return 0
        chunk = os.read(descriptor, _CHUNK_BYTES)
        self.said[descriptor] += chunk
        if not chunk:
            self._selector.unregister(descriptor)
            listening.discard(descriptor)
        return len(chunk)

    def _knock(self) -> None:
        if self._dialogue is None or self._dialogue.open:
            return
        word = self._dialogue.hear(b"".join(bytes(said) for said in self.said.values()))
        self._send(self._message if self._dialogue.open else memoryview(word))

    def _send(self, words: memoryview) -> None:
        stdin = self._process.stdin
        if not words or stdin is None or stdin.closed:
            return
        self._left = words
        if stdin.fileno() not in self._selector.get_map():
            self._selector.register(stdin.fileno(), selectors.EVENT_WRITE)

    def _write(self, descriptor: int) -> None:
        """Tell it what goes into the pipe now. One that has ended has heard enough."""
        try:
            self._left = self._left[os.write(descriptor, self._left[:_CHUNK_BYTES]) :]
        except BlockingIOError:
            return
        except BrokenPipeError:
            self._left = self._left[:0]
        if not self._left:
            self._selector.unregister(descriptor)
            if self._dialogue is None or self._dialogue.open:
                self._end_message()

    def _end_message(self) -> None:
        if self._process.stdin is not None:
            with contextlib.suppress(OSError):
                self._process.stdin.close()

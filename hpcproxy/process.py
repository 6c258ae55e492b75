"""A program of this machine: what it is told, what it says, each with a bound. Runs processes."""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import IO

from hpcproxy.errors import HpcproxyError

_CHUNK_BYTES = 65536
SAID_MAX_BYTES = 8 * 1024 * 1024


class TooMuchError(HpcproxyError):
    """A program says more than any answer holds."""


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
    said_max_bytes: int = SAID_MAX_BYTES,
) -> Done:
    """Have `argv` read `message`, away from the terminal, and return how it has ended; nothing of it outlives that.

    Raises OSError, TooMuchError, and subprocess.TimeoutExpired after `timeout_s`, or `silence_s` without a word.
    """
    process = subprocess.Popen(
        argv,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=None if environ is None else dict(environ),
        start_new_session=True,
    )
    try:
        said = _converse(process, message, time.monotonic() + timeout_s, silence_s or timeout_s, said_max_bytes)
        return Done(process.wait(), *said)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        for stream in (process.stdin, process.stdout, process.stderr):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()


def _converse(
    process: subprocess.Popen[bytes], message: bytes, deadline: float, silence_s: float, room_bytes: int
) -> tuple[bytes, bytes]:
    """Return stdout and stderr of `process`, both to their end."""
    said = {stream.fileno(): bytearray() for stream in (process.stdout, process.stderr) if stream is not None}
    listening = set(said)
    left = memoryview(message)
    with selectors.DefaultSelector() as selector:
        for descriptor in said:
            selector.register(descriptor, selectors.EVENT_READ)
        if process.stdin is not None:
            os.set_blocking(process.stdin.fileno(), False)
            selector.register(process.stdin, selectors.EVENT_WRITE)
        while listening:
            ready = selector.select(max(0.0, min(silence_s, deadline - time.monotonic())))
            if not ready or time.monotonic() > deadline:
                raise subprocess.TimeoutExpired(process.args, silence_s)
            for key, _ in ready:
                if process.stdin is not None and key.fileobj is process.stdin:
                    left = _write(process.stdin, left, selector)
                    continue
                chunk = os.read(key.fd, _CHUNK_BYTES)
                if not chunk:
                    selector.unregister(key.fd)
                    listening.discard(key.fd)
                said[key.fd] += chunk
                room_bytes -= len(chunk)
                if room_bytes < 0:
                    raise TooMuchError("says more than any answer holds")
    output, errors = said.values()
    return bytes(output), bytes(errors)


def _write(stdin: IO[bytes], left: memoryview, selector: selectors.BaseSelector) -> memoryview:
    """Tell it what goes into the pipe now; return the rest. One that has ended has heard enough."""
    try:
        left = left[os.write(stdin.fileno(), left[:_CHUNK_BYTES]) :] if left else left
    except BlockingIOError:
        return left
    except BrokenPipeError:
        left = left[:0]
    if not left:
        selector.unregister(stdin)
        with contextlib.suppress(OSError):
            stdin.close()
    return left

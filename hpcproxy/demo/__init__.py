"""The demo: a tunnel shown from before it is there to after it is gone, on the lab or, without root, on loopback."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console


def run(console: Console, *, loopback: bool | None = None) -> bool:
    """Tell the whole story on `console`; True if every step came out as expected.

    `loopback` None takes the lab where it can be built (root on Linux), else loopback. Raises HpcproxyError if what
    the demo stands on is missing. Whatever happens, nothing of the demo is left on the machine.
    """
    if loopback is None:
        loopback = not (sys.platform == "linux" and os.geteuid() == 0)
    with _terminated_like_interrupted():
        # Here, not above: a machine needs only what its own kind of demo needs (asyncssh, or Slurm).
        if loopback:
            from hpcproxy.demo import loopback as stage  # noqa: PLC0415

            return stage.run(console)
        from hpcproxy.demo import cluster  # noqa: PLC0415

        return cluster.run(console)


@contextlib.contextmanager
def _terminated_like_interrupted() -> Iterator[None]:
    """Let SIGTERM and SIGHUP (the terminal is gone) clean up as Ctrl-C does."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, signal.default_int_handler) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

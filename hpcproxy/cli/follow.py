"""A live view of tunnels: what goes through each, held, how often it came anew. Waits; ends when it is interrupted."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Union

from hpcproxy.account.tunnels import Tunnel
from hpcproxy.cli.status_page import size, span

Look = Callable[[], Sequence[Union[Tunnel, str]]]  # tunnels, or names of nodes that have none
_HEAD = ("job", "node", "state", "through", "up for", "open", "requests", "sent", "received", "held", "anew")
_CLEAR = "\x1b[H\x1b[2J"
HERE_S, JOB_S = 2.0, 5.0  # between two looks: at this machine, at a job by a step of it


def follow(look: Look, pause_s: float) -> None:
    """Show what `look` finds, again and again, until the reader interrupts it or nothing is left."""
    terminal, before, at_s = sys.stdout.isatty(), dict[tuple[str, str], Tunnel](), time.monotonic()
    while True:
        found = look()
        now_s = time.monotonic()
        columns = shutil.get_terminal_size().columns if terminal else None
        lines = list(frame(found, before, now_s - at_s, columns))
        print((_CLEAR if terminal else "") + "\n".join([*lines, ""]), flush=True)
        if not found:
            return
        before, at_s = {_key(one): one for one in found if isinstance(one, Tunnel)}, now_s
        time.sleep(pause_s)


def _key(tunnel: Tunnel) -> tuple[str, str]:
    return tunnel.node, f"{tunnel.job}.{tunnel.restart}"


def frame(
    found: Sequence[Tunnel | str],
    before: dict[tuple[str, str], Tunnel],
    seconds: float,
    columns: int | None = None,
) -> Iterator[str]:
    """Yield the lines of one look; `before` is what was seen so many seconds ago, none longer than `columns`."""
    tunnels = [one for one in found if isinstance(one, Tunnel)]
    rows = [_HEAD, *(_row(one, before.get(_key(one)), seconds) for one in tunnels)]
    widths = [max(len(cell) for cell in column) for column in zip(*rows)]
    for row in rows if tunnels else []:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip()[:columns]
    for one in found:
        if isinstance(one, str):
            yield f"{one} has no tunnel"[:columns]
        elif one.last_error and not one.ready:
            yield f"{one.node}: {one.last_error}"[:columns]
    if not found:
        yield "no tunnel is up"


def _row(tunnel: Tunnel, before: Tunnel | None, seconds: float) -> tuple[str, ...]:
    count = {name: str(tunnel.counts.get(name, "-")) for name in ("active", "requests", "held", "reconnects")}
    since = span(time.time() - tunnel.since) if tunnel.since and tunnel.ready else "-"
    rates = (_rate(tunnel, before, name, seconds) for name in ("bytes_up", "bytes_down"))
    state = "up" if tunnel.ready else "down"
    shown = (tunnel.job, tunnel.node, state, tunnel.jump or "-", since, count["active"], count["requests"])
    return (*shown, *rates, count["held"], count["reconnects"])


def _rate(tunnel: Tunnel, before: Tunnel | None, name: str, seconds: float) -> str:
    """Return bytes a second since the look before; "-" at the first, and where another process counts by now."""
    now = tunnel.counts.get(name)
    then = before.counts.get(name) if before else None
    if now is None or then is None or now < then or seconds <= 0:
        return "-"
    return f"{size(round((now - then) / seconds))}/s"

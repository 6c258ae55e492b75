"""What `status` shows of tunnels: a line each that fits 80 columns, or all that is known of them."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from hpcproxy.account.tunnels import Tunnel
from hpcproxy.cli.output import console, say, table

if TYPE_CHECKING:
    from hpcproxy.cluster.who import Seen

_COUNTED = ("reconnects", "requests", "held", "refused", "bytes_up", "bytes_down")
_UNITS = ("B", "kB", "MB", "GB", "TB")
_FEW = 3  # files that differ are named one by one


def show(tunnels: Sequence[Tunnel], *, long: bool = False) -> None:
    """Print `tunnels`, a line each, and under it what went wrong; with `long` a paragraph each."""
    if not tunnels:
        say("no tunnel of yours is up on this machine")
        return
    if long:
        console().print("\n\n".join(_paragraph(tunnel) for tunnel in tunnels))
        return
    shown = table("job", "node", "state", "through", "up for", "requests", "sent", "received")
    for tunnel in tunnels:
        since = span(time.time() - tunnel.since) if tunnel.since and tunnel.ready else "-"
        requests = str(tunnel.counts.get("requests", "-"))
        traffic = [size(tunnel.counts.get(name)) for name in _COUNTED[4:]]
        shown.add_row(
            tunnel.job, tunnel.node, "up" if tunnel.ready else "down", tunnel.jump or "-", since, requests, *traffic
        )
    console().print(shown)
    for tunnel in tunnels:
        if tunnel.last_error and not tunnel.ready:
            say(f"{tunnel.node}: {tunnel.last_error}")


def show_users(seen: Sequence[Seen]) -> None:
    """Print the tunnels of all users, a line each."""
    shown = table("user", "job", "node", "state", "through", "up for", "requests", "sent", "received")
    for one in seen:
        since = span(time.time() - one.since) if one.since and one.ready else "-"
        requests = "-" if one.requests is None else str(one.requests)
        state = "up" if one.ready else "down"
        traffic = (size(one.bytes_up), size(one.bytes_down))
        shown.add_row(one.user, one.job, one.host, state, one.jump or "-", since, requests, *traffic)
    console().print(shown)


def _paragraph(tunnel: Tunnel) -> str:
    since = datetime.fromtimestamp(tunnel.since).astimezone().isoformat(timespec="seconds") if tunnel.since else "-"
    fields = {
        "job": tunnel.job,
        "node": tunnel.node,
        "state": "up" if tunnel.ready else "down",
        "address": tunnel.url,
        "through": tunnel.jump or "-",
        **({"not taken": tunnel.passed_over} if tunnel.passed_over else {}),
        "since": since,
        **{name.replace("_", " "): str(tunnel.counts.get(name, "-")) for name in _COUNTED},
        "last error": tunnel.last_error or "-",
    }
    return "\n".join(f"{name:12}{value}" for name, value in fields.items())


def span(seconds: float) -> str:
    """Return a time in seconds for people, in its largest whole unit."""
    for unit, length_s in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length_s:
            return f"{int(seconds // length_s)} {unit}"
    return f"{max(0, int(seconds))} s"


def size(count: int | None) -> str:
    """Return a number of bytes for people, in units of 1000; "-" where nobody counts."""
    if count is None:
        return "-"
    value, unit = float(count), 0
    while value >= 999.5 and unit < len(_UNITS) - 1:  # noqa: PLR2004 - what would be shown as 1000
        value, unit = value / 1000, unit + 1
    return f"{value:.0f} {_UNITS[unit]}" if unit == 0 or value >= 99.5 else f"{value:.1f} {_UNITS[unit]}"  # noqa: PLR2004


def next_steps(drifted: Sequence[Path], *, set_up: bool, rolled_out: bool) -> Iterator[str]:
    """Yield what to do where files are not as the settings say; for an account that is new, the beginning."""
    if not drifted:
        return
    if not set_up:
        if rolled_out:
            yield "nothing is set up for this account; your jobs use what this site has installed"
        else:
            yield "nothing is set up for this account; start with: hpcproxy init --jump USER@HOST"
    elif len(drifted) > _FEW:
        yield f"{len(drifted)} installed files are missing or older than the settings; run: hpcproxy install-bashrc"
    else:
        for path in drifted:
            yield f"{path} is missing or older than the settings; run: hpcproxy install-bashrc"

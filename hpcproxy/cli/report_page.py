"""A page about one job, for a browser: whether each node is served, by what, and how much went through. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from hpcproxy import __version__
from hpcproxy.account.tunnels import Tunnel
from hpcproxy.cli.status_page import size, span
from hpcproxy.files.render import html_text

_COUNTED = ("active", "requests", "held", "refused", "denied", "reconnects")


def page(job: str, found: Sequence[Tunnel | str], now: datetime) -> str:
    """Return the HTML of `found`, tunnels of `job` and names of nodes that have none; it needs nothing else."""
    tunnels = [one for one in found if isinstance(one, Tunnel)]
    ready = sum(tunnel.ready for tunnel in tunnels)
    verdict = f"{ready} of {_nodes(len(found))} served" if ready < len(found) else f"{_nodes(ready)} served"
    most = {name: max((one.counts.get(name, 0) for one in tunnels), default=0) for name in ("bytes_up", "bytes_down")}
    values = {
        "job": job,
        "version": __version__,
        "made_at": now.isoformat(sep=" ", timespec="seconds"),
        "verdict": verdict,
        "mood": "good" if ready == len(found) else "bad",
        "totals": [(name, _sum(tunnels, key)) for name, key in (("requests", "requests"), ("held", "held"))]
        + [("reconnects", _sum(tunnels, "reconnects")), ("open now", _sum(tunnels, "active"))]
        + [(name, size(_total(tunnels, key))) for name, key in (("sent", "bytes_up"), ("received", "bytes_down"))],
        "nodes": [_row(one, most, now) for one in found],
    }
    return html_text("report/job.html", values)


def _nodes(count: int) -> str:
    return f"{count} node" if count == 1 else f"{count} nodes"


def _total(tunnels: Sequence[Tunnel], name: str) -> int | None:
    """Return the sum of those that count; None if none does."""
    counts = [tunnel.counts[name] for tunnel in tunnels if name in tunnel.counts]
    return sum(counts) if counts else None


def _sum(tunnels: Sequence[Tunnel], name: str) -> str:
    total = _total(tunnels, name)
    return "-" if total is None else str(total)


def _row(one: Tunnel | str, most: Mapping[str, int], now: datetime) -> dict[str, Any]:
    """Return what the page shows of one node; bars are in percent of the node with most."""
    if isinstance(one, str):
        nothing = {"through": "-", "up_for": "-", "counts": ["-"] * len(_COUNTED), "sent": "-", "received": "-"}
        return {"name": one, "state": "no tunnel", "mood": "bad", "why": "", **nothing, **_bars({}, most)}
    return {
        "name": one.node,
        "state": "up" if one.ready else "down",
        "mood": "good" if one.ready else "bad",
        "through": one.jump or "-",
        "up_for": span(now.timestamp() - one.since) if one.ready and one.since else "-",
        "counts": [str(one.counts.get(name, "-")) for name in _COUNTED],
        "sent": size(one.counts.get("bytes_up")),
        "received": size(one.counts.get("bytes_down")),
        "why": "" if one.ready else one.last_error or "",
        **_bars(one.counts, most),
    }


def _bars(counts: Mapping[str, int], most: Mapping[str, int]) -> dict[str, int]:
    return {
        f"{word}_percent": 100 * counts.get(name, 0) // most[name] if most[name] else 0
        for word, name in (("sent", "bytes_up"), ("received", "bytes_down"))
    }

"""Who has a tunnel up now, on all hosts of an inventory: what they are asked, and what their answers say. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from hpcproxy import heard
from hpcproxy.cluster.outcome import Outcomes
from hpcproxy.cluster.protocol import OUTPUT
from hpcproxy.config.places import RUN
from hpcproxy.files.plan import Artifact, Plan
from hpcproxy.files.render import render

_MOST = 500  # tunnels that one host may tell of
_FIELDS = 9


@dataclass(frozen=True)
class Seen:
    """One tunnel on one host; `since` is in seconds since the epoch, None what nobody counts there."""

    host: str
    job: str
    user: str
    ready: bool
    since: float | None
    jump: str
    requests: int | None
    bytes_up: int | None
    bytes_down: int | None


def command() -> tuple[str, ...]:
    """Return what a host runs, as root, to tell: it reads only."""
    values = {"run": RUN, "temporary": "/tmp", "most": _MOST}  # noqa: S108 - the owner of what lies there is looked at
    artifact = Artifact("who", "deploy/who.sh.j2", Path("who"), 0o700, "")
    script = render(Plan((artifact,), values, {})).files[0].content.decode()
    return ("/bin/bash", "-p", "-c", script, "who")


def seen(outcomes: Outcomes) -> list[Seen]:
    """Return the tunnels that the hosts have told of, by host and job."""
    found = [one for host in outcomes.hosts if host.answer for one in _of(host.host, host.answer.contents)]
    return sorted(found, key=lambda one: (one.host, one.job.zfill(10)))


def _of(host: str, contents: object) -> Iterator[Seen]:
    text = contents.get(OUTPUT, b"") if isinstance(contents, dict) else b""
    for line in text.decode(errors="replace").splitlines()[:_MOST]:
        fields = [heard.line(field) for field in line.split("\t")]
        if len(fields) != _FIELDS:
            continue
        key, uid, name, ready, since, jump, *counts = fields
        requests, up, down = (_number(count) for count in counts)
        began = _number(since.partition(".")[0])
        yield Seen(host, key.partition(".")[0], name or uid, ready == "true", began, jump, requests, up, down)


def _number(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdecimal() else None

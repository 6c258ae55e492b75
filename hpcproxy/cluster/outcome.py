"""What became of every host of a run, as a value: folded into node sets, as rows, as JSON, as diffs. Pure."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from hpcproxy import floors, heard
from hpcproxy.cluster.inventory import fold
from hpcproxy.cluster.protocol import Answer, Change
from hpcproxy.errors import Reason
from hpcproxy.files.render import Bundle, File

GOOD = ("unchanged", "changed")
_DRY = "would"
_NEEDED = {
    "python3": "ssh itself listens there, for any user of the node",
    "ssh": "jobs get no tunnel there",
    "cgroup": "a daemon that a user's code starts beside a tunnel, in a session of its own, outlives the job",
    "nft": "no firewall, the agent alone keeps other users of the node out",
}
_CLOCK_MAX_S = 60
_DIFF_LINES_MAX = 3000


@dataclass(frozen=True)
class HostOutcome:
    """One host: `word` is unchanged, changed, would, failed, unreached or skipped; `cause` says why it is not good.

    `why` is the cause of one that was not reached; what one that answers lacks it says in its own words.
    """

    host: str
    word: str
    cause: str = ""
    answer: Answer | None = None
    seconds: float = 0.0
    why: Reason | None = None

    @property
    def changes(self) -> tuple[Change, ...]:
        """The files that differed."""
        return self.answer.changes if self.answer else ()

    @property
    def is_shut(self) -> bool:
        """Whether it failed because a directory cannot be written there, which another host may have as well."""
        return self._failed_for("shut")

    @property
    def is_plugged(self) -> bool:
        """Whether it failed because the SPANK plugin would go, which plugstack.conf may name."""
        return self._failed_for("plugged")

    def _failed_for(self, fact: str) -> bool:
        return self.word == "failed" and self.answer is not None and fact in self.answer.facts


OnHost = Callable[[HostOutcome], None]


def unheard(_outcome: HostOutcome) -> None:
    """Tell nobody of a host's outcome."""


def judge(host: str, answer: Answer | None, why: Reason | None = None, seconds: float = 0.0) -> HostOutcome:
    """Return the outcome of one host from its answer, or from why there is none."""
    if answer is None:
        return HostOutcome(host, "unreached", str(why or ""), None, seconds, why)
    return HostOutcome(host, answer.word, answer.text, answer, seconds)


@dataclass(frozen=True)
class Row:
    """Hosts of one outcome with one cause, as a node set."""

    word: str
    count: int
    hosts: str
    cause: str


@dataclass(frozen=True)
class Difference:
    """One change of one file, the same on all of `hosts`; `lines` are those of a unified diff."""

    path: str
    action: str
    hosts: str
    lines: tuple[str, ...]


@dataclass(frozen=True)
class Outcomes:
    """The outcomes of a run, in the order of the inventory."""

    hosts: tuple[HostOutcome, ...]

    @property
    def good(self) -> bool:
        """Whether every host is as wanted now."""
        return all(host.word in GOOD for host in self.hosts)

    @property
    def as_wanted(self) -> bool:
        """Whether every host was as wanted already."""
        return all(host.word == "unchanged" for host in self.hosts)

    @property
    def failed(self) -> tuple[str, ...]:
        """The hosts that are not as wanted, those that were only looked at aside."""
        return tuple(host.host for host in self.hosts if host.word not in (*GOOD, _DRY))

    def joined(self, later: Outcomes) -> Outcomes:
        """Return both runs as one."""
        return Outcomes(self.hosts + later.hosts)

    def replaced(self, later: Outcomes) -> Outcomes:
        """Return this run with the outcomes of `later` in place of those of the same hosts."""
        new = {host.host: host for host in later.hosts}
        return Outcomes(tuple(new.get(host.host, host) for host in self.hosts))

    def merged(self, later: Outcomes) -> Outcomes:
        """Return one outcome for each host of both runs: a bad one wins, then one that changed something."""
        order = (*GOOD, _DRY)
        best: dict[str, HostOutcome] = {}
        for host in (*self.hosts, *later.hosts):
            known = best.get(host.host)
            rank = order.index(host.word) if host.word in order else len(order)
            if known is None or (known.word in order and rank > order.index(known.word)):
                best[host.host] = host
        return Outcomes(tuple(best.values()))

    def skipping(self, hosts: Sequence[str], cause: str) -> Outcomes:
        """Return this run with `hosts` as not visited."""
        return self.joined(Outcomes(tuple(HostOutcome(host, "skipped", cause) for host in hosts)))

    def rows(self) -> list[Row]:
        """Return the table: good outcomes first, one row for each outcome and cause."""
        groups: dict[tuple[str, str], list[str]] = {}
        for host in self.hosts:
            groups.setdefault((host.word, host.cause), []).append(host.host)
        rows = [Row(word, len(names), fold(names), cause) for (word, cause), names in groups.items()]
        return sorted(rows, key=lambda row: (row.word not in (*GOOD, _DRY), row.word, row.hosts))

    def differences(self, bundle: Bundle) -> list[Difference]:
        """Return every distinct change with the hosts that it concerns."""
        found: dict[tuple[str, str, bytes | None], list[str]] = {}
        for host in self.hosts:
            contents = host.answer.contents if host.answer else {}
            for change in host.changes:
                key = (change.path, change.action, contents.get(change.path))
                found.setdefault(key, []).append(host.host)
        wanted = {str(file.artifact.path): file for file in bundle.files}
        return [
            Difference(path, action, fold(names), tuple(_difference(path, action, before, wanted.get(path))))
            for (path, action, before), names in sorted(found.items(), key=lambda item: item[0][:2])
        ]

    def cautions(self, now_s: float) -> list[str]:
        """Return what the hosts lack or have wrong, though our files may be right; `now_s` is our clock."""
        found: dict[str, list[str]] = {}
        for host in self.hosts:
            facts = host.answer.facts if host.answer else {}
            for program, consequence in _NEEDED.items():
                if facts.get(program) == "missing":
                    found.setdefault(f"{program} is missing: {consequence}", []).append(host.host)
            for fact, floor in floors.OF_HOSTS.items():
                words = floor.too_old(facts.get(fact, ""))
                if words:
                    found.setdefault(words, []).append(host.host)
            if "taken" in facts:
                words = f"{facts['taken']}: jobs may get no tunnel; end that, or say another `port`"
                found.setdefault(words, []).append(host.host)
            clock = facts.get("clock", "")
            if clock.isdecimal() and abs(int(clock) - now_s) > _CLOCK_MAX_S:
                found.setdefault("the clock is wrong by more than a minute: TLS may fail in jobs", []).append(host.host)
        return [f"{fold(names)}: {words}" for words, names in found.items()]

    def as_json(self) -> list[dict[str, object]]:
        """Return one object for each host."""
        return [
            {
                "host": host.host,
                "outcome": host.word,
                "cause": host.cause,
                "seconds": round(host.seconds, 3),
                "changes": [{"action": change.action, "path": change.path} for change in host.changes],
                "facts": dict(host.answer.facts) if host.answer else {},
            }
            for host in self.hosts
        ]


def _difference(path: str, action: str, before: bytes | None, wanted: File | None) -> Iterable[str]:
    """Return the lines that say what changes; a secret's are shown on neither side."""
    if wanted is None or action not in ("create", "change"):
        return ()
    if wanted.artifact.secret:
        return (f"{path}: a secret, which is not shown",)
    if before is None and action == "change":
        return (f"{path}: what is there now is not shown: the host keeps it to itself",)
    if any(heard.is_secret(side) for side in (before or b"", wanted.content)):
        return (f"{path}: {heard.HIDDEN}",)
    return _diff(path, before or b"", wanted.content)


def _diff(path: str, before: bytes, after: bytes) -> Iterable[str]:
    try:
        old, new = before.decode().splitlines(), after.decode().splitlines()
    except UnicodeDecodeError:
        return [f"{path}: {len(before)} bytes before, {len(after)} after"]
    if max(len(old), len(new)) > _DIFF_LINES_MAX:  # to compare takes time with the square of it
        return [f"{path}: {len(old)} lines before, {len(new)} after"]
    return [heard.line(each) for each in difflib.unified_diff(old, new, path, path, lineterm="", n=2)]

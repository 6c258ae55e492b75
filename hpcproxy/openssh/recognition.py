"""Whether the key that a host shows is known, new, changed, revoked or vouched for. Connects; writes one list.

Only keys are compared here; which lines of a list speak of a name is said by ssh-keygen, and whether a host certificate
counts by ssh.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from hpcproxy import changes
from hpcproxy.errors import FileError, HpcproxyError, TunnelError
from hpcproxy.openssh import host_key
from hpcproxy.openssh.host_key import Way
from hpcproxy.openssh.known_hosts import CA, REVOKED, Entry, HostKey, KnownHosts

NEW, CHANGED, BEFORE, SIGNED = "new", "changed", "as before", "signed by an authority"
_ELSEWHERE = "as in {}"


@dataclass(frozen=True)
class Shown:
    """What one host showed: `news` in words, `where` another key of it stands; or an error.

    `pins` are to be added to our list, `replaced` are its lines that they replace.
    """

    host: str
    key: HostKey | None = None
    news: str = ""
    where: str = ""
    replaced: tuple[Entry, ...] = ()
    pins: tuple[HostKey, ...] = ()
    error: HpcproxyError | None = None

    @property
    def asks(self) -> bool:
        """Whether somebody has to say that the key is right before it may be kept."""
        return self.error is None and self.news in (NEW, CHANGED)

    @property
    def is_refused(self) -> bool:
        """Whether the host has shown a key that is not to be kept."""
        return self.error is not None and self.key is not None

    def refused(self, reason: str, advice: str = "") -> Shown:
        """Return the same with nothing to keep, for `reason`."""
        return replace(self, replaced=(), pins=(), error=TunnelError("host-key", reason, advice, self.host))

    def unless_changed(self, verb: str) -> Shown:
        """Return the same, refused if the key is another than before; `verb` is what is to be typed then."""
        if self.news != CHANGED:
            return self
        reason = f"shows another key than the one in {self.where}: {self.key}"
        return self.refused(reason, f"ask its admin; if the change is right, run {verb} again with --replace-key")


# Returns for each key that is asked for the reason why it is not kept, "" if it is.
Consent = Callable[[Sequence[Shown]], Sequence[str]]


@dataclass(frozen=True)
class _Known:
    """What the lists say of a name: ours first, then those that ssh itself would ask."""

    own: KnownHosts
    others: tuple[KnownHosts, ...]
    name: str
    found: dict[Path, list[Entry]] = field(default_factory=dict)

    def of(self, known: KnownHosts, marker: str = "") -> list[Entry]:
        if known.path not in self.found:
            self.found[known.path] = known.of(self.name)
        return [entry for entry in self.found[known.path] if entry.marker == marker]

    @property
    def all(self) -> tuple[KnownHosts, ...]:
        return (self.own, *self.others)

    def holding(self, key: HostKey, marker: str = "") -> Path | None:
        """Return the first list that has `key` with `marker`."""
        for known in self.all:
            if any(entry.key.data == key.data for entry in self.of(known, marker)):
                return known.path
        return None

    @property
    def vouching(self) -> list[Entry]:
        return [entry for known in self.all for marker in (CA, REVOKED) for entry in self.of(known, marker)]


def recognise(way: Way, own: KnownHosts, timeout_s: float) -> Shown:
    """Ask the host for its key and return what our list `own`, and those of ssh itself, know about it.

    What failed is in the answer.
    """
    try:
        return _recognise(way, own, timeout_s)
    except HpcproxyError as error:
        return Shown(str(way.jump), error=error)


def _recognise(way: Way, own: KnownHosts, timeout_s: float) -> Shown:
    known = _Known(own, _others(way, own), way.resolved.name)
    signers = [entry.key for one in known.all for entry in known.of(one, CA)]
    if signers and not known.of(own) and (signed := _signed(way, known, timeout_s)):
        return signed
    plain = [entry for one in known.all for entry in known.of(one)]
    key = host_key.fetch(way, timeout_s, [entry.key.kind for entry in plain])
    if key.name != known.name:  # ssh has the last word on what it looks up
        known = _Known(own, known.others, key.name)
    shown = _compare(str(way.jump), key, known)
    if shown.news == CHANGED and signers and known.of(own):
        return _signed(way, known, timeout_s) or shown
    return shown


def _others(way: Way, own: KnownHosts) -> tuple[KnownHosts, ...]:
    lists = []
    for path in way.resolved.known_hosts:
        if path == own.path:
            continue
        try:
            lists.append(KnownHosts.read(path))
        except FileError:  # ssh too passes over what it cannot read; without it the key is new, and asked for
            continue
    return tuple(lists)


def _signed(way: Way, known: _Known, timeout_s: float) -> Shown | None:
    """Return what to say of a host whose certificate ssh accepts, by the lists' authorities; None if it does not."""
    lines = b"".join(entry.text.rstrip(b"\r") + b"\n" for entry in known.vouching)
    if not host_key.is_accepted(way, KnownHosts(known.own.path, lines), timeout_s):
        return None
    signers = tuple(dict.fromkeys(entry.key for entry in known.vouching if entry.marker == CA))
    there = {entry.key.data for entry in known.of(known.own, CA)}
    pins = tuple(key for key in signers if key.data not in there)
    replaced = tuple(known.of(known.own)) if pins else ()
    return Shown(str(way.jump), signers[0], SIGNED, "", replaced, pins)


def _compare(host: str, key: HostKey, known: _Known) -> Shown:
    revoked = known.holding(key, REVOKED)
    if revoked is not None:
        reason = f"shows a key that {revoked} marks as revoked, {key}: whoever is there may not be it"
        return Shown(host, key, "revoked").refused(reason, "nothing was kept; ask its admin")
    mine = known.of(known.own)
    if any(entry.key.data == key.data for entry in mine):
        return Shown(host, key, BEFORE)
    if mine:
        return Shown(host, key, CHANGED, _tilde(known.own.path), tuple(mine), (key,))
    where = known.holding(key) or _without_port(key, known)
    if where is not None:
        return Shown(host, key, _ELSEWHERE.format(_tilde(where)), pins=(key,))
    for one in known.others:
        if known.of(one):
            return Shown(host, key, CHANGED, _tilde(one.path), pins=(key,))
    return Shown(host, key, NEW, pins=(key,))


def _without_port(key: HostKey, known: _Known) -> Path | None:
    """Return the list that has `key` under the bare name: ssh asks for that too, before it calls a key new."""
    if not key.name.startswith("["):
        return None
    host = key.name[1:].partition("]")[0]
    return _Known(known.own, known.others, host).holding(key)


def _tilde(path: Path) -> str:
    home = str(Path.home())
    return f"~{str(path)[len(home) :]}" if str(path).startswith(f"{home}/") else str(path)


def keep(path: Path, judged: KnownHosts, shown: Sequence[Shown], new_mode: int) -> list[changes.Result]:
    """Write what `shown` is to be kept to the list at `path`: mode, owner and every other line stay as they are."""
    kept = [one for one in shown if one.error is None and one.pins]
    if not kept:
        return []
    known = KnownHosts.read(path)
    if known.content == judged.content:
        known = known.without([entry for one in kept for entry in one.replaced])
        for key in (pin for one in kept for pin in one.pins):
            known = known.adding(key)
    else:  # somebody has changed it meanwhile
        for key in (pin for one in kept for pin in one.pins):
            known = known.pinning(key)
    mode = None if path.exists() else new_mode
    return changes.apply([changes.Write(path, known.content, mode)])

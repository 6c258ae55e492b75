"""A working upstream at nearly all times: they are tried in turn, proved, and tried again after a loss."""

import os
import time
from typing import Callable, Dict, Optional, Set, Tuple

from ..io.loop import Loop, Signal, TimedOut
from ..state.directory import BadFolder, Folder
from ..state.settings import ADOPT, DIRECT, HTTP, REVERSE, SOCKS5, SSH, Settings, Way
from ..state.status import Record
from .candidate import Candidate, Spread, Verdict
from .open_error import OpenError
from .target import Target
from .upstream import Channel, Ends, Lost, Unusable, Upstream

AGAIN_S = 0.05  # until a request whose tunnel went away is tried anew

Maker = Callable[[Loop, Settings, Way, Record], Upstream]


def make_ssh(loop: Loop, settings: Settings, way: Way, record: Record) -> Upstream:
    """Through a jump host."""
    from .ssh import Ssh

    return Ssh(loop, settings, way, record)


def make_direct(loop: Loop, settings: Settings, _way: Way, record: Record) -> Upstream:
    """By this node's own route."""
    from .direct import Direct

    return Direct(loop, settings, record)


def make_http(loop: Loop, settings: Settings, way: Way, record: Record) -> Upstream:
    """Through an HTTP proxy of the site's."""
    from .http_proxy import HttpProxy

    return HttpProxy(loop, settings, way, record)


def make_socks5(loop: Loop, settings: Settings, way: Way, record: Record) -> Upstream:
    """Through a SOCKS proxy of the site's."""
    from .socks_proxy import SocksProxy

    return SocksProxy(loop, settings, way, record)


def make_adopt(loop: Loop, settings: Settings, way: Way, record: Record) -> Upstream:
    """Through an ssh that a person has logged in."""
    from .adopt import Adopt

    return Adopt(loop, settings, way, record)


def make_reverse(loop: Loop, settings: Settings, _way: Way, record: Record) -> Upstream:
    """By a socket that `hpcproxy serve` brings here."""
    from .reverse import Reverse

    return Reverse(loop, settings, record)


# What is not used is not imported: each module costs every agent its memory and its part of the start.
KINDS: Dict[str, Maker] = {
    SSH: make_ssh,
    DIRECT: make_direct,
    HTTP: make_http,
    SOCKS5: make_socks5,
    REVERSE: make_reverse,
    ADOPT: make_adopt,
}


class GaveUp(Exception):
    """Every upstream has failed in a way that trying again does not mend."""

    def __init__(self, layer: str, reason: str) -> None:
        self.layer, self.reason = layer, reason
        super().__init__("{} {}".format(layer, reason))


class Tunnel:
    """The tunnel. `open` serves requests; `keep` runs for ever."""

    def __init__(self, loop: Loop, settings: Settings, folder: Folder, record: Record, spread: Spread) -> None:
        self.loop, self.settings, self.folder, self.record = loop, settings, folder, record
        self.delay_s = spread.delay_s
        self.candidates = [
            Candidate(way, settings.retry_max_s, spread.spread_s, spread.nodes) for way in spread.order(settings.ways)
        ]
        # Of several kinds: they stand in the order of preference, and the first that serves is kept to.
        self.mixed = len({way.kind for way in settings.ways}) > 1
        self.upstream: Optional[Upstream] = None
        self.starting: Optional[Upstream] = None
        # A guess while there is none: who is wrong about it is told so (hand_over.py).
        self.passes_fd = any(way.kind in (SSH, ADOPT) for way in settings.ways)
        self.changed = Signal(loop)
        self.down_since = time.monotonic()
        self.was_ready = False
        self.said: Set[Tuple[str, Verdict]] = set()

    async def keep(self) -> None:
        """Keep a tunnel up; GaveUp only if there never was one."""
        await self._await_turn()
        while True:
            candidate = min(self.candidates, key=lambda c: max(c.next_try, time.monotonic()))
            await self.loop.sleep(candidate.next_try - time.monotonic())
            try:
                upstream = await self._attempt(candidate.way)
            except Unusable as error:
                self._failed(candidate, error.verdict)
                continue
            since = time.monotonic()
            self._up(upstream, candidate)
            self.loop.spawn(upstream.watch())
            if not self.was_ready:
                await self._tell(candidate)
            while not upstream.dead():
                await upstream.gone.wait()
            self._down(upstream, candidate.way.name)
            candidate.lost(time.monotonic() - since)
            if self.mixed:
                for other in self.candidates:
                    other.next_try = max(other.next_try, candidate.next_try)

    async def _await_turn(self) -> None:
        """It is this node's turn for its first login; what needs none is not waited with."""
        if self.delay_s <= 0:
            return
        self.record.log("its first login comes in {:.1f} s: many nodes begin at this moment".format(self.delay_s))
        if not self.mixed:
            await self.loop.sleep(self.delay_s)
            return
        for candidate in self.candidates:
            candidate.next_try = time.monotonic() + self.delay_s if candidate.way.kind == SSH else 0.0

    async def _attempt(self, way: Way) -> Upstream:
        """That tunnel, proved; Unusable."""
        if way.lacks:
            raise Unusable(Verdict("proxy", way.lacks, True))
        self._restore_folder()
        upstream = self.starting = KINDS[way.kind](self.loop, self.settings, way, self.record)
        upstream.again = self.was_ready
        self.record.journal.write("debug", "connecting through {}".format(way.name))
        try:
            await upstream.start()
        finally:
            self.starting = None
        return upstream

    def _restore_folder(self) -> None:
        """There is a state directory for ssh's control socket; Unusable."""
        try:
            if self.folder.restore():
                self.record.open(self.folder.fd)
                self.record.log("the state directory had been removed; it was made anew")
                self.record.write_status()
        except BadFolder as error:
            raise Unusable(Verdict("state", str(error), False))

    def _failed(self, candidate: Candidate, verdict: Verdict) -> None:
        candidate.failed(verdict)
        verdict, name = candidate.verdict or verdict, candidate.way.name
        self.record.failed("{}: {}: {}".format(name, verdict.layer, verdict.reason))
        verdicts = [each.verdict for each in self.candidates]
        others = self._not_by(candidate)
        text = "{}: {}{}".format(name, verdict.reason, "; {}".format(others) if others else "")
        # Of several kinds one that does not serve is nobody's trouble while there are others to try.
        if (name, verdict) not in self.said and (not self.mixed or None not in verdicts):
            self.said.add((name, verdict))
            self.record.announce("failed", "{} {}".format(verdict.layer, text))
        if not self.was_ready and all(each is not None and each.permanent for each in verdicts):
            raise GaveUp(verdict.layer, text)

    def _not_by(self, taken: Candidate) -> str:
        """Why the ways of other kinds than `taken` are not used, as far as that is known."""
        others = [each for each in self.candidates if each is not taken] if self.mixed else []
        return "; ".join("not by {}: {}".format(each.way.name, each.verdict.reason) for each in others if each.verdict)

    def _up(self, upstream: Upstream, candidate: Candidate) -> None:
        candidate.verdict = None
        self.upstream, self.passes_fd = upstream, upstream.passes_fd
        self.said.clear()
        self.record.passed_over = self._not_by(candidate)
        self.record.up(candidate.way.name, again=self.was_ready)
        if self.mixed:
            self.candidates.remove(candidate)
            self.candidates.insert(0, candidate)
        self.changed.fire()

    async def _tell(self, candidate: Candidate) -> None:
        """Whoever waits for the first of them is told what there is to know, and that it is there."""
        self.was_ready = True
        if candidate.way.kind in (HTTP, SOCKS5) and self.settings.proxy_ca:
            await self._hand_on_authority()
        if self.record.passed_over:
            text = "way the tunnel goes by {}; {}".format(candidate.way.name, self.record.passed_over)
            self.record.announce("note", text)
        self.record.announce("ready", candidate.way.name)

    async def _hand_on_authority(self) -> None:
        """Programs get the list of authorities with which they believe a proxy that intercepts TLS, if it does."""
        from . import authority

        path = self.settings.proxy_ca
        if path == authority.AUTO:
            by = "{}:{}".format(self.record.address, self.record.port)
            deadline = time.monotonic() + self.settings.connect_timeout_s
            path = await authority.found(self.loop, by, self.settings.proxy_ca_targets, os.environ, deadline)
        if path:
            self.record.hand_on("ca", path)
            self.record.log("programs are given the authorities in {}".format(path))
            if self.settings.proxy_ca == authority.AUTO:
                self.record.announce("note", "authority the proxy intercepts TLS; programs are given {}".format(path))

    def _down(self, upstream: Upstream, name: str) -> None:
        self.upstream = None
        self.down_since = time.monotonic()
        verdict = upstream.why()
        self.record.down("{}: {}: {}".format(name, verdict.layer, verdict.reason))

    async def _ready(self, deadline: float) -> Upstream:
        """A tunnel, as soon as it is there; OpenError "down" at `deadline`."""
        while self.upstream is None or self.upstream.dead():
            try:
                await self.changed.wait(deadline)
            except TimedOut:
                raise OpenError("down", self.outage())
        return self.upstream

    def outage(self) -> str:
        """How long the tunnel has been away, and why."""
        down_s = time.monotonic() - self.down_since
        text = "the tunnel has been down for {:.0f} s".format(down_s)
        if not self.was_ready:
            text = "the tunnel has not come up for {:.0f} s".format(down_s)
        return "{}: {}".format(text, self.record.last_error) if self.record.last_error else text

    async def open(self, target: Target, ends: Ends) -> Channel:
        """A channel from `ends` to `target`; OpenError. Requests are held while there is none, and one whose upstream
        goes away meanwhile is tried again, as long as that is safe."""
        settings = self.settings
        deadline = time.monotonic() + settings.hold_s + settings.connect_timeout_s
        while True:
            if self.upstream is None:
                self.record.held += 1
            upstream = await self._ready(time.monotonic() + settings.hold_s)
            try:
                return await upstream.open(target, ends, time.monotonic() + settings.connect_timeout_s)
            except Lost:
                if time.monotonic() > deadline or not ends.untouched():
                    raise OpenError("down", self.outage())
                await self.loop.sleep(AGAIN_S)

    def stop(self) -> None:
        """The tunnel is ended, now."""
        for upstream in (self.upstream, self.starting):
            if upstream is not None:
                upstream.stop()

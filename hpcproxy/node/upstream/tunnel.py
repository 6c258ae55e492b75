"""A working ssh at nearly all times: jump hosts are tried in turn, proved end to end, and tried again after a loss."""

import signal
import socket
import time
from typing import List, Optional, Set, Tuple

from ..io.loop import Loop, Signal, TimedOut
from ..state.directory import BadFolder, Folder
from ..state.settings import Jump, Settings
from ..state.status import Record
from .candidate import Candidate, Turn, Verdict
from .control import MasterLost
from .master import Master, Session
from .target import Target
from .way import WayError, tidy
from .words import verdict

LOGIN_S = 15.0  # for authentication, after ssh's own ConnectTimeout
NUDGES_S = (0.004, 0.012)
# sshd tried to connect and could not: login, permission to forward and the way back are proved.
PROOF = ("refused", "host", "network", "name")
IN_TURN_S = 0.02  # so that one question comes after the other
FAR_END = 255  # of an ssh that wrote nothing into its log: it says of a far end that hangs up on stderr only
PROHIBITED = "channel 0: open failed: administratively prohibited: "


class GaveUp(Exception):
    """Every jump host has failed in a way that trying again does not mend."""

    def __init__(self, layer: str, reason: str) -> None:
        self.layer, self.reason = layer, reason
        super().__init__("{} {}".format(layer, reason))


class Tunnel:
    """The way out. `open` serves requests; `keep` runs for ever."""

    def __init__(self, loop: Loop, settings: Settings, folder: Folder, record: Record, turn: Turn) -> None:
        self.loop, self.settings, self.folder, self.record = loop, settings, folder, record
        self.delay_s = turn.delay_s
        self.candidates = [
            Candidate(jump, settings.retry_max_s, turn.spread_s, turn.nodes) for jump in turn.order(settings.jumps)
        ]
        self.master: Optional[Master] = None
        self.starting: Optional[Master] = None
        self.changed = Signal(loop)
        self.down_since = time.monotonic()
        self.was_ready = False
        self.said: Set[Tuple[str, Verdict]] = set()

    async def keep(self) -> None:
        """Keep a way out up; GaveUp only if there never was one."""
        if self.delay_s > 0:
            self.record.log("its turn comes in {:.1f} s: many nodes begin at this moment".format(self.delay_s))
            await self.loop.sleep(self.delay_s)
        while True:
            candidate = min(self.candidates, key=lambda c: max(c.next_try, time.monotonic()))
            await self.loop.sleep(candidate.next_try - time.monotonic())
            try:
                master = await self._attempt(candidate.jump)
            except Unusable as error:
                self._failed(candidate, error.verdict)
                continue
            since = time.monotonic()
            self._up(master, candidate)
            self.loop.spawn(self._watch(master, since))
            while not master.dead and self.master is master:
                await master.gone.wait()
            self._down(master, candidate.jump.name)
            candidate.lost(time.monotonic() - since)

    async def _attempt(self, jump: Jump) -> Master:
        """A proved ssh through `jump`; Unusable."""
        self._restore_folder()
        master = self.starting = Master(self.loop, jump.argv, self._ssh_says)
        self.record.journal.write("debug", "connecting through {}".format(jump.name))
        try:
            await master.start(time.monotonic() + self.settings.connect_timeout_s + LOGIN_S)
            await self._prove(master, self.settings.connect_timeout_s)
        except (MasterLost, TimedOut, Unusable, OSError) as error:
            master.stop()
            await self._end(master)
            raise error if isinstance(error, Unusable) else Unusable(self._judge(master, error))
        finally:
            self.starting = None
        return master

    def _ssh_says(self, line: str) -> None:
        self.record.journal.once("info", "ssh: {}".format(line))

    def _restore_folder(self) -> None:
        """There is a state directory for ssh's control socket; Unusable."""
        try:
            if self.folder.restore():
                self.record.open(self.folder.fd)
                self.record.log("the state directory had been removed; it was made anew")
                self.record.write_status()
        except BadFolder as error:
            raise Unusable(Verdict("state", str(error), False))

    async def _end(self, master: Master) -> None:
        """`master` is reaped: told to end, or by force if that takes long."""
        deadline = time.monotonic() + 2
        while master.child is not None and not master.dead:
            try:
                await master.gone.wait(deadline)
            except TimedOut:
                master.stop(signal.SIGKILL)
                deadline += 2

    async def _prove(self, master: Master, seconds: float) -> None:
        """Login, forwarding and the way back work, shown by a channel that touches no service; Unusable, MasterLost."""
        nudges = self.loop.spawn(self._nudge(master, seconds))
        try:
            await self._probe(master, seconds)
        except WayError as error:
            if error.kind == "prohibited":
                if not await self._lets_https_through(master, seconds):
                    plain = Verdict("forwarding", "the jump host does not allow forwarding", True)
                    raise Unusable(verdict(self.settings.failures, [PROHIBITED]) or plain)
            elif error.kind not in PROOF:
                raise Unusable(Verdict("probe", error.reason, False))
        finally:
            nudges.cancel()

    async def _lets_https_through(self, master: Master, seconds: float) -> bool:
        """The jump host, which refuses the usual probe, does not refuse https (PermitOpen); MasterLost.

        It refuses at once and in the order of the questions: what has no answer when a later one has, it tries.
        """
        refused: List[str] = []

        async def ask() -> None:
            """The second probe has been refused, or not yet."""
            try:
                await self._probe(master, seconds, self.settings.probe_https)
            except WayError as error:
                refused.append(error.kind)
            except (MasterLost, TimedOut, OSError):
                pass

        asking = self.loop.spawn(ask())
        try:
            await self.loop.sleep(IN_TURN_S)
            await self._probe(master, seconds)
        except WayError:
            await self.loop.sleep(IN_TURN_S)
        finally:
            asking.cancel()
        return "prohibited" not in refused

    async def _nudge(self, master: Master, seconds: float) -> None:
        """sshd holds its answer back until what it said before is acknowledged (Nagle's algorithm, which it turns off
        for terminals and commands only); this node's kernel does that 40 ms later, or with the next that ssh sends."""
        for pause_s in NUDGES_S:
            await self.loop.sleep(pause_s)
            self.loop.spawn(self._try_probe(master, seconds))

    async def _try_probe(self, master: Master, seconds: float) -> None:
        try:
            await self._probe(master, seconds)
        except (WayError, MasterLost, OSError):
            pass  # who waits for an answer has one of its own

    async def _probe(self, master: Master, seconds: float, target: Optional[Tuple[str, int]] = None) -> None:
        """A channel to where nobody listens, or to `target`; WayError, MasterLost."""
        ours, theirs = socket.socketpair()
        try:
            fds = (theirs.fileno(), theirs.fileno())
            session = await master.open(Target(*(target or self.settings.probe)), fds, time.monotonic() + seconds)
            session.close()
        finally:
            ours.close()
            theirs.close()

    def _judge(self, master: Master, error: Exception) -> Verdict:
        """Why it failed, by the table of agent.json; where that knows nothing, what was said last."""
        talk = master.last_talk()
        if master.missing:
            return Verdict("ssh", tidy(talk or "cannot be started"), True)
        known = verdict(self.settings.failures, master.words.lines, talk)
        if known is not None:
            return known
        if isinstance(error, TimedOut):
            return Verdict("login", "no answer within the time for a login", False)
        if isinstance(error, OSError):
            return Verdict("node", tidy(str(error)), False)
        # Talk is a reason only of an ssh that did not come as far as to its own log.
        last = master.words.last or ("" if master.words.lines else talk)
        if not last and master.words.lines and master.exit == FAR_END:
            return Verdict("ssh", "it ended the connection: an idle limit of its own, or it went down?", False)
        return Verdict("ssh", tidy(last) if last else "ended with code {}".format(master.exit), False)

    def _failed(self, candidate: Candidate, verdict: Verdict) -> None:
        candidate.failed(verdict)
        verdict, name = candidate.verdict or verdict, candidate.jump.name
        self.record.failed("{}: {}: {}".format(name, verdict.layer, verdict.reason))
        if (name, verdict) not in self.said:
            self.said.add((name, verdict))
            self.record.announce("failed", "{} {}: {}".format(verdict.layer, name, verdict.reason))
        verdicts = [each.verdict for each in self.candidates]
        if not self.was_ready and all(each is not None and each.permanent for each in verdicts):
            raise GaveUp(verdict.layer, "{}: {}".format(name, verdict.reason))

    def _up(self, master: Master, candidate: Candidate) -> None:
        candidate.verdict = None
        self.master = master
        self.said.clear()
        self.record.up(candidate.jump.name, again=self.was_ready)
        if not self.was_ready:
            self.record.announce("ready", candidate.jump.name)
        self.was_ready = True
        self.changed.fire()

    def _down(self, master: Master, name: str) -> None:
        self.master = None
        self.down_since = time.monotonic()
        verdict = self._judge(master, MasterLost())
        self.record.down("{}: {}: {}".format(name, verdict.layer, verdict.reason))

    async def _watch(self, master: Master, since: float) -> None:
        """An ssh that no longer serves is ended, so that the next one comes; it was proved at `since`.

        The network is ssh's own ServerAliveInterval's business. This is for an ssh that hangs or was stopped, and for
        what may have happened while we were (a suspended job): then only the far end's answer counts.
        """
        interval_s = self.settings.alive_interval_s
        patience_s = interval_s * max(1, self.settings.alive_count - 1)
        while not master.dead:
            await self.loop.sleep(interval_s)
            stood_still_s = time.monotonic() - since - interval_s
            if stood_still_s > interval_s:
                self.record.log("this node or job stood still for {:.0f} s".format(stood_still_s))
                alive = await self._far_end_answers(master, interval_s)
            else:
                alive = await master.control.answers(time.monotonic() + patience_s)
            since = time.monotonic()
            if not alive and not master.dead:
                self.record.log("ssh does not answer on its control socket, or its far end does not; ended")
                master.stop(signal.SIGKILL)

    async def _far_end_answers(self, master: Master, seconds: float) -> bool:
        try:
            await self._prove(master, seconds)
        except (Unusable, MasterLost, TimedOut, OSError):
            return False
        return True

    async def ready_master(self, deadline: float) -> Master:
        """ssh, as soon as it is there; WayError "down" at `deadline`."""
        while self.master is None or self.master.dead:
            try:
                await self.changed.wait(deadline)
            except TimedOut:
                raise WayError("down", self.outage())
        return self.master

    def outage(self) -> str:
        """How long the way out has been away, and why."""
        down_s = time.monotonic() - self.down_since
        text = "the way out has been down for {:.0f} s".format(down_s)
        if not self.was_ready:
            text = "the way out has not come up for {:.0f} s".format(down_s)
        return "{}: {}".format(text, self.record.last_error) if self.record.last_error else text

    async def open(self, target: Target, fds: Tuple[int, int]) -> Session:
        """A channel; requests are held while ssh is away; WayError, MasterLost when ssh went during the attempt."""
        if self.master is None:
            self.record.held += 1
        master = await self.ready_master(time.monotonic() + self.settings.hold_s)
        return await master.open(target, fds, time.monotonic() + self.settings.connect_timeout_s)

    def stop(self) -> None:
        """ssh is ended and reaped, now: at most a second, then by force."""
        masters = [each for each in (self.master, self.starting) if each is not None]
        for master in masters:
            master.control.close()
        end_now([each for each in masters if each.child is not None])


class Unusable(Exception):
    """An attempt failed; `verdict` says why."""

    def __init__(self, verdict: Verdict) -> None:
        self.verdict = verdict
        super().__init__(verdict.reason)


def end_now(masters: List[Master]) -> None:
    """All of them are reaped."""
    for master in masters:
        master.stop()
    deadline = time.monotonic() + 1
    for master in masters:
        while master.child is not None and master.child.reap() is None:
            if time.monotonic() > deadline:
                master.stop(signal.SIGKILL)
            time.sleep(0.005)

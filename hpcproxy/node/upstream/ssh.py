"""The upstream `ssh`: logged in to a jump host, proved by a channel that comes back from there, watched.

Clients' descriptors are handed to ssh; how its connection comes about is its transport's business.
"""

import signal
import socket
import time
from typing import List, Optional, Tuple

from ..io.loop import Loop, TimedOut
from ..state.settings import Settings, Way
from ..state.status import Record
from .candidate import Verdict
from .control import MasterLost
from .master import Master
from .open_error import OpenError, tidy
from .target import Target
from .transport import Transport
from .upstream import Channel, Ends, Unusable, Upstream
from .words import verdict

LOGIN_S = 15.0  # for authentication, after ssh's own ConnectTimeout
NUDGES_S = (0.004, 0.012)
# sshd tried to connect and could not: login, permission to forward and the way back work.
PROBED = ("refused", "host", "network", "name")
IN_TURN_S = 0.02  # so that one question comes after the other
FAR_END = 255  # of an ssh that wrote nothing into its log: it says of a far end that hangs up on stderr only
PROHIBITED = "channel 0: open failed: administratively prohibited: "


class Ssh(Upstream):
    """One ssh, from its start to its end."""

    passes_fd = True

    def __init__(
        self, loop: Loop, settings: Settings, way: Way, record: Record, transport: Optional[Transport] = None
    ) -> None:
        self.loop, self.settings, self.record = loop, settings, record
        self.transport: Transport = transport or Master(loop, way.argv, self._says, way.called)
        self.gone = self.transport.gone
        self.proved_at = 0.0

    def _says(self, line: str) -> None:
        self.record.journal.once("info", "ssh: {}".format(line))

    def dead(self) -> bool:
        """As Upstream."""
        return self.transport.dead

    async def start(self) -> None:
        """As Upstream."""
        try:
            await self.transport.start(time.monotonic() + self.settings.connect_timeout_s + LOGIN_S)
            await self._check_forwarding(self.settings.connect_timeout_s)
            self.proved_at = time.monotonic()
        except (MasterLost, TimedOut, Unusable, OSError) as error:
            await self.transport.end()
            raise error if isinstance(error, Unusable) else Unusable(self._judge(error))

    async def open(self, target: Target, ends: Ends, deadline: float) -> Channel:
        """As Upstream."""
        return await self.transport.open(target, ends.descriptors(), deadline)

    async def _check_forwarding(self, seconds: float) -> None:
        """Login, forwarding and the way back work, shown by a channel that touches no service; Unusable, MasterLost."""
        nudges = self.loop.spawn(self._nudge(seconds))
        try:
            await self._probe(seconds)
        except OpenError as error:
            if error.kind == "prohibited":
                if not await self._lets_https_through(seconds):
                    plain = Verdict("forwarding", "the jump host does not allow forwarding", True)
                    raise Unusable(verdict(self.settings.failures, [PROHIBITED]) or plain)
            elif error.kind not in PROBED:
                raise Unusable(Verdict("probe", error.reason, False))
        finally:
            nudges.cancel()

    async def _lets_https_through(self, seconds: float) -> bool:
        """The jump host, which refuses the usual probe, does not refuse https (PermitOpen); MasterLost.

        It refuses at once and in the order of the questions: what has no answer when a later one has, it tries.
        """
        refused: List[str] = []

        async def ask() -> None:
            """The second probe has been refused, or not yet."""
            try:
                await self._probe(seconds, self.settings.probe_https)
            except OpenError as error:
                refused.append(error.kind)
            except (MasterLost, TimedOut, OSError):
                pass

        asking = self.loop.spawn(ask())
        try:
            await self.loop.sleep(IN_TURN_S)
            await self._probe(seconds)
        except OpenError:
            await self.loop.sleep(IN_TURN_S)
        finally:
            asking.cancel()
        return "prohibited" not in refused

    async def _nudge(self, seconds: float) -> None:
        """sshd holds its answer back until what it said before is acknowledged (Nagle's algorithm, which it turns off
        for terminals and commands only); this node's kernel does that 40 ms later, or with the next that ssh sends."""
        for pause_s in NUDGES_S:
            await self.loop.sleep(pause_s)
            self.loop.spawn(self._try_probe(seconds))

    async def _try_probe(self, seconds: float) -> None:
        try:
            await self._probe(seconds)
        except (OpenError, MasterLost, OSError):
            pass  # who waits for an answer has one of its own

    async def _probe(self, seconds: float, target: Optional[Tuple[str, int]] = None) -> None:
        """A channel to where nobody listens, or to `target`; OpenError, MasterLost."""
        ours, theirs = socket.socketpair()
        try:
            fds = (theirs.fileno(), theirs.fileno())
            where = Target(*(target or self.settings.probe))
            (await self.transport.open(where, fds, time.monotonic() + seconds)).close()
        finally:
            ours.close()
            theirs.close()

    def _judge(self, error: Exception) -> Verdict:
        """Why it failed, by the table of agent.json; where that knows nothing, what was said last."""
        transport, words = self.transport, self.transport.words
        talk = transport.last_talk()
        if transport.missing:
            return Verdict("ssh", tidy(talk or "cannot be started"), True)
        known = verdict(self.settings.failures, words.lines, talk)
        if known is not None:
            return known
        if isinstance(error, TimedOut):
            return Verdict("login", "no answer within the time for a login", False)
        if isinstance(error, OSError):
            return Verdict("node", tidy(str(error)), False)
        # Talk is a reason only of an ssh that did not come as far as to its own log.
        last = words.last or ("" if words.lines else talk)
        if not last and words.lines and transport.exit == FAR_END:
            return Verdict("ssh", "it ended the connection: an idle limit of its own, or it went down?", False)
        return Verdict("ssh", tidy(last) if last else "ended with code {}".format(transport.exit), False)

    async def watch(self) -> None:
        """An ssh that no longer serves is ended, so that the next one comes.

        The network is ssh's own ServerAliveInterval's business. This is for an ssh that hangs or was stopped, and for
        what may have happened while we were (a suspended job): then only the far end's answer counts.
        """
        interval_s = self.settings.alive_interval_s
        patience_s = interval_s * max(1, self.settings.alive_count - 1)
        since = self.proved_at
        while not self.transport.dead:
            await self.loop.sleep(interval_s)
            stood_still_s = time.monotonic() - since - interval_s
            if stood_still_s > interval_s:
                self.record.log("this node or job stood still for {:.0f} s".format(stood_still_s))
                alive = await self._far_end_answers(interval_s)
            else:
                alive = await self.transport.answers(time.monotonic() + patience_s)
            since = time.monotonic()
            if not alive and not self.transport.dead:
                self.record.log("ssh does not answer on its control socket, or its far end does not; ended")
                self.transport.stop(signal.SIGKILL)

    async def _far_end_answers(self, seconds: float) -> bool:
        try:
            await self._check_forwarding(seconds)
        except (Unusable, MasterLost, TimedOut, OSError):
            return False
        return True

    def why(self) -> Verdict:
        """As Upstream."""
        return self._judge(MasterLost())

    def stop(self) -> None:
        """As Upstream."""
        self.transport.end_now()

"""The upstream `adopt`: an ssh that a person has started and logged in, used by its control socket and never ended.

Nothing of it is ours: it gets no signal and no request but for channels, and one connection that stays open keeps it
from ending by itself (ControlPersist). What it says of a channel that the far end refuses is one sentence for all
reasons ("Session open refused by peer", mux_stdio_confirm in mux.c): they stand in its own log only.
"""

import os
from typing import Optional, Tuple

from ..io.loop import Loop, Signal, Task, TimedOut
from ..io.stream import Stream
from ..state.settings import Settings, Way
from ..state.status import Record
from . import mux
from .candidate import Verdict
from .control import READ, Control, MasterLost
from .master import Log, Session
from .open_error import OpenError
from .ssh import Ssh
from .ssh_log import SshLog
from .target import Target
from .transport import Transport
from .upstream import Unusable
from .words import Words

LAYER = "adopt"
LOOK_S = 0.5
PF_EXITING = 4  # of linux/sched.h
REFUSED = "refused by the far end or the jump host; the ssh that was adopted does not say why"
UNTRUE = "Session open refused by peer"
NOBODY = "nobody has logged in: {} is no control socket of an ssh of this user on this machine"
ENDED = "the ssh at {} has ended: log in again there"


class Adopted(Transport, Log):
    """The ssh that listens at `path`."""

    missing = False
    exit: Optional[int] = None
    tells_eof = False

    def __init__(self, loop: Loop, path: str) -> None:
        self.loop, self.path = loop, path
        self.control = Control(loop, path)
        self.gone = Signal(loop)
        self.dead = False
        self.pid = 0
        self.words, self.log = Words(), SshLog()  # of it nothing is heard
        self.kept: Optional[Stream] = None
        self.listening: Optional[Task] = None

    async def start(self, deadline: float) -> None:
        """As Transport."""
        self.pid = await self.control.process(deadline)
        if not self.pid:
            raise MasterLost()
        self.kept, _ = await self.control.connect(deadline)
        self.listening = self.loop.spawn(self._listen(self.kept))

    async def _listen(self, kept: Stream) -> None:
        """Until it ends, or closes the connection that is kept."""
        try:
            while await kept.recv(READ):
                pass
        except OSError:
            pass
        self.stop()

    async def open(self, target: Target, fds: Tuple[int, int], deadline: float) -> Session:
        """As Transport."""
        control, reply = await self.control.open(target, fds, deadline)
        if reply.kind == mux.SESSION_OPENED:
            return Session(control, reply.number, self)
        control.close()
        raise OpenError("failed", REFUSED if reply.text == UNTRUE else reply.text)

    async def answers(self, deadline: float) -> bool:
        """As Transport."""
        return await self.control.answers(deadline)

    def drain(self) -> bool:
        """There is no log of its to take in."""
        return False

    def has_ended(self) -> bool:
        """It is about to end, or listens no more; of both the first that can be seen is enough."""
        return self.dead or is_ending(self.pid) or not self.control.listens()

    def last_talk(self) -> str:
        """As Transport."""
        return ENDED.format(self.path)

    def stop(self, _number: int = 0) -> None:
        """We let go of it; it stays as it is."""
        if not self.dead:
            self.dead = True
            self.control.close()
            if self.listening is not None:
                self.listening.cancel()
            if self.kept is not None:
                self.kept.close()
            self.gone.fire()

    async def end(self) -> None:
        """As Transport."""
        self.stop()

    def end_now(self) -> None:
        """As Transport."""
        self.stop()


class Adopt(Ssh):
    """One life with one ssh of somebody's."""

    def __init__(self, loop: Loop, settings: Settings, way: Way, record: Record) -> None:
        super().__init__(loop, settings, way, record, Adopted(loop, way.path))
        self.path = way.path

    async def start(self) -> None:
        """As Upstream: where there was one before, it waits for the next."""
        patient = self.record.tries > 0 and self.again
        while patient and not os.path.exists(self.path):
            if os.stat(".").st_nlink == 0:
                raise Unusable(Verdict("state", "the state directory was removed", False))
            await self.loop.sleep(LOOK_S)
        await super().start()

    async def _check_forwarding(self, seconds: float) -> None:
        """It turns and the way there and back is whole: a channel to nowhere is answered, whatever the answer is."""
        try:
            await self._probe(seconds)
        except OpenError as error:
            if error.kind == "timeout":
                raise Unusable(Verdict("probe", error.reason, False))

    def _judge(self, error: Exception) -> Verdict:
        """As Ssh."""
        if isinstance(error, TimedOut):
            return Verdict(LAYER, "the ssh at {} does not answer".format(self.path), False)
        if self.again or self.proved_at:
            return Verdict(LAYER, ENDED.format(self.path), False)
        return Verdict(LAYER, NOBODY.format(self.path), True)


def is_ending(pid: int) -> bool:
    """Process `pid` is in its end, which begins before its descriptors are closed (PF_EXITING; proc(5), stat, 9)."""
    try:
        with open("/proc/{}/stat".format(pid), "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
        return bool(int(fields[6]) & PF_EXITING)
    except OSError:
        return True
    except (IndexError, ValueError):
        return False

"""The transport `dial`: an ssh that is started here, listened to, asked for channels, ended."""

import os
import signal
import socket
import time
from typing import Callable, Optional, Tuple

from ..io.child import CANNOT_START, END, Child
from ..io.loop import Loop, Signal, TimedOut, Watch
from ..io.stream import Stream, nothing
from . import mux
from .chatter import Chatter
from .control import Control, MasterLost
from .open_error import explain
from .ssh_log import LOG_VERBOSE, SshLog
from .target import Target
from .transport import Transport
from .upstream import Channel
from .words import LOG, Words

POLL_S = 0.02
END_S = 2.0  # for an ssh that is told to end, before it is ended by force
# When ssh is logged in it makes its control socket; of an ssh that does not tell (LOG_VERBOSE) we have to look for it.
LOGIN_POLL_S = 0.005
TOLD_POLL_S = 0.5
LONGEST_LINE = 4096
PIPE_READ = 65536


class Log:
    """What a session asks of its ssh."""

    log: SshLog
    tells_eof: bool

    def drain(self) -> bool:
        """Take in what ssh has written; False at the end."""
        raise NotImplementedError

    def has_ended(self) -> bool:
        """ssh is gone."""
        raise NotImplementedError


class Session(Channel):
    """One open channel; `number` is ssh's name for it.

    ssh drops the client's direction too as soon as the far end has ended its own (`force_drain` in its channels.c), so
    a channel is over, but for what is still to be written to the client, when the far end has said all.
    """

    def __init__(self, control: Stream, number: int, master: "Log") -> None:
        self.control, self.number, self.master = control, number, master
        self.eof = False
        self.on_eof: Callable[[], None] = nothing

    def heed(self, on_eof: Callable[[], None] = nothing) -> None:
        """`on_eof` is called once, when the client's side has all that the far end said; at once if it has already.

        To be called before others get their turn: the channel's beginning is in ssh's log by now.
        """
        self.on_eof = on_eof
        self.master.drain()
        self.master.log.attach(self.number, self._far_end_ended)

    def _far_end_ended(self) -> None:
        if not self.eof:
            self.eof = True
            self.on_eof()

    async def closed(self) -> None:
        """ssh has closed the channel, both ways."""
        try:
            while await self.control.recv(4096):
                pass
        except OSError:
            pass  # ssh is gone, and the channel with it

    def lost(self) -> bool:
        """The channel was cut: the far end did not end it, ssh died. An old ssh that tells nothing may hide that."""
        self.master.drain()
        return not self.eof if self.master.tells_eof else self.master.has_ended()

    def over(self) -> bool:
        """The channel carries no more requests."""
        if self.eof:
            return True
        try:
            return not self.control.sock.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return False
        except OSError:
            return True

    def hang_up(self) -> None:
        """ssh closes the channel, and then `closed` returns."""
        self.control.finish()

    def close(self) -> None:
        """ssh closes the channel; nobody waits for that. Twice is once."""
        self.master.log.detach(self.number, self._far_end_ended)
        self.control.close()


class Master(Transport, Log):
    """ssh under way; `start` makes it usable, `gone` fires when it has ended."""

    def __init__(self, loop: Loop, argv: Tuple[str, ...], tell: Callable[[str], None], called: str = "") -> None:
        self.loop, self.tell = loop, tell
        # By a name relative to the working directory: whatever the path to it holds, ssh expands nothing in it (`%h`,
        # `${HOME}`), its length counts for nothing, and nobody else can put a socket of his there.
        self.control = Control(loop, "ctl")
        self.argv, self.called = argv, called
        self.log = SshLog()
        self.words = Words()
        self.chatter: Optional[Chatter] = None
        self.tail = b""
        self.child: Optional[Child] = None
        self.exit: Optional[int] = None
        self.gone = Signal(loop)
        self.heard = Signal(loop)  # ssh has written something
        self.dead = self.started = self.hushed = False
        self.tells_eof = LOG_VERBOSE in argv
        self.listener: Optional[Watch] = None

    async def start(self, deadline: float) -> None:
        """ssh is logged in and takes requests; MasterLost when it has ended instead, TimedOut."""
        try:
            os.unlink(self.control.path)
        except FileNotFoundError:
            pass
        extra = ["-E", LOG, "-M", "-S", self.control.path]
        self.child = Child([self.argv[0]] + extra + list(self.argv[1:]), self.called)
        self.loop.spawn(self._listen(self.child))
        self.chatter = Chatter(self.loop, self.child.talk)
        begun = time.monotonic()
        while not os.path.exists(self.control.path):
            now = time.monotonic()
            if self.dead:
                raise MasterLost()
            if now > deadline:
                raise TimedOut()
            # Rarely where it takes long: then the machines are busy, and with us perhaps hundreds of others look.
            poll_s = max(TOLD_POLL_S if self.tells_eof else LOGIN_POLL_S, (now - begun) / 20)
            try:
                await self.heard.wait(now + poll_s)
            except TimedOut:
                pass
        self.started = True
        self.drain()
        self.words.logged_in()

    async def answers(self, deadline: float) -> bool:
        """ssh is there and turns."""
        return await self.control.answers(deadline)

    async def open(self, target: Target, fds: Tuple[int, int], deadline: float) -> Session:
        """A channel from the two descriptors (ssh reads, ssh writes) to `target`; OpenError, MasterLost."""
        self._hush()  # what ssh writes to its log about this we look for when it has answered
        control, reply = await self.control.open(target, fds, deadline)
        if reply.kind == mux.SESSION_OPENED:
            return Session(control, reply.number, self)
        control.close()
        self.drain()
        raise explain(self.log.reason(target) or reply.text)

    async def _listen(self, child: Child) -> None:
        """Read ssh's log to its end, which is ssh's end."""
        watch = self.listener = self.loop.watch(child.log)
        while self.drain():
            self.heard.fire()
            if self.started:
                self._hush()
            if not watch.ended:  # else its end was told together with what was just read, and is told once
                await watch.wait_readable()
        self.listener = None
        self.loop.unwatch(watch)
        if self.chatter is not None:
            self.chatter.close()
        child.close()
        # The end of its log comes a moment before the process can be reaped.
        for _ in range(100):
            self.exit = child.reap()
            if self.exit is not None:
                break
            await self.loop.sleep(POLL_S)
        else:
            child.signal(signal.SIGKILL)  # it closed its log and lives on: nothing ssh does
        self.dead, self.missing = True, self.exit == CANNOT_START
        self.control.close()
        self.heard.fire()
        self.gone.fire()

    def _hush(self) -> None:
        """Nothing from ssh's log wakes us for a moment: one line at a time it would several times per connection.

        Who needs to know at once calls `drain`.
        """
        if self.listener is not None and not self.hushed:
            self.hushed = True
            self.loop.mute(self.listener, True)
            self.loop.call_at(time.monotonic() + POLL_S, self._listen_again)

    def _listen_again(self) -> None:
        self.hushed = False
        if self.listener is not None:
            self.loop.mute(self.listener, False)

    def drain(self) -> bool:
        """Take in what ssh has written; False at the end."""
        while self.child is not None and self.child.log >= 0:
            try:
                data = os.read(self.child.log, PIPE_READ)
            except BlockingIOError:
                return True
            if not data:
                return False
            whole, _, tail = (self.tail + data).rpartition(b"\n")
            self.tail = tail[-LONGEST_LINE:]
            for line in whole.decode("utf-8", "replace").split("\n"):
                self._line(line.strip())
            if len(data) < PIPE_READ:
                return True  # that was all; more of it is a new event
        return False

    def _line(self, line: str) -> None:
        text = self.words.feed(line) if line and not self.log.feed(line) else ""
        if text:
            self.tell(text)

    def last_talk(self) -> str:
        """The last line of what was said beside the log."""
        return "" if self.chatter is None else self.chatter.last()

    def has_ended(self) -> bool:
        """The process is gone."""
        return self.child is None or self.child.reap() is not None

    def stop(self, number: int = END) -> None:
        """ssh is told to end; `gone` fires when it has."""
        if self.child is not None and not self.dead:
            self.child.signal(number)

    async def end(self) -> None:
        """As Transport."""
        self.stop()
        deadline = time.monotonic() + END_S
        while self.child is not None and not self.dead:
            try:
                await self.gone.wait(deadline)
            except TimedOut:
                self.stop(signal.SIGKILL)
                deadline += END_S

    def end_now(self) -> None:
        """As Transport."""
        self.control.close()
        self.stop()
        deadline = time.monotonic() + 1
        while self.child is not None and self.child.reap() is None:
            if time.monotonic() > deadline:
                self.stop(signal.SIGKILL)
            time.sleep(0.005)

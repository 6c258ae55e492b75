"""One ssh and its control socket: started, proved, asked for channels, watched, ended.

PROTOCOL.mux: a request for a channel takes two descriptors over SCM_RIGHTS. The answer MUX_S_SESSION_OPENED comes only
when the far end is connected. The control connection lives as long as the channel: closing it closes the channel.
"""

import array
import os
import re
import signal
import socket
import time
from typing import Callable, List, Optional, Tuple

from . import mux
from .child import CANNOT_START, Child
from .loop import Loop, Signal, TimedOut
from .sshlog import LOG_VERBOSE, SshLog, Target
from .stream import Ended, Stream, TooLong
from .way import WayError, explain

POLL_S = 0.02
LONGEST_LINE = 4096


class MasterLost(Exception):
    """ssh has gone, or does not answer on its control socket."""


def nothing() -> None:
    """Nobody needs to know."""


class Session:
    """One open channel; `number` is ssh's name for it.

    ssh drops the client's direction too as soon as the far end has ended its own (`force_drain` in its channels.c), so
    a channel is over, but for what is still to be written to the client, when the far end has said all.
    """

    def __init__(self, control: Stream, number: int, master: "Master") -> None:
        self.control, self.number, self.master = control, number, master
        self.eof = False
        self.on_eof: Callable[[], None] = nothing  # called once, when the client's side has all of it
        master.log.attach(number, self._far_end_ended)

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


class Master:
    """ssh under way; `start` makes it usable, `gone` fires when it has ended."""

    def __init__(self, loop: Loop, argv: Tuple[str, ...], folder: str, tell: Callable[[str], None]) -> None:
        self.loop, self.tell = loop, tell
        self.control_path = os.path.join(folder, "ctl")
        self.socks_path = os.path.join(folder, "socks")
        self.argv = argv
        self.log = SshLog()
        self.talk: List[str] = []
        self.tail = b""
        self.child: Optional[Child] = None
        self.exit: Optional[int] = None
        self.gone = Signal(loop)
        self.dead = self.tells_eof = False

    async def start(self, deadline: float) -> None:
        """ssh is logged in and takes requests; MasterLost when it has ended instead, TimedOut."""
        for path in (self.control_path, self.socks_path):
            try:
                os.unlink(path)
            except FileNotFoundError:
                pass
        extra = ["-M", "-S", self.control_path, "-D", self.socks_path]
        self.tells_eof = await knows_log_verbose(self.loop, self.argv[0])
        if self.tells_eof:
            extra += ["-o", "LogVerbose=" + LOG_VERBOSE]
        self.child = Child([self.argv[0]] + extra + list(self.argv[1:]))
        self.loop.spawn(self._listen(self.child))
        while not os.path.exists(self.control_path):
            if self.dead:
                raise MasterLost()
            if time.monotonic() > deadline:
                raise TimedOut()
            await self.loop.sleep(POLL_S)

    async def open(self, target: Target, fds: Tuple[int, int], deadline: float) -> Session:
        """A channel from the two descriptors (ssh reads, ssh writes) to `target`; WayError, MasterLost."""
        control: Optional[Stream] = await self._dial(deadline)
        assert control is not None
        try:
            await control.send(mux.hello() + mux.open_channel(1, *target), deadline)
            for fd in fds:
                control.sock.sendmsg([b"\0"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [fd]))])
            await self._hear(control, mux.HELLO, deadline)
            reply = await self._hear(control, 0, deadline)
            if reply.kind == mux.SESSION_OPENED:
                self.drain()  # the log has the channel's beginning already, and the session needs it
                session = Session(control, reply.number, self)
                control = None
                return session
        except TimedOut:
            raise WayError("timeout", "no answer from the far end")
        except (OSError, Ended, TooLong, mux.BadPacket):
            raise MasterLost()
        finally:
            if control is not None:
                control.close()
        self.drain()  # ssh has written the reason before it answered
        raise explain(self.log.reason(target) or reply.text)

    async def _dial(self, deadline: float) -> Stream:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        sock.setblocking(False)
        try:
            while True:
                try:
                    sock.connect(self.control_path)
                    return Stream(self.loop, sock)
                except BlockingIOError:  # its backlog of 64 is full
                    if time.monotonic() > deadline:
                        raise WayError("timeout", "ssh is too busy to take the request")
                    await self.loop.sleep(POLL_S / 4)
        except OSError:
            sock.close()
            raise MasterLost()
        except BaseException:
            sock.close()
            raise

    async def _hear(self, control: Stream, kind: int, deadline: float) -> mux.Reply:
        reply = await control.take(mux.parse, mux.MAX_PACKET, deadline)
        if kind and reply.kind != kind:
            raise mux.BadPacket("{:#x} instead of {:#x}".format(reply.kind, kind))
        return reply

    async def check(self, interval_s: float, misses: int) -> None:
        """Ask again and again whether ssh still turns; return when it has not answered `misses` times.

        The network is ssh's own ServerAliveInterval's business; this is for an ssh that hangs or was stopped.
        """
        missed = 0
        while missed < misses and not self.dead:
            await self.loop.sleep(interval_s)
            control = None
            try:
                deadline = time.monotonic() + interval_s
                control = await self._dial(deadline)
                await control.send(mux.hello() + mux.alive_check(1), deadline)
                await self._hear(control, mux.HELLO, deadline)
                await self._hear(control, mux.ALIVE, deadline)
                missed = 0
            except (TimedOut, WayError, MasterLost, OSError, Ended, TooLong, mux.BadPacket):
                missed += 1
            finally:
                if control is not None:
                    control.close()

    async def _listen(self, child: Child) -> None:
        """Read ssh's stderr to its end, which is ssh's end."""
        watch = self.loop.watch(child.stderr)
        while self.drain():
            await watch.wait_readable()
        self.loop.unwatch(watch)
        child.close()
        # The end of stderr comes a moment before the process can be reaped.
        for _ in range(100):
            self.exit = child.reap()
            if self.exit is not None:
                break
            await self.loop.sleep(POLL_S)
        else:
            child.signal(signal.SIGKILL)  # it closed its stderr and lives on: nothing ssh does
        self.dead = True
        self.gone.fire()

    def drain(self) -> bool:
        """Take in what ssh has written; False at the end."""
        while self.child is not None and self.child.stderr >= 0:
            try:
                data = os.read(self.child.stderr, 65536)
            except BlockingIOError:
                return True
            if not data:
                return False
            lines = (self.tail + data).split(b"\n")
            self.tail = lines.pop()[-LONGEST_LINE:]
            for line in lines:
                self._line(line.decode("utf-8", "replace").strip())
        return False

    def _line(self, line: str) -> None:
        if line and not self.log.feed(line):
            self.talk = self.talk[-19:] + [line]
            self.tell(line)

    def has_ended(self) -> bool:
        """The process is gone."""
        return self.child is None or self.child.reap() is not None

    @property
    def missing(self) -> bool:
        """There was no ssh to start."""
        return self.exit == CANNOT_START

    def stop(self, number: int = signal.SIGTERM) -> None:
        """ssh is told to end; `gone` fires when it has."""
        if self.child is not None and not self.dead:
            self.child.signal(number)


async def knows_log_verbose(loop: Loop, ssh: str) -> bool:
    """This ssh is OpenSSH 8.5 or later. An older one would refuse the option; in doubt it is not used."""
    child = Child([ssh, "-V"])
    watch = loop.watch(child.stderr)
    text = b""
    try:
        deadline = time.monotonic() + 5
        while len(text) < LONGEST_LINE:
            try:
                data = os.read(child.stderr, LONGEST_LINE)
            except BlockingIOError:
                await watch.wait_readable(deadline)
                continue
            if not data:
                break
            text += data
    except TimedOut:
        child.signal(signal.SIGKILL)
    finally:
        loop.unwatch(watch)
        child.close()
    while child.reap() is None:
        await loop.sleep(POLL_S / 4)
    found = re.search(rb"OpenSSH_(\d+)\.(\d+)", text)
    return bool(found) and (int(found.group(1)), int(found.group(2))) >= (8, 5)  # type: ignore[union-attr]

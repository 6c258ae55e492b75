"""Requests to ssh over its control socket (PROTOCOL.mux): one connection each, for as long as what it asked for lives.

A request for a channel takes two descriptors over SCM_RIGHTS. MUX_S_SESSION_OPENED comes only when the far end is
connected. Closing the connection closes the channel.
"""

import array
import os
import socket
import time
from typing import List, Tuple

from ..io.loop import Loop, TimedOut
from ..io.peer import unix_owner
from ..io.stream import Ended, Stream
from . import mux
from .open_error import OpenError
from .target import Target
from .upstream import Lost

BUSY_S = 0.005
# Connections made in advance, and not in the moment when ssh is busy with the request that used one up: each costs ssh
# an accept and a greeting, and us two context switches on a node whose other cores compute.
SPARES = 8
REFILL_S = 0.02
READ = 4096
HELLO = mux.hello()


class MasterLost(Lost):
    """ssh has gone, or does not answer on its control socket."""


class Control:
    """The control socket at `path`, which is relative to the state directory (state/directory.py)."""

    def __init__(self, loop: Loop, path: str) -> None:
        self.loop, self.path = loop, path
        self.spares: List[socket.socket] = []  # nobody watches them: what ssh has said there is read when one is used
        self.refilling = False
        self.closed = False

    async def open(self, target: Target, fds: Tuple[int, int], deadline: float) -> Tuple[Stream, mux.Reply]:
        """What ssh says to a channel from the two descriptors (ssh reads, ssh writes) to `target`.

        OpenError when nobody answers in time, MasterLost.
        """
        control, heard = await self.connect(deadline)
        try:
            await control.send(mux.open_channel(1, *target), deadline)
            for fd in fds:
                control.sock.sendmsg([b"\0"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [fd]))])
            reply = await hear(control, heard, mux.HELLO, deadline)
            if reply.kind == mux.SESSION_OPENED:  # by then somebody uses the tunnel
                self._refill()
            return control, reply
        except TimedOut:
            control.close()
            raise OpenError("timeout", "no answer from the far end")
        except (OSError, Ended, mux.BadPacket):
            control.close()
            raise MasterLost()
        except BaseException:
            control.close()
            raise

    async def answers(self, deadline: float) -> bool:
        """ssh is there and turns."""
        return await self.process(deadline) > 0

    async def process(self, deadline: float) -> int:
        """The pid of the ssh, which is there and turns; else 0."""
        control = None
        try:
            control = Stream(self.loop, await self._dial(deadline))
            await control.send(mux.alive_check(1), deadline)
            reply = await hear(control, bytearray(), mux.HELLO, deadline)
            return reply.number if reply.kind == mux.ALIVE else 0
        except (TimedOut, OpenError, MasterLost, OSError, Ended, mux.BadPacket):
            return 0
        finally:
            if control is not None:
                control.close()

    async def connect(self, deadline: float) -> Tuple[Stream, bytearray]:
        """A connection for one request, and what ssh has said there; MasterLost."""
        sock, heard = None, bytearray()
        while self.spares and sock is None:
            sock = self.spares.pop()
            try:
                heard += sock.recv(READ)
            except BlockingIOError:
                break  # it was made this moment
            except OSError:
                pass
            if not heard:  # an ssh that has gone
                sock.close()
                sock = None
        if sock is None:
            sock = await self._dial(deadline)
        try:
            return Stream(self.loop, sock), heard
        except OSError:
            sock.close()
            raise MasterLost()

    async def _dial(self, deadline: float) -> socket.socket:
        """A connection, and our hello under way on it; MasterLost."""
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        sock.setblocking(False)
        try:
            while True:
                try:
                    sock.connect(self.path)
                    check_peer(sock)
                    sock.send(HELLO)
                    return sock
                except BlockingIOError:  # its backlog of 64 is full
                    if time.monotonic() > deadline:
                        raise OpenError("timeout", "ssh is too busy to take the request")
                    await self.loop.sleep(BUSY_S)
        except OSError:
            sock.close()
            raise MasterLost()
        except BaseException:
            sock.close()
            raise

    def _refill(self) -> None:
        if not self.refilling and len(self.spares) < SPARES and not self.closed:
            self.refilling = True
            self.loop.spawn(self._make_spares())

    async def _make_spares(self) -> None:
        try:
            await self.loop.sleep(REFILL_S)
            while len(self.spares) < SPARES and not self.closed:
                self.spares.append(await self._dial(time.monotonic() + 1))
        except (MasterLost, OpenError):
            pass  # whoever needs a connection next will find out
        finally:
            self.refilling = False

    def listens(self) -> bool:
        """Somebody listens there at this moment."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as sock:
            sock.setblocking(False)
            try:
                sock.connect(self.path)
            except BlockingIOError:
                pass  # many wait there
            except OSError:
                return False
            return True

    def close(self) -> None:
        """No connection is kept in advance any more."""
        self.closed = True
        while self.spares:
            self.spares.pop().close()


def check_peer(sock: socket.socket) -> None:
    """Who listens there is this user; OSError. What is handed over is a client's whole connection."""
    uid = unix_owner(sock)
    if uid != os.geteuid():
        raise PermissionError("ssh's control socket is held by uid {}".format(uid))


async def hear(control: Stream, heard: bytearray, skip: int, deadline: float) -> mux.Reply:
    """The first packet from ssh that is not of kind `skip`; `heard` is what was read before."""
    while True:
        found = mux.parse(heard)
        if found is None:
            data = await control.recv(READ, deadline)
            if not data:
                raise Ended()
            heard += data
        elif found[1].kind == skip:
            del heard[: found[0]]
        else:
            return found[1]

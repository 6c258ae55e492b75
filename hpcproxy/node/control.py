"""Requests to ssh over its control socket (PROTOCOL.mux): one connection each, for as long as what it asked for lives.

A request for a channel takes two descriptors over SCM_RIGHTS. MUX_S_SESSION_OPENED comes only when the far end is
connected. Closing the connection closes the channel.
"""

import array
import socket
import time
from typing import List, Tuple

from . import mux
from .loop import Loop, TimedOut
from .stream import Ended, Stream, TooLong
from .target import Target
from .way import WayError

BUSY_S = 0.005
# Connections made in advance, and not in the moment when ssh is busy with the request that used one up: each costs ssh
# an accept and a greeting, and us two context switches on a node whose other cores compute.
SPARES = 8
REFILL_S = 0.02


class MasterLost(Exception):
    """ssh has gone, or does not answer on its control socket."""


class Control:
    """The control socket at `path`."""

    def __init__(self, loop: Loop, path: str) -> None:
        self.loop, self.path = loop, path
        self.spares: List[Stream] = []
        self.refilling = False
        self.closed = False

    async def open(self, target: Target, fds: Tuple[int, int], deadline: float) -> Tuple[Stream, mux.Reply]:
        """What ssh says to a channel from the two descriptors (ssh reads, ssh writes) to `target`.

        WayError when nobody answers in time, MasterLost.
        """
        control = await self._connect(deadline)
        try:
            await control.send(mux.open_channel(1, *target), deadline)
            for fd in fds:
                control.sock.sendmsg([b"\0"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [fd]))])
            reply = await hear(control, deadline)
            if reply.kind == mux.HELLO:
                reply = await hear(control, deadline)
            self._refill()
            return control, reply
        except TimedOut:
            control.close()
            raise WayError("timeout", "no answer from the far end")
        except (OSError, Ended, TooLong, mux.BadPacket):
            control.close()
            raise MasterLost()
        except BaseException:
            control.close()
            raise

    async def answers(self, deadline: float) -> bool:
        """ssh is there and turns."""
        control = None
        try:
            control = await self._dial(deadline)
            await control.send(mux.alive_check(1), deadline)
            while (await hear(control, deadline)).kind != mux.ALIVE:
                pass
            return True
        except (TimedOut, WayError, MasterLost, OSError, Ended, TooLong, mux.BadPacket):
            return False
        finally:
            if control is not None:
                control.close()

    async def _connect(self, deadline: float) -> Stream:
        while self.spares:
            spare = self.spares.pop()
            if not spare.watch.ended:
                return spare
            spare.close()
        return await self._dial(deadline)

    async def _dial(self, deadline: float) -> Stream:
        """A connection, and our hello under way on it; MasterLost."""
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        sock.setblocking(False)
        try:
            while True:
                try:
                    sock.connect(self.path)
                    sock.send(mux.hello())
                    return Stream(self.loop, sock)
                except BlockingIOError:  # its backlog of 64 is full
                    if time.monotonic() > deadline:
                        raise WayError("timeout", "ssh is too busy to take the request")
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
        except (MasterLost, WayError):
            pass  # whoever needs a connection next will find out
        finally:
            self.refilling = False

    def close(self) -> None:
        """No connection is kept in advance any more."""
        self.closed = True
        while self.spares:
            self.spares.pop().close()


async def hear(control: Stream, deadline: float) -> mux.Reply:
    """The next packet from ssh."""
    return await control.take(mux.parse, mux.MAX_PACKET, deadline)

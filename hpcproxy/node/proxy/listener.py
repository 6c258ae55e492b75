"""The port: accepts, asks the kernel who is there, keeps the bounds, one task per connection."""

import errno
import os
import resource
import socket
from typing import Set, Tuple

from ..io.loop import Loop
from ..io.stream import Stream
from .connection import Talk
from .shared import Shared

BACKLOG = 1024
AT_ONCE = 64  # connections accepted before others get their turn
OVER = 128  # connections beyond the bound that still get a true answer; the rest are closed
FDS_EACH = 4  # of a relay: the client, two socket pairs with ssh, the control connection
FDS_SPARE = 64
EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


def bind(address: str, port: int) -> socket.socket:
    """The port is ours; OSError."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # only against TIME_WAIT: listeners still exclude
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # Linux: what is accepted has it from here
        sock.bind((address, port))
        sock.listen(BACKLOG)
    except BaseException:
        sock.close()
        raise
    return sock


def raise_fd_limit(max_connections: int) -> int:
    """As many descriptors as the hard limit allows; returns how many connections they are enough for."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = max_connections * FDS_EACH + OVER + FDS_SPARE
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return max_connections
    soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return max(1, min(max_connections, (soft - OVER - FDS_SPARE) // FDS_EACH))


class Clients:
    """Everybody who is connected."""

    def __init__(self, loop: Loop, shared: Shared, max_connections: int) -> None:
        self.loop, self.shared, self.entrance = loop, shared, shared.entrance
        self.max_connections = max_connections
        self.strangers: Set[str] = set()
        self.troubles: Set[object] = set()
        self.talks: Set[Talk] = set()
        shared.record.open_bytes = self.open_bytes

    async def accept(self) -> None:
        """Let clients in, for ever."""
        listener = self.entrance.listener
        watch = self.loop.watch(listener.fileno())
        while True:
            for _ in range(AT_ONCE):
                try:
                    sock, address = listener.accept()
                except BlockingIOError:
                    await watch.wait_readable()
                    continue
                except OSError as error:
                    if error.errno in EXHAUSTED:  # wait until some connection ends; the port stays ours meanwhile
                        self.shared.record.log("accept: {}".format(os.strerror(error.errno)))
                        await self.loop.sleep(0.1)
                    continue  # ECONNABORTED and its like: that client has gone
                self._admit(sock, address)
            await self.loop.sleep(0)

    def _admit(self, sock: socket.socket, address: Tuple[str, int]) -> None:
        """The client is served or closed. What the kernel refuses for it (ENOSPC: no more epoll) ends it alone."""
        try:
            self._let_in(sock, address)
        except OSError as error:
            sock.close()
            if error.errno not in self.troubles:
                self.troubles.add(error.errno)
                why = os.strerror(error.errno or 0)
                self.shared.record.log("a client could not be served: {}; more are closed without a line".format(why))

    def _let_in(self, sock: socket.socket, address: Tuple[str, int]) -> None:
        if not self._may_pass(sock, address) or len(self.talks) >= self.max_connections + OVER:
            self.shared.record.refused += 1
            self.shared.record.changed()
            sock.close()
            return
        busy = ""
        if len(self.talks) >= self.max_connections:
            busy = "{} connections are open, no more are allowed".format(self.max_connections)
            self.shared.record.refused += 1
        # Root's listener lets nobody bind beside it (port.py), and what it accepts would keep the job's next run from
        # the port for a minute after its end, in TIME_WAIT.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        client = Stream(self.loop, sock, is_client=True)
        talk = Talk(self.shared, client, busy)
        self.talks.add(talk)
        self.loop.spawn(self._serve(talk, client))

    def _may_pass(self, sock: socket.socket, address: Tuple[str, int]) -> bool:
        if self.entrance.admits(sock, address):
            return True
        who = self.entrance.owner()
        if who not in self.strangers and len(self.strangers) < 1000:
            self.strangers.add(who)
            self.shared.record.log("refused {}; more from there are refused without a line".format(who))
        return False

    async def _serve(self, talk: Talk, client: Stream) -> None:
        self.shared.record.active = len(self.talks)
        self.shared.record.changed()
        try:
            await talk.run()
        finally:
            client.close()
            self.talks.discard(talk)
            self.shared.record.active = len(self.talks)
            self.shared.record.changed()

    def close(self) -> None:
        """The port is given up."""
        self.entrance.close()

    def open_bytes(self) -> Tuple[int, int]:
        """Bytes of all requests under way, up and down."""
        pairs = [talk.open_bytes() for talk in self.talks]
        return sum(up for up, _ in pairs), sum(down for _, down in pairs)

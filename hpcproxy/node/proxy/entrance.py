"""The entrance: where clients come in, and how it is proved who they are.

`Loopback`: a TCP port of the node, and the kernel says whose socket the other end is. `UnixSocket`: one that only its
user can open, and the kernel says who has. Another kind is another class here.
"""

import os
import select
import socket
import struct
from typing import Optional, Tuple

from ..io.peer import Peers, who_may_pass

BACKLOG = 1024
CREDENTIALS = struct.Struct("=iII")  # pid, uid, gid (unix(7), SO_PEERCRED)
NOT_NAMED = "a connection whose owner the kernel does not name"
UNKNOWN = 2**32 - 1  # the uid of a socket that nobody connected

Address = Tuple[str, int]


class Entrance:
    """A listening socket, and the proof for who comes in there."""

    listener: socket.socket
    counted = False  # the kernel counts its clients' bytes (io/tcp_info.py), without which nobody is handed over

    def admits(self, sock: socket.socket, address: Address) -> bool:
        """Who has connected, as `sock` from `address`, may pass; in doubt, no."""
        raise NotImplementedError

    def owner(self) -> str:
        """In words, who stood there when `admits` last said no."""
        raise NotImplementedError

    def gone(self, sock: socket.socket) -> bool:
        """Nobody has the other end of `sock` any more; not so of a client that only ended its sending."""
        raise NotImplementedError

    def close(self) -> None:
        """It is shut."""
        raise NotImplementedError


class Loopback(Entrance):
    """For `uid` and root, by the kernel's word (io/peer.py)."""

    counted = True

    def __init__(self, listener: socket.socket, uid: int) -> None:
        self.listener, self.peers, self.allowed = listener, Peers(), who_may_pass(uid)
        self.uid: Optional[int] = None
        listener.setblocking(False)

    def admits(self, sock: socket.socket, address: Address) -> bool:
        """As Entrance."""
        self.uid = self.peers.client(sock, address)
        return self.uid in self.allowed

    def owner(self) -> str:
        """As Entrance."""
        return NOT_NAMED if self.uid is None else "uid {}".format(self.uid)

    def gone(self, sock: socket.socket) -> bool:
        """As Entrance."""
        return self.peers.gone(sock)

    def close(self) -> None:
        """As Entrance."""
        self.listener.close()
        self.peers.close()


class UnixSocket(Entrance):
    """A Unix socket, for `uid` and root: what counts is who has connected it, whoever holds it since.

    It knows no reset: what breaks off ends there as what is whole does.
    """

    def __init__(self, listener: socket.socket, uid: int) -> None:
        self.listener, self.allowed = listener, who_may_pass(uid)
        self.uid = UNKNOWN
        listener.setblocking(False)

    def admits(self, sock: socket.socket, _address: Address) -> bool:
        """As Entrance."""
        try:
            self.uid = CREDENTIALS.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, CREDENTIALS.size))[1]
        except (OSError, struct.error):
            self.uid = UNKNOWN
        return self.uid in self.allowed

    def owner(self) -> str:
        """As Entrance."""
        return NOT_NAMED if self.uid == UNKNOWN else "uid {}".format(self.uid)

    def gone(self, sock: socket.socket) -> bool:
        """As Entrance."""
        poll = select.poll()
        poll.register(sock, 0)  # a hang-up is told unasked: neither end can send any more
        return bool(poll.poll(0))

    def close(self) -> None:
        """As Entrance."""
        self.listener.close()


def bind_unix(path: str) -> socket.socket:
    """A Unix socket at `path`, where nothing is yet, that only this user and root can open; OSError."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        os.fchmod(sock.fileno(), 0o600)  # its name has this mode from the first moment on
        sock.bind(path)
        sock.listen(BACKLOG)
    except BaseException:
        sock.close()
        raise
    return sock

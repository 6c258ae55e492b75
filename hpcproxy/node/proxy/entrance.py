"""The entrance: where clients come in, and how it is proved who they are.

`Loopback` is the only kind: a TCP port of the node, and the kernel says whose socket the other end is. Another kind is
another class here; a Unix socket's clients have no counts of TCP, so that one needs the relay for all.
"""

import socket
from typing import Optional, Tuple

from ..io.peer import Peers, who_may_pass

Address = Tuple[str, int]


class Entrance:
    """A listening socket, and the proof for who comes in there."""

    listener: socket.socket

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
        return "a connection whose owner the kernel does not name" if self.uid is None else "uid {}".format(self.uid)

    def gone(self, sock: socket.socket) -> bool:
        """As Entrance."""
        return self.peers.gone(sock)

    def close(self) -> None:
        """As Entrance."""
        self.listener.close()
        self.peers.close()

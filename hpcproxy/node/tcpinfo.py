"""What the kernel counts for one TCP connection (TCP_INFO, tcp(7)), whoever reads and writes it."""

import fcntl
import socket
import struct
import termios
from typing import Tuple

TCP_INFO = 11
SIZE = 136  # up to tcpi_bytes_received; Linux 4.1 and later
# The client's FIN has come in (and takes one number of the sequence) in these states of linux/tcp_states.h.
FIN_RECEIVED = frozenset([6, 7, 8, 9, 11])  # TIME_WAIT, CLOSE, CLOSE_WAIT, LAST_ACK, CLOSING


class Counters:
    """Bytes of one connection since its accept; zeros where the kernel is too old to say."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.base = self._read()[1]

    def _read(self) -> Tuple[int, int, int]:
        try:
            info = self.sock.getsockopt(socket.IPPROTO_TCP, TCP_INFO, SIZE)
        except OSError:
            return 7, 0, 0
        if len(info) < SIZE:
            return 0, 0, 0
        acked, received = struct.unpack_from("=QQ", info, 120)
        return info[0], acked, received

    def _queue(self, request: int) -> int:
        try:
            return int(struct.unpack("=i", fcntl.ioctl(self.sock.fileno(), request, b"\0" * 4))[0])
        except (OSError, ValueError):  # closed
            return 0

    def received(self) -> int:
        """Bytes that the client has sent and that arrived here."""
        state, _, received = self._read()
        return received - (1 if state in FIN_RECEIVED and received else 0)

    def ahead(self) -> bool:
        """The client has sent bytes that nobody has read yet."""
        return self._queue(termios.FIONREAD) > 0

    def consumed(self) -> int:
        """Those of them that somebody has read."""
        return self.received() - self._queue(termios.FIONREAD)

    def sent(self) -> int:
        """Bytes written to the client so far, by us and by ssh; a FIN of ours would count as one."""
        return self._read()[1] - self.base + self._queue(termios.TIOCOUTQ)

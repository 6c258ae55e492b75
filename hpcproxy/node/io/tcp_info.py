"""What the kernel counts for one TCP connection (TCP_INFO, tcp(7)), whoever reads and writes it."""

import fcntl
import socket
import struct
import termios
from typing import NamedTuple, Tuple

TCP_INFO = 11
SIZE = 136  # up to tcpi_bytes_received; Linux 4.1 and later
# The client's FIN has come in (and takes one number of the sequence) in these states of linux/tcp_states.h.
FIN_RECEIVED = frozenset([6, 7, 8, 9, 11])  # TIME_WAIT, CLOSE, CLOSE_WAIT, LAST_ACK, CLOSING
COUNTS, COUNTS_AT = struct.Struct("=QQ"), 120  # tcpi_bytes_acked, tcpi_bytes_received
NUMBER = struct.Struct("=i")
TRIES = 16
NO_NUMBER = NUMBER.pack(0)

# Bytes that somebody has read of what the client sent, those that wait to be read, those written to it.
Marks = NamedTuple("Marks", [("taken", int), ("waiting", int), ("sent", int)])


class Counters:
    """Bytes of one connection, as differences between two readings: where its counts begin is the kernel's business.

    Zeros where the kernel is too old to say.
    """

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock

    def _read(self) -> Tuple[int, int, int]:
        """State, bytes acknowledged by the client, bytes received from it."""
        try:
            info = self.sock.getsockopt(socket.IPPROTO_TCP, TCP_INFO, SIZE)
        except OSError:
            return 7, 0, 0
        if len(info) < SIZE:
            return 0, 0, 0
        acked, received = COUNTS.unpack_from(info, COUNTS_AT)
        return info[0], acked, received

    def _queue(self, request: int) -> int:
        try:
            return int(NUMBER.unpack(fcntl.ioctl(self.sock.fileno(), request, NO_NUMBER))[0])
        except (OSError, ValueError):  # closed
            return 0

    def received(self) -> int:
        """Bytes that the client has sent and that arrived here."""
        state, _, received = self._read()
        return data(state, received)

    def acknowledged(self) -> int:
        """Bytes that have arrived at the client."""
        return self._read()[1]

    def sent(self) -> int:
        """Bytes written to the client, by us and by ssh; a FIN of ours would count as one."""
        return self._sent(self._read()[1])

    def _sent(self, acked: int) -> int:
        """Bytes written to the client, `acked` of which it had acknowledged just now.

        What it acknowledges between two readings would be in neither, so it is read again until nothing has come in
        between; of a connection that never rests too much is said, never too little.
        """
        for _ in range(TRIES):
            queued = self._queue(termios.TIOCOUTQ)
            before, acked = acked, self._read()[1]
            if acked == before:
                break
        return acked + queued

    def marks(self) -> "Marks":
        """How far both directions are."""
        state, acked, received = self._read()
        waiting = self._queue(termios.FIONREAD)  # after it, so that what comes in between counts as waiting
        return Marks(data(state, received) - waiting, waiting, self._sent(acked))


def data(state: int, received: int) -> int:
    """`received` without the client's FIN."""
    return received - (1 if state in FIN_RECEIVED and received else 0)

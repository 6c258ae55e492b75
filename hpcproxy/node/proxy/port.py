"""The command `port`: root takes a job's port, and becomes the program that keeps it for the job's tunnel.

    python3 -I agent.pyz port ADDRESS PORT UID PROGRAM ARGUMENT...

PROGRAM finds the descriptor's number in HPCPROXY_LISTENER, and does not find that where the port could not be had.
While a process of root's has it open nobody else can listen there, whatever is killed that serves it: clients wait in
its queue.
"""

import os
import signal
import socket
import sys
from typing import List

BACKLOG = 1024
NAME = "HPCPROXY_LISTENER"


def main(words: List[str]) -> None:
    """Become PROGRAM, with the port or without; who comes after says why."""
    address, port, uid, argv = words[0], int(words[1]), int(words[2]), words[3:]
    os.environ.pop(NAME, None)
    try:
        listener = take(address, port, uid)
    except OSError:
        pass  # the tunnel tries by itself, and has words for what is in its way
    else:
        listener.set_inheritable(True)
        os.environ[NAME] = str(listener.fileno())
    # Held back by whoever loaded us, and so it would stay in all that PROGRAM starts.
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    for number in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_DFL)
    try:
        os.execv(argv[0], argv)
    except OSError as error:
        sys.exit("hpcproxy agent: {}: {}".format(argv[0], error.strerror))


def take(address: str, port: int, uid: int) -> socket.socket:
    """A listener at the port that the kernel shows as that of `uid`; OSError."""
    os.seteuid(uid)  # of the socket's maker, who need not be the one who binds it
    try:
        sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    finally:
        os.seteuid(0)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # only against TIME_WAIT: listeners still exclude
        sock.bind((address, port))
        sock.listen(BACKLOG)
        # From here on nobody may bind beside us, not even while nothing listens (refuse).
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
    except BaseException:
        sock.close()
        raise
    return sock


def adopt(fd: int) -> socket.socket:
    """The listener that root has taken, as the tunnel's own; OSError."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM, 0, fileno=fd)
    try:
        sock.set_inheritable(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # Linux: what is accepted has it from here
        sock.listen(BACKLOG)
    except BaseException:
        sock.close()
        raise
    return sock


def refuse(listener: socket.socket) -> None:
    """Whoever connects is refused from now on, and the port still nobody else's."""
    try:
        listener.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass  # it does not listen any more

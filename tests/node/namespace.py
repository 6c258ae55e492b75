"""A network of a test's own: loopback, a route, and a name server that knows what the test tells it. For root."""

import collections
import contextlib
import ctypes
import os
import socket
import struct
import subprocess
import threading
import time

CLONE_NEWNET = 0x40000000
ADDRESS, ADDRESS6 = "198.51.100.7", "fd00:7::7"  # of the "node" in there; the first is documentation's (RFC 5737)


def ip(*words):
    subprocess.run(["ip", *words], check=True, stdin=subprocess.DEVNULL)


@contextlib.contextmanager
def own_network():
    """This thread and what it starts are in a network namespace of their own, with a route out that leads nowhere."""
    libc = ctypes.CDLL(None, use_errno=True)
    with open("/proc/thread-self/ns/net") as before:
        if libc.unshare(CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), "unshare")
        try:
            ip("link", "set", "lo", "up")
            ip("addr", "add", ADDRESS, "dev", "lo")
            with contextlib.suppress(subprocess.CalledProcessError):  # a kernel without IPv6
                ip("addr", "add", ADDRESS6, "dev", "lo", "nodad")
            set_route(True)
            yield
        finally:
            if libc.setns(before.fileno(), CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), "setns")


def set_route(there):
    """There is a default route, or none."""
    ip("route", "add" if there else "del", "default", "dev", "lo")


def name_servers():
    """Those that the C library asks; resolv.conf(5): where none is named, the one of this machine."""
    with open("/etc/resolv.conf") as file:
        return [words[1] for words in map(str.split, file) if words[:1] == ["nameserver"]] or ["127.0.0.1"]


class NameServer:
    """Answers at the addresses that /etc/resolv.conf names: `names` has addresses by name, all others do not exist.

    A name whose value is None gets no answer. `seen` is what has come of late, for the words of a test that fails.
    """

    def __init__(self):
        self.names = {}
        self.seen = collections.deque(maxlen=20)
        self.sockets = []
        for address in name_servers():
            family = socket.AF_INET6 if ":" in address else socket.AF_INET
            if not address.startswith("127."):
                ip("addr", "replace", address, "dev", "lo")
            sock = socket.socket(family, socket.SOCK_DGRAM)
            sock.bind((address, 53))
            self.sockets.append(sock)
            threading.Thread(target=self._serve, args=(sock,), daemon=True).start()

    def _serve(self, sock):
        while sock.fileno() >= 0:
            try:
                query, client = sock.recvfrom(512)
                answer = self.answer(query)
                self.seen.append((round(time.time(), 3), query[12:40], client, len(answer)))
                if answer:
                    sock.sendto(answer, client)
            except OSError as error:  # an asker that has gone is nobody else's loss
                self.seen.append((round(time.time(), 3), str(error)))

    def answer(self, query):
        end, labels = 12, []
        while query[end]:
            labels.append(query[end + 1 : end + 1 + query[end]].decode())
            end += 1 + query[end]
        name = ".".join(labels).lower()
        if self.names.get(name, ()) is None:
            return b""
        kind = struct.unpack_from(">H", query, end + 1)[0]
        records = [socket.inet_pton(family_of(each), each) for each in self.names.get(name, ())]
        records = [each for each in records if (len(each) == 4) == (kind == 1) and kind in (1, 28)]
        flags = 0x8180 if name in self.names else 0x8183  # NXDOMAIN
        head = query[:2] + struct.pack(">HHHHH", flags, 1, len(records), 0, 0) + query[12 : end + 5]
        return head + b"".join(b"\xc0\x0c" + struct.pack(">HHIH", kind, 1, 0, len(each)) + each for each in records)

    def why(self, agent):
        """What may say why a name was not found."""
        with open("/etc/resolv.conf") as file:
            return time.time(), list(self.seen), file.read(), (agent.state / "log").read_text()

    def close(self):
        for sock in self.sockets:
            sock.close()


def family_of(address):
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def is_root():
    return os.geteuid() == 0

"""What the test of the firewall finds in a network namespace: a greeting on port 80 everywhere, and a name server.

Run as `python far_services.py greet` or `… names NAME=ADDRESS…`; says `ready` when it serves. A name that begins with
`long` is answered by UDP with the truncation bit only, so that the resolver asks again over TCP.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import sys
import threading


def greet() -> None:
    """Say hello on port 80 of every address."""
    with socket.create_server(("::", 80), family=socket.AF_INET6, dualstack_ipv6=True) as server:
        print("ready", flush=True)
        while True:
            client, _ = server.accept()
            with client, contextlib.suppress(OSError):
                client.sendall(b"hello\n")


def answer(question: bytes, known: dict[str, str], *, truncated: bool) -> bytes:
    """Return the reply to one DNS question (RFC 1035, 4.1): one address record, or that there is none."""
    labels, at = [], 12
    while question[at]:
        labels.append(question[at + 1 : at + 1 + question[at]].decode())
        at += question[at] + 1
    name = ".".join(labels)
    wanted = struct.unpack_from(">H", question, at + 1)[0]
    address = known.get(name) if wanted == 1 else None
    short = truncated and name.startswith("long")
    flags = 0x8180 | (0x0200 if short else 0) | (0 if name in known else 3)
    record = (
        b"" if address is None or short else b"\xc0\x0c" + struct.pack(">HHIH", 1, 1, 9, 4) + socket.inet_aton(address)
    )
    return question[:2] + struct.pack(">HHHHH", flags, 1, bool(record), 0, 0) + question[12 : at + 5] + record


def names(known: dict[str, str]) -> None:
    """Answer on port 53 of loopback, UDP and TCP."""
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    udp.bind(("127.0.0.1", 53))
    tcp = socket.create_server(("127.0.0.1", 53))
    threading.Thread(target=over_tcp, args=(tcp, known), daemon=True).start()
    print("ready", flush=True)
    while True:
        question, client = udp.recvfrom(4096)
        udp.sendto(answer(question, known, truncated=True), client)


def over_tcp(server: socket.socket, known: dict[str, str]) -> None:
    """Answer the questions of one connection after the other."""
    while True:
        client, _ = server.accept()
        with client, contextlib.suppress(OSError, struct.error):
            reader = client.makefile("rb")
            while size := reader.read(2):
                reply = answer(reader.read(struct.unpack(">H", size)[0]), known, truncated=False)
                client.sendall(struct.pack(">H", len(reply)) + reply)


if __name__ == "__main__":
    if sys.argv[1] == "greet":
        greet()
    names(dict(word.split("=") for word in sys.argv[2:]))

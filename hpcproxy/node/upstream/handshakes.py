"""The command `handshakes`: with which of these targets a TLS handshake ends well, with a certificate that is verified.

    python3 -I agent.pyz handshakes HOST:PORT…
    python3 -I agent.pyz handshakes --by ADDRESS:PORT --list FILE… HOST:PORT…

A process of its own, so that neither the ssl module nor the threads in which names are looked up stay with the agent,
and one that hangs can be ended. On stdout `ok HOST:PORT` or `no HOST:PORT REASON` for each, all within LIMIT_S seconds.
With `--by` through the HTTP proxy there, and `ca HOST:PORT FILE` where a list of authorities of this system's, FILE,
verifies the certificate, and no `--list` does: then the way there is intercepted.

A connection alone would show nothing: a portal or a transparent proxy takes each.
"""

import os
import queue
import socket
import ssl
import threading
import time
from typing import List, Tuple  # noqa: F401  the comment below

LIMIT_S = 0.9
LIMIT_BY_S = 5.0  # through a tunnel, where a few of them follow each other
HEAD_BYTES = 65536
SILENT = "no answer within {} s".format(LIMIT_S)
# Where systems have what they trust. A Python that was built elsewhere looks elsewhere.
BUNDLES = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
)


def main(words: List[str]) -> None:
    """Never returns: threads that still wait for a name service would be waited for."""
    by, lists = "", []  # type: str, List[str]
    while words[:1] in (["--by"], ["--list"]):
        option, value, *words = words
        if option == "--by":
            by = value
        else:
            lists.append(value)
    deadline = time.monotonic() + (LIMIT_BY_S if by else LIMIT_S)
    context = trusting()
    answers = queue.Queue()  # type: queue.Queue[Tuple[str, str]]  # an annotation would want Python 3.9

    def find_out(place: str) -> None:
        """In a thread."""
        why = shake(context, place, by)
        answers.put((place, "no " + place + " " + why if why else look_closer(place, by, lists)))

    for word in words:
        threading.Thread(target=find_out, args=(word,)).start()
    waiting = set(words)
    while waiting:
        try:
            place, line = answers.get(timeout=max(0.0, deadline - time.monotonic()))
        except queue.Empty:
            break
        waiting.discard(place)
        say(line)
    for place in sorted(waiting):
        say("no {} {}".format(place, SILENT))
    os._exit(0)


def say(line: str) -> None:
    """One line of the answer."""
    os.write(1, (line + "\n").encode("utf-8", "replace"))


def look_closer(place: str, by: str, lists: List[str]) -> str:
    """What is said of `place`, whose certificate this system believes: by which of its lists, if no other does."""
    if not lists or not shake(only(*lists), place, by):
        return "ok {} ".format(place)
    for path in (ssl.get_default_verify_paths().cafile or "", *BUNDLES):
        if path and os.path.isfile(path) and not shake(only(path), place, by):
            return "ca {} {}".format(place, path)
    return "ok {} ".format(place)


def only(*paths: str) -> ssl.SSLContext:
    """What these lists of authorities trust."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    for path in paths:
        try:
            context.load_verify_locations(path)
        except OSError:  # none, or damaged (ssl.SSLError)
            continue
    return context


def trusting() -> ssl.SSLContext:
    """What this system trusts."""
    context = ssl.create_default_context()
    for path in BUNDLES:
        try:
            context.load_verify_locations(path)
        except OSError:  # not this system's, or damaged (ssl.SSLError)
            continue
    return context


def connect(host: str, port: int, by: str) -> socket.socket:
    """A connection to the host, through the HTTP proxy at `by` if there is one; OSError."""
    if not by:
        return socket.create_connection((host, port), LIMIT_S)
    address, _, own_port = by.rpartition(":")
    sock = socket.create_connection((address, int(own_port)), LIMIT_S)
    name = "[{}]".format(host) if ":" in host else host
    sock.sendall("CONNECT {0}:{1} HTTP/1.1\r\nHost: {0}:{1}\r\n\r\n".format(name, port).encode("ascii"))
    head = b""
    while not head.endswith(b"\r\n\r\n") and len(head) < HEAD_BYTES:
        part = sock.recv(1)  # no byte of what follows
        if not part:
            break
        head += part
    if not head.startswith(b"HTTP/1.1 200 "):
        sock.close()
        raise OSError(0, "the tunnel does not reach it")
    return sock


def shake(context: ssl.SSLContext, place: str, by: str = "") -> str:
    """Why there is no verified connection to `place`; "" if there is one."""
    host, _, port = place.rpartition(":")
    host = host.strip("[]")
    try:
        raw = connect(host, int(port), by)
        with raw, context.wrap_socket(raw, server_hostname=host):
            return ""
    except socket.timeout:
        return SILENT
    except ssl.SSLError as error:
        return "its certificate is not verified" if "CERTIFICATE" in (error.reason or "") else "it speaks no TLS"
    except ssl.CertificateError:  # of Python 3.6 no OSError
        return "its certificate is not verified"
    except OSError as error:
        return error.strerror or "it hung up"

"""The command `handshakes`: with which of these targets a TLS handshake ends well, with a certificate that is verified.

    python3 -I agent.pyz handshakes HOST:PORT…

A process of its own, so that neither the ssl module nor the threads in which names are looked up stay with the agent,
and one that hangs can be ended. On stdout `ok HOST:PORT` or `no HOST:PORT REASON` for each, all within LIMIT_S seconds.
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
    deadline = time.monotonic() + LIMIT_S
    context = trusting()
    answers = queue.Queue()  # type: queue.Queue[Tuple[str, str]]  # an annotation would want Python 3.9
    for word in words:
        threading.Thread(target=lambda place: answers.put((place, shake(context, place))), args=(word,)).start()
    waiting = set(words)
    while waiting:
        try:
            place, why = answers.get(timeout=max(0.0, deadline - time.monotonic()))
        except queue.Empty:
            break
        waiting.discard(place)
        say(place, why)
    for place in sorted(waiting):
        say(place, SILENT)
    os._exit(0)


def say(place: str, why: str) -> None:
    """One line of the answer."""
    os.write(1, "{} {} {}\n".format("no" if why else "ok", place, why).encode("utf-8", "replace"))


def trusting() -> ssl.SSLContext:
    """What this system trusts."""
    context = ssl.create_default_context()
    for path in BUNDLES:
        try:
            context.load_verify_locations(path)
        except OSError:  # not this system's, or damaged (ssl.SSLError)
            continue
    return context


def shake(context: ssl.SSLContext, place: str) -> str:
    """Why there is no verified connection to `place`; "" if there is one."""
    host, _, port = place.rpartition(":")
    host = host.strip("[]")
    try:
        raw = socket.create_connection((host, int(port)), LIMIT_S)
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

"""A web server with TLS on loopback, its authority, and the ways in which it can be wrong."""

from __future__ import annotations

import contextlib
import datetime as dt
import email.utils
import ipaddress
import ssl
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


@dataclass
class Internet:
    """One server; `ahead_s` is how far its clock is ahead, `cuts` whether it hangs up on a WebSocket."""

    url: str
    authority: Path
    ahead_s: float = 0
    cuts: bool = False

    @property
    def base(self) -> str:
        """Its address without a path."""
        return self.url.rpartition("/")[0]


def authority(directory: Path, name: str) -> tuple[Path, x509.Certificate, ec.EllipticCurvePrivateKey]:
    """Make an authority; return its file, certificate and key."""
    key = ec.generate_private_key(ec.SECP256R1())
    made = _signed(name, key, name, key, authority=True)
    path = directory / f"{name.replace(' ', '-')}.pem"
    path.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    return path, made, key


def _signed(
    subject: str, key: ec.EllipticCurvePrivateKey, issuer: str, by: ec.EllipticCurvePrivateKey, *, authority: bool
) -> x509.Certificate:
    now = dt.datetime.now(dt.timezone.utc)
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject)]))
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
    )
    names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    return builder.add_extension(names, critical=False).sign(by, hashes.SHA256())


@contextlib.contextmanager
def running(directory: Path, signer: str = "Test Authority") -> Iterator[Internet]:
    """Have the server, with a certificate that the authority `signer` has signed."""
    directory.mkdir(exist_ok=True)
    path, _, by = authority(directory, signer)
    key = ec.generate_private_key(ec.SECP256R1())
    own = _signed("127.0.0.1", key, signer, by, authority=False)
    pem = directory / "server.pem"
    plain = serialization.NoEncryption()
    text = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)
    pem.write_bytes(text + own.public_bytes(serialization.Encoding.PEM))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    internet = Internet("", path)
    server = _Server(("127.0.0.1", 0), _handler(internet))
    server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    internet.url = f"https://127.0.0.1:{server.server_port}/ip"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield internet
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Server(ThreadingHTTPServer):
    def handle_error(self, request: object, client_address: object) -> None:
        """A client that only looks at the certificate is no error."""


def _handler(internet: Internet) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            upgrade = self.headers.get("Upgrade") == "websocket"
            if upgrade and internet.cuts:
                self.close_connection = True
                return
            body = b"" if upgrade else b"203.0.113.7\n"
            self.send_response(101 if upgrade else 200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def date_time_string(self, timestamp: float | None = None) -> str:
            return email.utils.formatdate((timestamp or time.time()) + internet.ahead_s, usegmt=True)

        def log_message(self, *_: object) -> None:
            pass

    return Handler

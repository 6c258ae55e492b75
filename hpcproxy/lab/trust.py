"""The lab's certificate authority: made by `up`, believed by every host of the lab, known nowhere else."""

from __future__ import annotations

import subprocess
from collections.abc import Iterable
from pathlib import Path

from hpcproxy.errors import LabError
from hpcproxy.lab.machine import Machine
from hpcproxy.lab.spec import INTERNET_NAME

AUTHORITY = "/etc/ssl/certs/hpcproxy-lab-ca.pem"
CERTIFICATE = "/etc/internet/server.pem"
PRIVATE_KEY = "/etc/internet/server.key"
# Where programs look: Debian's and Red Hat's bundles. Only those that a host has are extended.
BUNDLES = ("/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem")
_DAYS = "30"
_AUTHORITY_EXTENSIONS = """\
basicConstraints = critical, CA:TRUE
keyUsage = critical, keyCertSign, cRLSign
subjectKeyIdentifier = hash
"""
_SERVER_EXTENSIONS = f"""\
basicConstraints = critical, CA:FALSE
keyUsage = critical, digitalSignature
extendedKeyUsage = serverAuth
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
subjectAltName = DNS:{INTERNET_NAME}, DNS:*.{INTERNET_NAME}
"""


def establish(machines: Iterable[Machine], server: Machine) -> None:
    """Give `server` a certificate for internet.test, whose authority every host trusts with no flag given."""
    work = server.directory("/run/authority", 0o700)
    _request(work, "ca", "/CN=hpcproxy lab test CA")
    _request(work, "server", f"/CN={INTERNET_NAME}")
    _sign(work, "ca", _AUTHORITY_EXTENSIONS, ["-signkey", "ca.key"])
    _sign(work, "server", _SERVER_EXTENSIONS, ["-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial"])
    authority = (work / "ca.pem").read_text()
    digest = _openssl(work, ["x509", "-in", "ca.pem", "-noout", "-subject_hash"]).strip()
    server.put(CERTIFICATE, (work / "server.pem").read_text() + authority)
    server.put(PRIVATE_KEY, (work / "server.key").read_bytes(), 0o600)
    for machine in machines:
        _believe(machine, authority, digest)


def _believe(machine: Machine, authority: str, digest: str) -> None:
    machine.put(AUTHORITY, authority)
    machine.put(f"/etc/ssl/certs/{digest}.0", authority)  # the name by which OpenSSL finds it in a directory
    bundles = [path for path in BUNDLES if machine.path(path).is_file()] or [BUNDLES[0]]
    for bundle in bundles:
        there = machine.path(bundle)
        before = there.read_text() if there.exists() else ""
        machine.put(bundle, before + authority)


def _request(work: Path, name: str, subject: str) -> None:
    _openssl(work, ["ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", f"{name}.key"])
    _openssl(work, ["req", "-new", "-key", f"{name}.key", "-subj", subject, "-out", f"{name}.csr"])


def _sign(work: Path, name: str, extensions: str, by: list[str]) -> None:
    (work / f"{name}.ext").write_text(extensions)
    files = ["-in", f"{name}.csr", "-out", f"{name}.pem", "-extfile", f"{name}.ext"]
    _openssl(work, ["x509", "-req", "-sha256", "-days", _DAYS, *files, *by])


def _openssl(work: Path, arguments: list[str]) -> str:
    done = subprocess.run(["openssl", *arguments], cwd=work, text=True, capture_output=True, timeout=60, check=False)
    if done.returncode != 0:
        raise LabError(f"lab: openssl {' '.join(arguments)} failed: {done.stderr.strip()}")
    return done.stdout

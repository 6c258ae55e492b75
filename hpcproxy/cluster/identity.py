"""The admin's private key, for Paramiko, or that ssh itself must use it. Reads the key, may ask for a passphrase."""

from __future__ import annotations

import subprocess
from pathlib import Path

import paramiko

from hpcproxy import heard
from hpcproxy.cluster.become import Secrets
from hpcproxy.errors import FileError

ONLY_SSH = object()  # a key that is in an ssh-agent, or of a kind that Paramiko does not know
_TRIES = 3


def load(path: Path | None, secrets: Secrets) -> object:
    """Return the key in the file at `path` for Paramiko, None without one, or ONLY_SSH; raises FileError."""
    if path is None:
        return None
    try:
        return paramiko.PKey.from_path(path)
    except OSError as error:
        raise FileError(path, f"cannot be used as a private key: {error.strerror or error}") from None
    except Exception as error:  # noqa: BLE001 - what cryptography raises for what it cannot read is no small set
        fingerprint = _ask("ssh-keygen", "-l", "-f", str(path)).split()
        if len(fingerprint) < 2:  # noqa: PLR2004 - bits, then the fingerprint
            reason = heard.line(str(error)) or type(error).__name__
            raise FileError(path, f"cannot be used as a private key: {reason}") from None
    # Whoever uses an ssh-agent has typed the passphrase there; a key that needs none and that we cannot read is ssh's.
    if fingerprint[1] in _ask("ssh-add", "-l").split() or not _is_shut(path):
        return ONLY_SSH
    return _opened(path, secrets)


def _opened(path: Path, secrets: Secrets) -> object:
    for attempt in range(_TRIES):
        passphrase = secrets.ask(f"passphrase of {path}" + (f", try {attempt + 1}" if attempt else ""))
        if passphrase is None:
            advice = "load it into an ssh-agent with ssh-add, or start this on a terminal"
            raise FileError(path, "is protected by a passphrase", advice)
        try:
            return paramiko.PKey.from_path(path, passphrase.encode())
        except Exception:  # noqa: BLE001, S112 - a wrong passphrase makes cryptography raise one thing or another
            continue
    raise FileError(path, f"is protected by a passphrase, and none of {_TRIES} was right")


def _is_shut(path: Path) -> bool:
    return not _ask("ssh-keygen", "-y", "-P", "", "-f", str(path))


def _ask(*argv: str) -> str:
    """Return what a program of OpenSSH says; nothing if it fails or is not there."""
    try:
        done = subprocess.run(argv, capture_output=True, stdin=subprocess.DEVNULL, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.decode(errors="replace") if done.returncode == 0 else ""

"""More ways to fail, of keys that a jump host takes and that then cannot be used: CASES has them with all others."""

from __future__ import annotations

import base64
import contextlib
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import sshd
from tests.sshd import Sshd
from tests.ways_to_fail import CASES, Case, case

__all__ = ["CASES"]

_KIND = b"sk-ssh-ed25519@openssh.com"


def _string(data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + data


def _security_key(path: Path) -> str:
    """Write the file of a key whose secret is in a device, and return its public half: PROTOCOL.key."""
    public = _string(_KIND) + _string(bytes(range(32))) + _string(b"ssh:")
    private = bytes(8) + public + b"\x01" + _string(b"handle") + _string(b"") + _string(b"test")
    private += bytes(range(1, 9))[: -len(private) % 8]
    parts = [b"none", b"none", b""]
    text = b"openssh-key-v1\0" + b"".join(map(_string, parts)) + struct.pack(">I", 1) + _string(public)
    body = base64.encodebytes(text + _string(private)).decode()
    path.write_text(f"-----BEGIN OPENSSH PRIVATE KEY-----\n{body}-----END OPENSSH PRIVATE KEY-----\n")
    path.chmod(0o600)
    half = f"{_KIND.decode()} {base64.b64encode(public).decode()} test\n"
    Path(f"{path}.pub").write_text(half)
    return half


@case
def _key_in_a_device(_server: Sshd, path: Path) -> Iterator[Case]:
    """ssh-keygen -t ed25519-sk, its default for some sites' users: the file alone signs nothing."""
    with sshd.running(path / "own") as own:
        own.authorized_keys.write_text(_security_key(path / "id_sk"))
        yield "key", f"the key {path}/id_sk needs its security key", {**own.settings, "identity": str(path / "id_sk")}


@contextlib.contextmanager
def _agent_that_asks(key: Path, path: Path) -> Iterator[None]:
    """Have an ssh-agent with `key` that wants each use confirmed, and nobody there to do so."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SSH_AUTH_SOCK", str(path / "agent"))
        patch.setenv("SSH_ASKPASS", "/bin/false")
        with subprocess.Popen(["ssh-agent", "-D", "-a", path / "agent"], stdout=subprocess.PIPE) as agent:
            try:
                assert agent.stdout is not None
                assert agent.stdout.readline()
                subprocess.run(["ssh-add", "-q", "-c", key], check=True)
                yield
            finally:
                agent.terminate()


@case
def _agent_that_does_not_sign(_server: Sshd, path: Path) -> Iterator[Case]:
    """ssh-add -c, a locked keyring, a token that wants a finger."""
    with sshd.running(path / "own") as own, _agent_that_asks(own.identity, path):
        own.identity.unlink()
        settings = {**own.settings, "identity": f"{own.identity}.pub"}
        yield "key", "with which the ssh-agent then did not sign", settings

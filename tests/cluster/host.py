"""A directory that stands for a host's file system, with a real bash at the other end of the wire."""

from __future__ import annotations

import getpass
import signal
import subprocess
from pathlib import Path

import pytest

from hpcproxy.cluster import protocol
from hpcproxy.files.plan import Artifact
from hpcproxy.files.render import Bundle, File
from tests import modest
from tests.cluster.cases import script_of

ME = getpass.getuser()
TOKEN = "hpcproxy-token"  # noqa: S105 - no secret: it marks lines
BETWEEN_TWO = b'files=()\n        for path in "${paths[@]}"; do\n'  # directories that files are renamed into


class Host:
    """A directory that stands for a host's file system."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.root = root
        monkeypatch.setattr(protocol, "STORE", root / "store")
        monkeypatch.setattr(protocol, "LOCK_FILE", root / "lock")
        monkeypatch.setattr(protocol, "RUN", root / "run")
        (root / "etc").mkdir()

    def bundle(self, **contents: str) -> Bundle:
        """Files in two directories: `a_` in etc/a.d, others in lib, which is not there yet."""
        files = []
        for name, text in contents.items():
            folder = self.root / ("etc/a.d" if name.startswith("a_") else "lib/ours")
            files.append(File(Artifact(name, "t", folder / name, 0o644, "", ME), text.encode()))
        return Bundle(tuple(files))

    def talk(self, message: bytes) -> protocol.Answer:
        done = subprocess.run(
            modest.argv("/bin/bash", "-p", "-s"), input=message, capture_output=True, check=True, timeout=20
        )
        assert done.stderr == b""
        return protocol.parse(done.stdout, TOKEN)

    def altered(self, bundle: Bundle, where: bytes, words: bytes) -> bytes:
        """Return the message that applies `bundle`, with `words` before `where` in its script."""
        script = script_of(protocol.message(bundle, "apply", TOKEN))
        assert script.count(where) == 1
        place = protocol.Place(protocol.STORE, protocol.LOCK_FILE)
        return protocol.framed(script.replace(where, words + where), protocol.archive(bundle.files, place))

    def cut_off(self, bundle: Bundle, moment: bytes) -> None:
        """Begin to apply `bundle`; the host's end of it is killed at `moment`."""
        kill = b"((number == 0)) || kill -9 $$; " if moment == BETWEEN_TWO else b"kill -9 $$; "
        message = self.altered(bundle, moment, kill)
        done = subprocess.run(modest.argv("/bin/bash", "-p", "-s"), input=message, check=False, timeout=20)
        assert done.returncode == -signal.SIGKILL

    def do(self, action: str, bundle: Bundle, *, want_content: bool = False) -> protocol.Answer:
        return self.talk(protocol.message(bundle, action, TOKEN, want_content=want_content))

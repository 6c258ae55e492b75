"""Which OpenSSH is here: what only a newer one has is absent from a release, and has not failed there.

And what stands for it in a test: a configuration, a wrapper.
"""

from __future__ import annotations

import contextlib
import functools
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from hpcproxy import floors

# Not the one that the tests' `home` puts first.
SSH = shutil.which("ssh", path="/usr/local/bin:/usr/bin:/bin") or "ssh"

# Since when ssh knows what our tests have in its configuration (readconf.c), or does what they want of it.
SINCE: dict[str, floors.Version] = {
    "KnownHostsCommand": (8, 5),
    "LogVerbose": (8, 5),
    "a comment behind a value": (8, 7),
    "an error for a Host without a name": (8, 7),
    "sntrup761x25519-sha512@openssh.com": (8, 5),
    "SessionType": (8, 7),
    "ForkAfterAuthentication": (8, 7),
    "RequiredRSASize": (9, 1),
}


@functools.cache
def version() -> floors.Version:
    """Return the version that `ssh -V` says, 9.2 as (9, 2)."""
    said = subprocess.run(["ssh", "-V"], capture_output=True, text=True, check=True).stderr
    return floors.version(said.partition("OpenSSH_")[2].partition("p")[0])


def knows(what: str) -> bool:
    """Whether it has `what`, one of SINCE."""
    return version() >= SINCE[what]


def needs(what: str) -> None:
    """Skip the test where it has not."""
    if not knows(what):
        pytest.skip(f"{what}: from OpenSSH {'.'.join(map(str, SINCE[what]))} on")


@contextlib.contextmanager
def stood_for(path: Path, text: str) -> Iterator[None]:
    """Have this script stand for ssh; SSH in it is the real one, with the configuration `path`/ssh_config."""
    (path / "bin").mkdir()
    script = path / "bin" / "ssh"
    script.write_text(f"#!/bin/sh\n{text.replace('SSH', f'{SSH} -F {path}/ssh_config')}\n")
    script.chmod(0o755)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", f"{path}/bin:{os.environ['PATH']}")
        yield

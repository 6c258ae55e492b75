"""Root file systems of other Debian releases, for hosts of the lab: fetched once, kept whole or not at all."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path

from hpcproxy.errors import LabError
from hpcproxy.lab import packages
from hpcproxy.lab.command import tail
from hpcproxy.lab.rootfs import PYTHON

CACHE = Path("/var/cache/hpcproxy-lab")
PACKAGES = (
    "python3",
    "curl",
    "ca-certificates",
    "openssh-client",
    "openssh-server",
    "openssl",
    "iproute2",
    "procps",
    "util-linux",
    "nftables",
    "sudo",
    "git",
    "slurmctld",
    "slurmd",
    "slurm-client",
    "munge",
)
_LEFT_OUT = ("/usr/share/doc/*", "/usr/share/man/*", "/usr/share/locale/*")
_DEFAULT_MIRROR = "http://deb.debian.org/debian"
_TIMEOUT_S = 1800.0


def directory(suite: str) -> Path:
    """Return where the root file system of `suite` is kept; another list of packages is another place."""
    digest = hashlib.sha256(" ".join((*PACKAGES, *_LEFT_OUT, *_needed())).encode()).hexdigest()[:12]
    return CACHE / f"{suite}-{digest}"


def fetch(suite: str, on_step: Callable[[str], None] = print, timeout_s: float = _TIMEOUT_S) -> Path:
    """Return the root file system of `suite`, made now if it is not there: 1 to 2 minutes, 0.5 GB. Raises LabError.

    It is given up when one of the programs that make it takes longer than `timeout_s`.
    It is made under another name and renamed: what is there is whole. Two labs that need it wait for one another.
    """
    there = directory(suite)
    if there.is_dir():
        return there
    packages.ensure({"mmdebstrap": "mmdebstrap"}, on_step)
    CACHE.mkdir(mode=0o755, parents=True, exist_ok=True)
    with _locked(CACHE / f"{suite}.lock"):
        if not there.is_dir():
            on_step(f"making a root file system of {suite}, 1 to 2 minutes")
            try:
                _make(suite, there, timeout_s)
            finally:
                shutil.rmtree(there.with_name(f"{there.name}.part"), ignore_errors=True)
    return there


def wheels(suite: str, wanted: Sequence[str], on_step: Callable[[str], None] = print) -> Path:
    """Return a directory with `wanted`, requirements as pip has them, for the python of `suite`. Raises LabError.

    For PYTHONPATH. Kept as the root file system is. pip asks its own python, not that of `suite`, which requirements a
    condition excludes; so who wants those of an older python names them.
    """
    digest = hashlib.sha256(" ".join(wanted).encode()).hexdigest()[:12]
    root = fetch(suite, on_step)
    there = root.with_name(f"{root.name}-wheels-{digest}")
    with _locked(CACHE / f"{suite}.lock"):
        if not there.is_dir():
            draft = there.with_name(f"{there.name}.part")
            shutil.rmtree(draft, ignore_errors=True)
            on_step(f"wheels for the python of {suite}")
            _install(wanted, _python(root), draft)
            draft.rename(there)
    return there


def _make(suite: str, there: Path, timeout_s: float) -> None:
    draft = there.with_name(f"{there.name}.part")
    shutil.rmtree(draft, ignore_errors=True)  # of one that was cut off; nobody else holds the lock
    options = [
        "--mode=root",
        "--variant=minbase",
        '--aptopt=APT::Install-Recommends "false"',
        '--aptopt=Acquire::Check-Valid-Until "false"',  # a mirror may be a snapshot; signatures are checked
        *(f"--dpkgopt=path-exclude={path}" for path in _LEFT_OUT),
        f"--include={','.join(PACKAGES)}",
    ]
    command = ["mmdebstrap", *options, suite, str(draft), _mirror()]
    _call(command, f"no root file system of {suite} can be made here", timeout_s)
    _add_python(draft, timeout_s)
    draft.rename(there)


def _add_python(root: Path, timeout_s: float) -> None:
    """Give the release's python, in an environment at `PYTHON`, the wheels of what hpcproxy needs.

    By this machine's pip: nothing of the release runs with the machine's network.
    """
    version = _python(root)
    site = root / PYTHON[1:] / "lib" / f"python{version}" / "site-packages"
    _install(_needed(), version, site, timeout_s)
    (root / PYTHON[1:] / "pyvenv.cfg").write_text(f"home = /usr/bin\nversion = {version}\n")
    (root / PYTHON[1:] / "bin").mkdir()


def _python(root: Path) -> str:
    asked = ["chroot", str(root), "python3", "-c", "import sys; print('%d.%d' % sys.version_info[:2])"]
    return _call(asked, "its python does not run").strip()


def _install(wanted: Sequence[str], version: str, there: Path, timeout_s: float = _TIMEOUT_S) -> None:
    there.mkdir(parents=True)
    platforms = [f"--platform={name}_{os.uname().machine}" for name in ("manylinux2014", "manylinux_2_28")]
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--target", str(there), "--only-binary=:all:"]
    command += ["--python-version", version, *platforms, *wanted]
    _call(command, f"pip has no wheels of {', '.join(wanted)} for Python {version}", timeout_s)


def _call(command: list[str], failure: str, timeout_s: float = _TIMEOUT_S) -> str:
    """Return what `command` prints; raises LabError with `failure` and the command's last words."""
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout_s, check=False
        )
    except subprocess.TimeoutExpired:
        raise LabError(f"{failure}: {command[0]} is not done after {timeout_s:.0f} s") from None
    if done.returncode != 0:
        raise LabError(f"{failure}: {tail(done.stderr, 3)}")
    return done.stdout


def _needed() -> list[str]:
    """Return the requirements of hpcproxy and of its demo."""
    every = [text.partition(";") for text in metadata.requires("hpcproxy") or ()]
    return [name.strip() for name, _, marker in every if marker.strip() in ("", "extra == 'demo'", 'extra == "demo"')]


def _mirror() -> str:
    """Return the archive that apt uses here for Debian's own suites."""
    command = ["apt-get", "indextargets", "--format", "$(REPO_URI)"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    found = [uri.rstrip("/") for uri in done.stdout.split()]
    return next((uri for uri in found if uri.endswith("/debian")), _DEFAULT_MIRROR)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)

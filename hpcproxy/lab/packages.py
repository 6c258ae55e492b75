"""The system programs that the lab and the tests need, and how they get onto the machine."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from hpcproxy.errors import LabError
from hpcproxy.lab.command import PATH, tail

# Each maps a program, or a file by its whole path, to Debian's package.
LAB_TOOLS: Mapping[str, str] = {
    "slurmctld": "slurmctld",
    "slurmd": "slurmd",
    "sbatch": "slurm-client",
    "munged": "munge",
    "sshd": "openssh-server",
    "ssh": "openssh-client",
    "ssh-keygen": "openssh-client",
    "ip": "iproute2",
    "bridge": "iproute2",
    "nsenter": "util-linux",
    "setpriv": "util-linux",
    "openssl": "openssl",
    "curl": "curl",
    "nft": "nftables",
}
TEST_TOOLS: Mapping[str, str] = {
    "dash": "dash",
    "zsh": "zsh",
    "fish": "fish",
    "tcsh": "tcsh",
    "git": "git",
    "ssh": "openssh-client",
    "ssh-keygen": "openssh-client",
    "sshd": "openssh-server",
    "curl": "curl",
    "wget": "wget",
    "openssl": "openssl",
    "nft": "nftables",
    "sudo": "sudo",
    # To build the SPANK plugin.
    "cc": "gcc",
    "make": "make",
    "/usr/include/stdio.h": "libc6-dev",
    "/usr/include/slurm/spank.h": "libslurm-dev",
    # What Lmod and Environment Modules run on; they themselves exclude each other, and tests unpack them.
    "lua5.3": "lua5.3",
    "/usr/share/lua/5.3/json.lua": "lua-json",
    "/usr/share/lua/5.3/posix/init.lua": "lua-posix",
    "/usr/share/lua/5.3/term/init.lua": "lua-term",
    "/usr/share/doc/lua-filesystem/copyright": "lua-filesystem",
    "tclsh": "tcl",
    "groff": "groff-base",
}
# Checkers of shell style: Debian 11 has no shfmt, and the tests of the style are skipped there.
STYLE_TOOLS: Mapping[str, str] = {"shellcheck": "shellcheck", "shfmt": "shfmt"}
_UNITS = ("slurmctld", "slurmd", "munge", "ssh", "nftables")
_UNIT_DIRECTORIES = ("/lib/systemd/system", "/usr/lib/systemd/system")
_POLICY = Path("/usr/sbin/policy-rc.d")
_POLICY_TEXT = "#!/bin/sh\n# hpcproxy lab: no service starts while its package is being installed\nexit 101\n"
_APT_TIMEOUT_S = 900


def require_privilege() -> None:
    """Return on Linux as root; raises LabError elsewhere."""
    if not sys.platform.startswith("linux"):
        raise LabError(f"the lab needs Linux, this is {sys.platform}")
    if os.geteuid() != 0:
        raise LabError("the lab needs root, to make network namespaces and run Slurm; use sudo")


def missing(tools: Mapping[str, str]) -> list[str]:
    """Return the programs and files of `tools` that are not on this machine."""
    return [
        name for name in tools if not (Path(name).exists() if name.startswith("/") else shutil.which(name, path=PATH))
    ]


def ensure(tools: Mapping[str, str], on_step: Callable[[str], None] = print) -> None:
    """Bring every program of `tools` onto this machine with apt-get; raises LabError naming what cannot be had.

    No service of a package installed here starts, now or at the next boot.
    """
    lacking = missing(tools)
    if not lacking:
        return
    packages = sorted({tools[program] for program in lacking})
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise LabError(f"missing programs: {', '.join(lacking)}; as root: apt-get install {' '.join(packages)}")
    on_step(f"installing {', '.join(packages)}")
    units_before = _units()
    with _no_service_starts():
        _install(packages)
    for unit in _units() - units_before:
        if shutil.which("systemctl"):
            subprocess.run(["systemctl", "disable", "--quiet", unit], check=False, capture_output=True)
    if missing(tools):
        raise LabError(f"missing programs: {', '.join(missing(tools))}; apt-get did not bring them")


def ensure_if_possible(tools: Mapping[str, str], on_step: Callable[[str], None] = print) -> None:
    """Bring onto this machine those programs of `tools` that can be had, and say of each other one why not."""
    for program in missing(tools):
        _try({program: tools[program]}, on_step)


def _try(tools: Mapping[str, str], on_step: Callable[[str], None]) -> None:
    try:
        ensure(tools, on_step)
    except LabError as error:
        on_step(f"without {', '.join(tools)}: {error}")


def _install(packages: list[str]) -> None:
    if _apt("install", *packages).returncode == 0:
        return
    _apt("update")  # a fresh machine has no package lists
    done = _apt("install", *packages)
    if done.returncode != 0:
        raise LabError(f"missing packages: {', '.join(packages)}; apt-get install failed: {tail(done.stderr, 3)}")


def _apt(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = ["apt-get", "--quiet", "--yes", "--no-install-recommends", *arguments]
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    return subprocess.run(
        command,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=_APT_TIMEOUT_S,
        check=False,
    )


@contextmanager
def _no_service_starts() -> Iterator[None]:
    """Keep packages from starting daemons (Debian policy 9.3.3.1) while it lasts; an admin's own policy stays."""
    if _POLICY.exists() and _POLICY.read_text() != _POLICY_TEXT:
        yield
        return
    _POLICY.write_text(_POLICY_TEXT)
    _POLICY.chmod(0o755)
    try:
        yield
    finally:
        _POLICY.unlink(missing_ok=True)


def _units() -> set[str]:
    return {unit for unit in _UNITS for root in _UNIT_DIRECTORIES if Path(root, f"{unit}.service").exists()}

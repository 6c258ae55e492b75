"""Checks of this machine and of this account's settings and files. Starts programs to ask their version."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from hpcproxy.account import checks
from hpcproxy.config.places import PROGRAMS
from hpcproxy.doctor.finding import Check, Finding, bad, good, untried
from hpcproxy.doctor.patient import Patient

INIT = "hpcproxy init --jump USER@HOST"
INSTALL = "hpcproxy install-bashrc"
_ROOM_BYTES = 16 << 20


def _programs(patient: Patient) -> Finding:
    old = checks.too_old(patient.account.environ)
    return bad("; ".join(old), "ask your site for newer ones; README.md says which") if old else good("new enough")


def _room(patient: Patient) -> Finding:
    base = Path(patient.account.environ.get("TMPDIR") or "/tmp")  # noqa: S108 - only looked at
    if not base.is_dir() or not os.access(base, os.W_OK | os.X_OK):
        return bad(f"TMPDIR is {base}, in which nothing can be made", f"mkdir -p {base}, or: unset TMPDIR")
    left = os.statvfs(base)
    if left.f_bavail * left.f_frsize < _ROOM_BYTES or (left.f_files and not left.f_favail):
        return bad(f"{base} is full", f"make room in {base}, or have TMPDIR lead elsewhere")
    return good(f"there is room in {base}")


def _directory(patient: Patient) -> Finding:
    path = patient.account.home.directory
    try:
        status = path.stat()
    except FileNotFoundError:
        return good(f"{path} is not there yet")
    except OSError as error:
        return bad(f"{path} cannot be looked at: {error.strerror}", f"ls -ld {path} {path.parent}")
    if not stat.S_ISDIR(status.st_mode):
        return bad(f"{path} is no directory", f"mv {path} {path}.old")
    if status.st_uid not in {os.geteuid(), 0}:
        return bad(f"{path} belongs to somebody else (uid {status.st_uid})", f"mv {path} {path}.old")
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        return bad(f"others may write in {path}, whose scripts your shells run", f"chmod go-w {path}")
    return good(f"{path} is yours alone to change")


def _settings(patient: Patient) -> Finding:
    patient.config()
    path = patient.account.home.config
    return good(str(path) if path.exists() else "none of your own yet; the defaults are in force")


def _named(patient: Patient) -> Finding:
    config = patient.config()
    if not config.uses_ssh:
        return good(f"none is needed with `via: {config.via}`")
    jumps = config.jump
    if jumps:
        return good(", ".join(map(str, jumps)))
    error = patient.account.environ.get("HPCPROXY_ERROR")
    if error:
        return bad(f"your site's own tunnel is not there on this node: {error}", "ask your admin, with this line")
    if any(tunnel.ready for tunnel in patient.tunnel()):
        return good("none is yours, and your site's own tunnel is up here")
    if (PROGRAMS / "job.sh").exists():
        return untried("none is yours; your site's own tunnel serves your jobs")
    return bad("no jump host is configured", INIT)


def _installed(patient: Patient) -> Finding:
    if patient.config().lacks_jump_host:
        return good("none are needed for your site's own tunnel")
    drifted = checks.drift(patient.bundle())
    if not drifted:
        return good("as the settings say")
    names = ", ".join(path.name for path in drifted)
    missing = [path for path in drifted if not path.exists()]
    what = "missing" if len(missing) == len(drifted) else "missing, or older than the settings"
    return bad(f"{what} in {patient.account.home.directory}: {names}", INSTALL)


CHECKS: tuple[Check[Patient], ...] = (
    Check(
        "programs",
        "this machine",
        "Are ssh, bash, coreutils, Slurm and the kernel new enough?",
        "ask your site for newer ones; README.md says which",
        _programs,
    ),
    Check(
        "room", "this machine", "Can files be made in TMPDIR, and is there room?", "make room, or unset TMPDIR", _room
    ),
    Check(
        "directory",
        "settings",
        "Is `~/.hpcproxy` yours alone to change?",
        "chmod go-w ~/.hpcproxy",
        _directory,
    ),
    Check("settings", "settings", "Can the settings be read, and is every value valid?", "mend that line", _settings),
    Check("jump host", "settings", "Is a jump host configured?", INIT, _named, ("settings",)),
    Check(
        "installed files",
        "settings",
        "Are the installed files those that the settings amount to?",
        INSTALL,
        _installed,
        ("directory", "jump host"),
    ),
)

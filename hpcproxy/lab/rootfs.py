"""The file system of one lab host, made of mounts in the calling process's own mount namespace.

Afterwards the machine's files are visible but read-only, except for what a host must own: its /etc, /run, /tmp, /dev,
/root, /home and the changing parts of /var are its own, in memory, and vanish with the namespace.
"""

from __future__ import annotations

import codecs
import errno
import os
import stat
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from hpcproxy.lab.kernel import (
    MS_BIND,
    MS_MOVE,
    MS_NODEV,
    MS_NOEXEC,
    MS_NOSUID,
    MS_PRIVATE,
    MS_RDONLY,
    MS_REC,
    MS_REMOUNT,
    detach,
    enter_root,
    mount,
)

OWN_DIRECTORIES = {
    "/run": 0o755,
    "/tmp": 0o1777,  # noqa: S108  the host's own
    "/root": 0o711,  # others may pass: the python that runs the lab may live below
    "/mnt": 0o755,
    "/srv": 0o755,
    "/var/cache": 0o755,
    "/var/lib": 0o755,
    "/var/log": 0o755,
    "/var/spool": 0o755,
    "/var/tmp": 0o1777,  # noqa: S108
}
DEVICES = ("full", "null", "random", "tty", "urandom", "zero")
DEVICE_LINKS = {
    "fd": "/proc/self/fd",
    "ptmx": "pts/ptmx",
    "stderr": "/proc/self/fd/2",
    "stdin": "/proc/self/fd/0",
    "stdout": "/proc/self/fd/1",
}
# Settings of this machine's owner that would lead the lab's programs astray, and its secrets.
PYTHON = "/opt/hpcproxy-lab"  # in a release's root file system: an environment with what hpcproxy needs
FOREIGN_ETC = (
    "environment",
    "gitconfig",
    "krb5.keytab",
    "munge",
    "npmrc",
    "pip.conf",
    "profile.d",
    "resolv.conf",
    "slurm",
    "ssh",
    "sudoers.d",
)
_MOUNTINFO = "unicode_escape"  # proc(5) writes a blank in a path as \\040
_OLD = "/.machine"
_FLAGS = {"nosuid": MS_NOSUID, "nodev": MS_NODEV, "noexec": MS_NOEXEC}


@dataclass(frozen=True)
class Release:
    """Another release's files, below `root`; its python takes the place of ours at `prefix` and knows `package`."""

    root: Path
    prefix: str
    name: str
    package: str


def build(exposed: Iterable[Path], own_home: bool, gpus: int, release: Release | None = None) -> None:
    """Put the calling process, alone in its mount and PID namespace, on a host's own file system.

    The `exposed` paths are shown in the order in which they are given: a link after what it leads to. With `release`
    the files are those below that directory and not this machine's.
    """
    os.umask(0o022)
    mount("none", "/", flags=MS_REC | MS_PRIVATE)
    kept = {path: os.open(path, os.O_PATH) for path in exposed}
    own = _own_directories(kept, own_home)
    devices = _devices(gpus)
    if release is not None:
        codecs.lookup(_MOUNTINFO)  # now: in a moment our own modules are out of reach
        shared = [Path("/sys"), *([] if own_home else [Path("/home")])]
        kept = {**{path: os.open(path, os.O_PATH) for path in shared}, **kept}
        _enter_release(release.root, own)
    mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC)
    etc = os.open("/etc", os.O_PATH)
    for path, mode in own.items():
        mount("tmpfs", path, "tmpfs", MS_NODEV, f"mode={mode:o}")
    _own_etc(etc)
    _own_dev(devices)
    _own_entries("/usr/libexec")
    for wanted, descriptor in kept.items():
        _show(wanted, descriptor)
        os.close(descriptor)
    if release is not None:
        _show_python(release)
        detach(_OLD)  # what is shown is mounted by now; from a mount outside of this namespace it could not be
        Path(_OLD).rmdir()
    _protect((*own, "/etc", "/dev", "/home", "/proc", "/sys", "/usr/libexec"))


def _own_directories(exposed: Iterable[Path], own_home: bool) -> dict[str, int]:
    """Return the directories to cover: the fixed ones, and those that hide an exposed path from ordinary users."""
    own = {path: mode for path, mode in OWN_DIRECTORIES.items() if Path(path).is_dir()}
    if own_home:
        own["/home"] = 0o755
    for path in exposed:
        for parent in reversed(path.parents):
            if str(parent) in own:
                break
            if not parent.stat().st_mode & stat.S_IXOTH:
                own[str(parent)] = 0o711
                break
    return own


def _enter_release(release: Path, own: Iterable[str]) -> None:
    """Make another release's files, with what this host writes over them in memory, the root of all."""
    mount("tmpfs", "/mnt", "tmpfs", MS_NODEV, "mode=755")
    for name in ("above", "work", "root"):
        Path("/mnt", name).mkdir()
    layers = f"lowerdir={release},upperdir=/mnt/above,workdir=/mnt/work"
    mount("overlay", "/mnt/root", "overlay", 0, layers)
    Path("/mnt/root", _OLD[1:]).mkdir()
    enter_root("/mnt/root", _OLD)
    for path in own:
        Path(path).mkdir(parents=True, exist_ok=True)


def _show_python(release: Release) -> None:
    """Make the release's environment visible where ours is outside, by the name that ours has."""
    there = Path(PYTHON)
    for name in {"python", "python3", release.name}:
        (there / "bin" / name).symlink_to("/usr/bin/python3")
    (site,) = there.glob("lib/python*/site-packages")
    (site / "hpcproxy.pth").write_text(f"{release.package}\n")
    prefix = Path(release.prefix)
    prefix.mkdir(parents=True, exist_ok=True)
    mount(PYTHON, release.prefix, flags=MS_BIND)


def _own_etc(original: int) -> None:
    """Make /etc this host's copy, without the machine's secrets and its owner's settings."""
    Path("/run/etc").mkdir()
    mount("tmpfs", "/run/etc", "tmpfs", MS_NODEV, "mode=755")
    source = f"/proc/{os.getpid()}/fd/{original}/."
    subprocess.run(["cp", "-a", source, "/run/etc"], check=True, stdin=subprocess.DEVNULL, pass_fds=(original,))
    os.close(original)
    foreign = [f"/run/etc/{name}" for name in FOREIGN_ETC]
    subprocess.run(["rm", "-rf", "--", *foreign], check=True, stdin=subprocess.DEVNULL)
    mount("/run/etc", "/etc", flags=MS_MOVE)
    Path("/run/etc").rmdir()


def _devices(gpus: int) -> dict[str, int]:
    """Return descriptors of the harmless devices, and of `gpus` that stand in for GPUs, by name."""
    devices = {**{name: name for name in DEVICES}, **{f"gpu{number}": "null" for number in range(gpus)}}
    return {name: os.open(f"/dev/{source}", os.O_PATH) for name, source in devices.items()}


def _own_dev(descriptors: dict[str, int]) -> None:
    """Cover /dev: these devices, and terminals of its own."""
    mount("tmpfs", "/dev", "tmpfs", MS_NOSUID | MS_NOEXEC, "mode=755")
    for name, descriptor in descriptors.items():
        _show(Path("/dev", name), descriptor)
        os.close(descriptor)
    for name, target in DEVICE_LINKS.items():
        Path("/dev", name).symlink_to(target)
    for name in ("pts", "shm"):
        Path("/dev", name).mkdir()
    mount("tmpfs", "/dev/shm", "tmpfs", MS_NOSUID | MS_NODEV, "mode=1777")  # noqa: S108
    mount("devpts", "/dev/pts", "devpts", MS_NOSUID | MS_NOEXEC, "newinstance,ptmxmode=0666,mode=620,gid=5")


def _own_entries(directory: str) -> None:
    """Let new entries be made in `directory`, while those of the machine stay visible."""
    if not Path(directory).is_dir():
        return
    names = sorted(entry.name for entry in Path(directory).iterdir())
    original = os.open(directory, os.O_PATH)
    mount("tmpfs", directory, "tmpfs", MS_NODEV, "mode=755")
    for name in names:
        descriptor = os.open(name, os.O_PATH | os.O_NOFOLLOW, dir_fd=original)
        there = Path(directory, name)
        if stat.S_ISLNK(os.fstat(descriptor).st_mode):
            there.symlink_to(os.readlink(name, dir_fd=original))
        else:
            _show(there, descriptor)
        os.close(descriptor)
    os.close(original)


def _show(path: Path, descriptor: int) -> None:
    """Make what `descriptor` holds visible at `path`."""
    kept = os.fstat(descriptor)
    if path.exists() and os.path.samestat(path.stat(), kept):
        return
    if stat.S_ISDIR(kept.st_mode):
        path.mkdir(parents=True, exist_ok=True)
    else:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    mount(f"/proc/self/fd/{descriptor}", str(path), flags=MS_BIND | MS_REC)


def _protect(own: Iterable[str]) -> None:
    """Make every mount but the host's own read-only here; the machine itself sees no difference."""
    keep = set(own)
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        target, options = line.split()[4:6]
        if target in keep or target.startswith(("/proc/", "/sys/", "/dev/")):
            continue
        flags = sum(_FLAGS.get(option, 0) for option in options.split(","))
        path = target.encode().decode(_MOUNTINFO)
        try:
            mount("none", path, flags=MS_REMOUNT | MS_BIND | MS_RDONLY | flags)
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.EINVAL):  # hidden below a mount of the host's own
                raise

"""The few Linux calls that Python lacks: unshare(2), mount(2), pivot_root(2). They change the caller at once."""

from __future__ import annotations

import ctypes
import os

# <linux/sched.h>
CLONE_NEWNS = 0x00020000
CLONE_NEWCGROUP = 0x02000000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000
# <linux/mount.h>
MS_RDONLY = 1
MS_NOSUID = 2
MS_NODEV = 4
MS_NOEXEC = 8
MS_REMOUNT = 32
MS_BIND = 4096
MS_MOVE = 8192
MS_REC = 16384
MS_PRIVATE = 1 << 18
MNT_DETACH = 2
_SYS_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}  # <asm/unistd.h>; glibc has no function for it


def unshare(flags: int) -> None:
    """Give the calling process namespaces of `flags` of its own (CLONE_NEWPID: to its children)."""
    if _libc().unshare(flags) != 0:
        raise _error(f"unshare {flags:#x}")


def mount(source: str, target: str, fstype: str = "", flags: int = 0, data: str = "") -> None:
    """Make `source` appear on `target`; the OSError names the target."""
    words = [word.encode() if word else None for word in (source, target, fstype)]
    if _libc().mount(*words, ctypes.c_ulong(flags), data.encode() if data else None) != 0:
        raise _error(f"mount {fstype or source} on {target}")


def enter_root(path: str, old: str) -> None:
    """Make the mount at `path` the root of this mount namespace; the one before is at `old` below the new one."""
    if _libc().syscall(_SYS_PIVOT_ROOT[os.uname().machine], path.encode(), f"{path}{old}".encode()) != 0:
        raise _error(f"pivot_root to {path}")
    os.chdir("/")


def detach(path: str) -> None:
    """Take the mount at `path`, and what is below it, out of this mount namespace."""
    if _libc().umount2(path.encode(), MNT_DETACH) != 0:
        raise _error(f"umount {path}")


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _error(doing: str) -> OSError:
    number = ctypes.get_errno()
    return OSError(number, f"{doing}: {os.strerror(number)}")

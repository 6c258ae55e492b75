"""Cgroups of version 2 for a lab's compute nodes, a tree for each, so that Slurm's proctrack/cgroup is real.

They stand in this machine's own version 2, whichever controllers that has, and go with the lab. Where the machine has
version 1 beside it, the kernel names both in /proc/PID/cgroup, and slurmd refuses to start: it runs with a library that
shows it the line of version 2 only.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import time
from pathlib import Path

from hpcproxy.errors import LabError
from hpcproxy.lab.command import tail
from hpcproxy.lab.kernel import MS_NODEV, MS_NOEXEC, MS_NOSUID, detach, mount

HERE = "/sys/fs/cgroup"
CONF = "CgroupPlugin=cgroup/v2\nIgnoreSystemd=yes\n"
# Found on PATH before the real one. Whoever starts it, slurmd is in the node's own tree.
_BEFORE = "/usr/local/sbin"
STARTER = f"{_BEFORE}/slurmd"
LIBRARY = f"{_BEFORE}/only-version-2.so"
_STARTER = f"""#!/bin/sh
mkdir -p {HERE}/slurmd
echo 0 >{HERE}/slurmd/cgroup.procs || exit
set -- /usr/sbin/slurmd "$@"
[ ! -e {LIBRARY} ] || set -- env LD_PRELOAD={LIBRARY} "$@"
exec nsenter --cgroup=/proc/1/ns/cgroup "$@"
"""
_ABOVE = "hpcproxy-lab"
_BUSY_S = 5.0
_SOURCE = r"""
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdarg.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

/* The descriptor of a file with that line of `given` that begins with 0::, which is version 2. */
static int only_version_2(int given)
{
    char text[16384], *line = text, *end;
    ssize_t size = read(given, text, sizeof text - 1);
    int shown = syscall(SYS_memfd_create, "cgroup", 1U);

    close(given);
    text[size < 0 ? 0 : size] = '\0';
    while (strncmp(line, "0::", 3) != 0) {
        line = strchr(line, '\n');
        if (line == NULL)
            return shown;
        line++;
    }
    end = strchr(line, '\n');
    size = write(shown, line, end == NULL ? strlen(line) : (size_t)(end - line) + 1);
    lseek(shown, 0, SEEK_SET);
    return shown;
}

static int opened(const char *path, int flags, int mode)
{
    size_t length = strlen(path);
    int found = syscall(SYS_openat, AT_FDCWD, path, flags, mode);

    if (found < 0 || length < 12 || strncmp(path, "/proc/", 6) != 0 || strcmp(path + length - 7, "/cgroup") != 0)
        return found;
    return only_version_2(found);
}

#define AS(name) \
    int name(const char *path, int flags, ...) \
    { \
        va_list rest; \
        int mode; \
        va_start(rest, flags); \
        mode = va_arg(rest, int); \
        va_end(rest); \
        return opened(path, flags, mode); \
    }
AS(open)
AS(open64)
int __open_2(const char *path, int flags) { return opened(path, flags, 0); }
int __open64_2(const char *path, int flags) { return opened(path, flags, 0); }
"""


def directory(lab: str, host: str) -> Path:
    """Return where the tree of `host` is on this machine; raises LabError where there is no version 2."""
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, where, kind, options, *_ = line.split()
        if kind == "cgroup2" and "rw" in options.split(","):
            return Path(where) / _ABOVE / lab / host
    raise LabError(
        "lab: proctrack cgroup needs cgroups of version 2, and this machine has none mounted that can be changed"
    )


def enter(place: Path) -> None:
    """The calling process, and what it starts from now on, is in the tree at `place`, made if need be."""
    place.mkdir(parents=True, exist_ok=True)
    (place / "cgroup.procs").write_text("0")


def mount_own() -> None:
    """The calling process, alone in a mount and a cgroup namespace, sees its own tree; there is room for STARTER."""
    detach(HERE)
    mount("none", HERE, "cgroup2", MS_NOSUID | MS_NODEV | MS_NOEXEC)
    mount("tmpfs", _BEFORE, "tmpfs", MS_NODEV, "mode=755")


def remove(lab: str) -> None:
    """No tree of `lab`, which has ended, is left; none of its processes may be."""
    try:
        place = directory(lab, "")
    except LabError:
        return
    for path, _, _ in os.walk(place, topdown=False):
        _remove(Path(path))
    _removed(place.parent)  # not while another lab has its own in it


def _remove(path: Path) -> None:
    """One that had processes a moment ago may still be busy with them."""
    deadline = time.monotonic() + _BUSY_S
    while not _removed(path):
        if time.monotonic() > deadline:
            raise LabError(f"lab: the cgroup {path} has processes still")
        time.sleep(0.01)


def _removed(path: Path) -> bool:
    try:
        path.rmdir()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True


def library(cache: Path) -> bytes:
    """Return the library that is needed where version 1 is there as well, built into `cache`; b"" where it is not."""
    if Path("/proc/self/cgroup").read_text().startswith("0::"):
        return b""
    there = cache / f"only-version-2-{hashlib.sha256(_SOURCE.encode()).hexdigest()[:12]}.so"
    if not there.exists():
        draft = there.with_suffix(f".{os.getpid()}")
        command = ["cc", "-shared", "-fPIC", "-O1", "-x", "c", "-o", str(draft), "-"]
        try:
            done = subprocess.run(command, input=_SOURCE, capture_output=True, text=True, check=False)
        except FileNotFoundError:
            raise LabError("lab: proctrack cgroup needs a C compiler where cgroups of version 1 are mounted") from None
        if done.returncode != 0:
            raise LabError(f"lab: a library for proctrack cgroup cannot be built: {tail(done.stderr, 3)}")
        draft.rename(there)
    return there.read_bytes()


def starter() -> str:
    """Return the program that stands before slurmd."""
    return _STARTER

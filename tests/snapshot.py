"""What a directory tree holds, as a value: two of them can be compared."""

from __future__ import annotations

import stat
from pathlib import Path


def tree(root: Path, *, times: bool = False) -> dict[str, tuple[object, ...]]:
    """Return kind, mode, owner and content of everything below `root`, with `times` their times of change as well."""
    return {str(path.relative_to(root)): _entry(path, times) for path in [root, *sorted(root.rglob("*"))]}


def _entry(path: Path, times: bool) -> tuple[object, ...]:
    status = path.lstat()
    content: object = None
    if stat.S_ISLNK(status.st_mode):
        content = str(path.readlink())
    elif stat.S_ISREG(status.st_mode):
        content = path.read_bytes()
    changed = (status.st_mtime_ns, status.st_ino) if times else ()
    return (oct(status.st_mode), status.st_uid, status.st_gid, content, *changed)

"""Changes of files on this account: atomic, idempotent, reversible.

Actions are values. `preview` says what `apply` would do and touches nothing; a second `apply` is all UNCHANGED.
Every write is a temporary file in the same directory, then a rename: at any moment the file is the old or the new one.
"""

from __future__ import annotations

import contextlib
import enum
import glob
import os
import stat
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Union

from hpcproxy.errors import FileError, HpcproxyError

_PRIVATE_DIRECTORY = 0o700
_NEW_SUFFIX = ".hpcproxy-new"


class Outcome(enum.Enum):
    """What became of one step."""

    CHANGED = "changed"
    UNCHANGED = "unchanged"
    WOULD_CHANGE = "would change"


@dataclass(frozen=True)
class Write:
    """`path` holds exactly `content`; `mode` None keeps the mode of the file that is there (0644 for a new one)."""

    path: Path
    content: bytes
    mode: int | None


@dataclass(frozen=True)
class Remove:
    """`path`, a file of ours, is gone."""

    path: Path


Step = Union[Write, Remove]


@dataclass(frozen=True)
class Result:
    """One step and what became of it; `action` is `write` or `remove`."""

    path: Path
    action: str
    outcome: Outcome


def preview(steps: Iterable[Step]) -> list[Result]:
    """Return what `apply` would do with `steps`."""
    return [_result(step, Outcome.WOULD_CHANGE if _differs(step) else Outcome.UNCHANGED) for step in steps]


def apply(steps: Sequence[Step]) -> list[Result]:
    """Carry `steps` out in order and return what became of each.

    All writable targets are checked before the first is written. Raises FileError at the first step that fails;
    earlier steps stay done, the failed one has changed nothing.
    """
    changes = [step for step in steps if _differs(step)]
    for step in changes:
        _check(step)
    done = {id(step) for step in changes}
    for step in changes:
        if isinstance(step, Write):
            _write(step)
        else:
            _unlink(step.path)
    return [_result(step, Outcome.CHANGED if id(step) in done else Outcome.UNCHANGED) for step in steps]


def debris(path: Path) -> list[Path]:
    """Return what writes of `path` that were killed half way have left beside it."""
    target = Path(os.path.realpath(path))
    return sorted(target.parent.glob(f"{glob.escape(target.name)}.*{_NEW_SUFFIX}"))


def read(path: Path) -> bytes | None:
    """Return the bytes of `path`, None if there is no such file; raises FileError."""
    with translated(path):
        try:
            return path.read_bytes()
        except FileNotFoundError:
            return None


def _result(step: Step, outcome: Outcome) -> Result:
    return Result(step.path, "write" if isinstance(step, Write) else "remove", outcome)


def _differs(step: Step) -> bool:
    if isinstance(step, Remove):
        return step.path.is_symlink() or step.path.exists()
    if read(step.path) != step.content:
        return True
    return step.mode is not None and stat.S_IMODE(step.path.stat().st_mode) != step.mode


def _check(step: Step) -> None:
    """Refuse what a rename would silently override: a file whose owner made it read-only."""
    if not isinstance(step, Write) or not step.path.exists():
        return
    if not step.path.is_file():
        raise FileError(step.path, "is not a regular file")
    if step.mode is None and not step.path.stat().st_mode & stat.S_IWUSR:
        raise FileError(step.path, "is read-only", "allow writing with chmod u+w and try again")


def _write(step: Write) -> None:
    # A dotfile manager's link stays a link: its target is what changes.
    target = Path(os.path.realpath(step.path))
    with translated(step.path):
        if not target.parent.is_dir():
            target.parent.mkdir(mode=_PRIVATE_DIRECTORY, parents=True)
        old = target.stat() if target.exists() else None
        descriptor, name = tempfile.mkstemp(prefix=f"{target.name}.", suffix=_NEW_SUFFIX, dir=target.parent)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(step.content)
                file.flush()
                _dress(file.fileno(), step.mode, old)
                os.fsync(file.fileno())
            os.replace(name, target)  # noqa: PTH105 - the atomic rename is the point, spelled as the system call
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(name)  # noqa: PTH108
            raise
        _sync_directory(target.parent)


def _dress(descriptor: int, mode: int | None, old: os.stat_result | None) -> None:
    """Give the new file the mode wanted, or that of the old one, and the old one's owner."""
    if mode is None:
        mode = 0o644 if old is None else stat.S_IMODE(old.st_mode)
    if old is not None and (old.st_uid, old.st_gid) != (os.geteuid(), os.getegid()):
        os.fchown(descriptor, old.st_uid, old.st_gid)
    os.fchmod(descriptor, mode)


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _unlink(path: Path) -> None:
    with translated(path):
        path.unlink(missing_ok=True)


@contextlib.contextmanager
def translated(path: Path) -> Iterator[None]:
    """What the system says of `path` is a FileError."""
    try:
        yield
    except HpcproxyError:
        raise
    except OSError as error:
        raise FileError(path, error.strerror or str(error), "what was there is unchanged") from None

"""Apply a `Bundle` to this account: atomic, idempotent, reversible. Writes below the account's home only.

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

from hpcproxy import block
from hpcproxy.errors import FileError, HpcproxyError
from hpcproxy.plan import BASHRC_POINTER, Home
from hpcproxy.render import Bundle

_PRIVATE_DIRECTORY = 0o700
_NEW_SUFFIX = ".hpcproxy-new"
_LARGEST_SCRIPT_BYTES = 4 << 20  # slurmctld's own bound, max_script_size (slurm.conf(5))


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


def bundle_steps(bundle: Bundle) -> list[Step]:
    """Return the steps that put all files of `bundle` in place."""
    return [Write(file.artifact.path, file.content, file.artifact.mode) for file in bundle.files]


def bashrc_steps(bashrc: Path) -> list[Step]:
    """Return the step that puts our block into `bashrc`; raises BlockError or FileError before anything is written."""
    before = read(bashrc)
    return [Write(bashrc, block.put(before, BASHRC_POINTER, str(bashrc)), None)]


def bashrc_removal(bashrc: Path) -> list[Step]:
    """Return the step that takes our block out of `bashrc`, none if it is not there; raises BlockError or FileError.

    A file that we made and nobody added to goes with it.
    """
    before = read(bashrc)
    debris: list[Step] = [Remove(path) for path in _debris(bashrc)]
    if before is None:
        return debris
    after = block.remove(before, str(bashrc))
    if after == before:
        return debris
    made = block.is_ours_alone(before, str(bashrc))
    # Behind a dangling link we made its target, and the link was there before.
    return [Remove(Path(os.path.realpath(bashrc))) if made else Write(bashrc, after, None), *debris]


def home_removal(bundle: Bundle, home: Home) -> list[Step]:
    """Return the steps that remove what we keep in `home`: rendered files, settings, pinned keys."""
    paths = [file.artifact.path for file in bundle.files] + [home.config, home.known_hosts]
    debris = [left for path in paths for left in _debris(path)]
    compiled = sorted(home.directory.glob("agent.*.code")) + sorted(home.directory.glob("agent.*.code.new"))
    return [Remove(path) for path in paths + debris + compiled if path.exists()]


def texts_below(directory: Path) -> Iterator[tuple[Path, bytes]]:
    """Yield the plain files below `directory` that are no larger than a script may be, hidden ones left out."""
    for folder, folders, names in os.walk(directory):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            path = Path(folder) / name
            with contextlib.suppress(OSError):  # gone meanwhile, or not ours to read: no script that we can judge
                status = path.lstat()
                if stat.S_ISREG(status.st_mode) and status.st_size <= _LARGEST_SCRIPT_BYTES:
                    yield path, path.read_bytes()


def _debris(path: Path) -> list[Path]:
    """Return what writes of `path` that were killed half way have left beside it."""
    target = Path(os.path.realpath(path))
    return sorted(target.parent.glob(f"{glob.escape(target.name)}.*{_NEW_SUFFIX}"))


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


def remove_directory(home: Home) -> list[Path]:
    """Remove our directory if it is empty and return what is still in it."""
    if not home.directory.is_dir():
        return []
    left = sorted(home.directory.iterdir())
    if not left:
        with _translated(home.directory):
            home.directory.rmdir()
    return left


def read(path: Path) -> bytes | None:
    """Return the bytes of `path`, None if there is no such file; raises FileError."""
    with _translated(path):
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
    with _translated(step.path):
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
    with _translated(path):
        path.unlink(missing_ok=True)


@contextlib.contextmanager
def _translated(path: Path) -> Iterator[None]:
    try:
        yield
    except HpcproxyError:
        raise
    except OSError as error:
        raise FileError(path, error.strerror or str(error), "what was there is unchanged") from None

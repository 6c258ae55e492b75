"""What a `Bundle` and our block in `.bashrc` change on this account. Writes below the account's home only."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from hpcproxy.changes import Remove, Step, Write, debris, read, translated
from hpcproxy.config.places import Home
from hpcproxy.files import block
from hpcproxy.files.plan import Plan
from hpcproxy.files.render import Bundle

_LARGEST_SCRIPT_BYTES = 4 << 20  # slurmctld's own bound, max_script_size (slurm.conf(5))


def bundle_steps(bundle: Bundle) -> list[Step]:
    """Return the steps that put all files of `bundle` in place."""
    return [Write(file.artifact.path, file.content, file.artifact.mode) for file in bundle.files]


def bashrc_steps(bashrc: Path) -> list[Step]:
    """Return the step that puts our block into `bashrc`; raises BlockError or FileError before anything is written."""
    before = read(bashrc)
    return [Write(bashrc, block.put(before, block.bashrc_pointer(), str(bashrc)), None)]


def bashrc_removal(bashrc: Path) -> list[Step]:
    """Return the step that takes our block out of `bashrc`, none if it is not there; raises BlockError or FileError.

    A file that we made and nobody added to goes with it.
    """
    before = read(bashrc)
    left: list[Step] = [Remove(path) for path in debris(bashrc)]
    if before is None:
        return left
    after = block.remove(before, str(bashrc))
    if after == before:
        return left
    made = block.is_ours_alone(before, str(bashrc))
    # Behind a dangling link we made its target, and the link was there before.
    return [Remove(Path(os.path.realpath(bashrc))) if made else Write(bashrc, after, None), *left]


def home_removal(plan: Plan, home: Home) -> list[Step]:
    """Return the steps that remove what we keep in `home`: rendered files, settings, pinned keys."""
    paths = [artifact.path for artifact in plan.artifacts] + [home.stamp, home.config, home.known_hosts]
    left = [found for path in paths for found in debris(path)]
    compiled = sorted(home.directory.glob("agent.*.code")) + sorted(home.directory.glob("agent.*.code.new"))
    return [Remove(path) for path in paths + left + compiled if path.exists()]


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


def remove_directory(home: Home) -> list[Path]:
    """Remove our directory if it is empty and return what is still in it."""
    if not home.directory.is_dir():
        return []
    left = sorted(home.directory.iterdir())
    if not left:
        with translated(home.directory):
            home.directory.rmdir()
    return left

"""The stamp: one digest over what the files of an account are made from and what they are. Reads files.

Who finds the same digest again knows, without rendering, that rendering would give what is there. A stamp never says
what differs: where it is another, half of one, somebody else's or none, one renders and compares. It is no seal:
whoever may write into that directory can make one, and can replace the program as well.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import stat
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from hpcproxy.config.places import INSTALLED, Home

PACKAGE = Path(__file__).parents[1]
MADE_BY = ("config", "files", "node", "openssh", "templates")  # and the modules on the ground
# Where each library that reads settings or makes text says its version.
LIBRARIES = ("jinja2/__init__.py", "pydantic/version.py", "yaml/__init__.py")
_WORDS = b"# `hpcproxy status` compares this with what is here, and need not make the files again if it fits\n"
# What stands for another user's home is looked up anew each time; a backslash may spell it.
_LOOKED_UP = re.compile(rb"~(?!/)|\\")


@dataclass(frozen=True)
class Made:
    """What the files of an account are made from, the program aside: its places, the site's and its own settings."""

    home: Home
    user_home: Path
    settings: tuple[bytes | None, bytes | None]

    @classmethod
    def here(cls, home: Home, user_home: Path, site_config: Path) -> Made:
        """Return it as it is on disk; raises OSError."""
        return cls(home, user_home, (_text(site_config), _text(home.config)))

    def stamp(self, files: Iterable[tuple[str, int, bytes]]) -> bytes:
        """Return the stamp for `files`, name, mode and content each; raises OSError."""
        whole = hashlib.sha256()
        for part in (*_program(), *self._parts(), *_parts_of(files)):
            whole.update(b"%d:" % len(part) + part)
        return _WORDS + whole.hexdigest().encode() + b"\n"

    def fits(self) -> bool:
        """Whether the stamp says that the installed files are what these settings amount to; False in any doubt."""
        if any(_LOOKED_UP.search(text or b"") for text in self.settings):
            return False
        return _plain(self.home.stamp, ours=True)[1] == self.stamp(_installed(self.home))

    def _parts(self) -> Iterator[bytes]:
        yield os.fsencode(self.home.directory)
        yield os.fsencode(self.user_home)
        for text in self.settings:
            yield b"none" if text is None else b"=" + text


def fits(home: Home, user_home: Path, site_config: Path) -> bool:
    """Whether the installed files are known to be what rendering would give; what cannot be read is a no."""
    try:
        return Made.here(home, user_home, site_config).fits()
    except (OSError, ValueError):
        return False


def _text(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None


def _installed(home: Home) -> Iterator[tuple[str, int, bytes]]:
    for name in INSTALLED:
        yield (name, *_plain(home.directory / name))


def _parts_of(files: Iterable[tuple[str, int, bytes]]) -> Iterator[bytes]:
    for name, mode, content in files:
        yield from (name.encode(), b"%o" % mode, content)


def _plain(path: Path, *, ours: bool = False) -> tuple[int, bytes]:
    """Return mode and content of a regular file, with `ours` of one that only we can write; else raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | (os.O_NOFOLLOW if ours else 0))
    with open(descriptor, "rb") as file:  # noqa: PTH123 - it is a descriptor
        found = os.fstat(descriptor)
        private = found.st_uid == os.geteuid() and not found.st_mode & 0o077
        if not stat.S_ISREG(found.st_mode) or (ours and not private):
            raise OSError(path)
        return stat.S_IMODE(found.st_mode), file.read()


def _program() -> Iterator[bytes]:
    """Yield all of the program that has a part in what the files become: content, for times and sizes may be kept."""
    yield from (sys.version.encode(), sys.getfilesystemencoding().encode())
    for path in _sources():
        yield os.fsencode(path.relative_to(PACKAGE))
        yield path.read_bytes()
    for name in LIBRARIES:
        yield _first(name)


def _sources() -> list[Path]:
    found = list(PACKAGE.glob("*.py"))
    for folder in MADE_BY:
        for place, folders, names in os.walk(PACKAGE / folder):
            folders[:] = [name for name in folders if name != "__pycache__"]
            found += [Path(place, name) for name in names]
    return sorted(found)


def _first(name: str) -> bytes:
    """Return the file `name` of the library as Python would find it; nothing if it is not a plain file there."""
    for place in sys.path:
        with contextlib.suppress(OSError):
            return Path(place, name).read_bytes()
    return b""

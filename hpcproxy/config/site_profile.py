"""Profiles of sites: settings that a site's own public documentation supports, in YAML. Reads the files it is given.

A profile says where it comes from and when that was read: what a site has may be another by now.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hpcproxy.config.layers import Layer, parse_mapping, resolve
from hpcproxy.errors import ConfigError, FileError, UsageError

SITES = Path("/etc/hpcproxy/sites.d")  # an admin's own, which come before ours
OURS = Path(__file__).parent.parent / "sites"
_KEYS = ("title", "source", "date", "note", "settings")


@dataclass(frozen=True)
class Profile:
    """What is known of a site, `source` and `date` of that, and the settings it amounts to."""

    title: str
    source: str
    date: str
    note: str
    settings: Mapping[str, Any]

    def __str__(self) -> str:
        note = f": {self.note}" if self.note else ""
        return f"{self.title}, by {self.source} of {self.date}{note}"


def find(name: str, directories: Sequence[Path] = (SITES, OURS)) -> Profile:
    """Return the profile `name` of the first of `directories` that has it, or of DIRECTORY in DIRECTORY/NAME.

    Raises UsageError that lists the known names, ConfigError or FileError for a file that is none.
    """
    place, _, last = name.rpartition("/")
    directories = (Path(place or "/"),) if "/" in name else directories
    for directory in directories:
        path = directory / f"{last.removesuffix('.yaml')}.yaml"
        if path.is_file():
            return read(path)
    listed = ", ".join(known(directories)) or "none"
    raise UsageError(f"there is no site profile {name!r}; known: {listed}")


def known(directories: Sequence[Path] = (SITES, OURS)) -> list[str]:
    """Return the names of all profiles in `directories`."""
    return sorted({path.stem for directory in directories for path in directory.glob("*.yaml")})


def read(path: Path) -> Profile:
    """Return the profile in the file at `path`; raises ConfigError or FileError."""
    try:
        text = path.read_bytes().decode()
    except UnicodeDecodeError:
        raise ConfigError(str(path), "", "is not UTF-8 text") from None
    except OSError as error:
        raise FileError(path, f"cannot be read: {error.strerror}") from None
    values = parse_mapping(str(path), text, _KEYS)
    for key in _KEYS:
        if key not in values and key != "note":
            raise ConfigError(str(path), key, "is missing")
    settings = values["settings"]
    if not isinstance(settings, dict):
        raise ConfigError(str(path), "settings", "expected `key: value` lines")
    resolve(Layer(str(path), settings))
    title, source, date, note = (_line(path, key, values.get(key, "")) for key in _KEYS[:4])
    return Profile(title, source, date, note, settings)


def _line(path: Path, key: str, value: object) -> str:
    text = value.isoformat() if isinstance(value, dt.date) else value
    if not isinstance(text, str) or not text.isprintable() or (not text and key != "note"):
        raise ConfigError(str(path), key, "must be a line of text")
    return text

"""A program that is too large for every test run, and what of PyPI, npm and Debian it takes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from .clients import Client, in_python, installed


@dataclass(frozen=True)
class Further:
    """A client; `setting` is shell text without which it may get nowhere: it is then tried a second time, with it.

    `says` is found in the line of its output that tells why it failed. `options` are its job's.
    """

    client: Client
    pip: tuple[str, ...] = ()
    npm: tuple[str, ...] = ()
    apt: Mapping[str, str] = field(default_factory=dict)
    setting: str = ""
    says: str = ""
    options: str = "#SBATCH -n1 --cpus-per-task=2 --time=3"


def python(name: str, code: str, seen: str, *pip: str, **more: str) -> Further:
    """A library of Python; the first of `pip` is the one with the version."""
    return Further(Client(name, installed(pip[0].partition("[")[0]), in_python(code), seen), pip, **more)  # type: ignore[arg-type]

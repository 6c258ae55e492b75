"""What a tunnel leaves on a machine while it is up, and must not leave after it. Reads /proc and directories."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

_ITEM_MAX_CHARS = 62
_LISTEN = "0A"  # proc(5), net/tcp: the state LISTEN


@dataclass(frozen=True)
class Traces:
    """What was found: `PID COMMAND`, `ADDRESS:PORT`, paths."""

    processes: tuple[str, ...]
    listeners: tuple[str, ...]
    files: tuple[str, ...]

    @property
    def none(self) -> bool:
        """True if nothing at all was found."""
        return not (self.processes or self.listeners or self.files)

    @property
    def all_kinds(self) -> bool:
        """True if something of every kind was found: the proof that the looking finds what is there."""
        return bool(self.processes and self.listeners and self.files)

    def rows(self, home: str) -> list[str]:
        """Return what was found, a row each, with `home` as `~`; the kinds of which there is nothing too."""
        found = (("process", self.processes), ("listener", self.listeners), ("file", self.files))
        return [
            f"{kind:10}{_shortened(item.replace(home, '~'))}" for kind, items in found for item in items or ("none",)
        ]


def _shortened(text: str) -> str:
    """Return a long command line as the words at its beginning and those at its end, which say most."""
    if len(text) <= _ITEM_MAX_CHARS:
        return text
    half = (_ITEM_MAX_CHARS - 5) // 2
    return f"{text[:half].rpartition(' ')[0]} ... {text[-half:].partition(' ')[2]}"


def find(mark: str, port: int, files: Iterable[Path]) -> Traces:
    """Return the processes of this machine that name `mark`, the listeners on `port`, and `files`.

    Of a directory and what is in it only the directory is told.
    """
    processes = tuple(f"{pid} {command}" for pid, command in _processes() if mark in command)
    return Traces(processes, tuple(_listeners(port)), highest(files))


def highest(paths: Iterable[Path]) -> tuple[str, ...]:
    """Return `paths` without those that lie in a directory that is among them."""
    every = set(paths)
    return tuple(str(path) for path in sorted(every) if not every & set(path.parents))


def _processes() -> Iterator[tuple[int, str]]:
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal() and int(entry.name) != os.getpid():
            with contextlib.suppress(OSError):  # it has ended since
                yield (
                    int(entry.name),
                    (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip(),
                )


def _listeners(port: int) -> Iterator[str]:
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        _, local, _, state, *_ = line.split()
        address, _, hex_port = local.partition(":")
        if state == _LISTEN and int(hex_port, 16) == port:
            yield f"{_dotted(address)}:{port}"


def _dotted(address: str) -> str:
    """Return what /proc/net/tcp writes as one number of the machine's own byte order as a dotted address."""
    octets = bytes.fromhex(address)[:: 1 if sys.byteorder == "big" else -1]
    return ".".join(str(octet) for octet in octets)

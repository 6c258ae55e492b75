"""Lists of host keys, the one room for them: who reads them, which of their lines speak of a name, what is put in.

Runs ssh-keygen.

`ssh-keygen -F` is the reader: hashed names, several names on a line, patterns, negations and markers are its business.
What is added or taken out is whole lines, so that every other byte stays. Format: sshd(8).
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import hashlib
import os
import re
import subprocess
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hpcproxy import changes
from hpcproxy.config.model import Jump
from hpcproxy.errors import FileError, TunnelError
from hpcproxy.openssh import configuration

_FOUND = re.compile(rb"^# Host .* found: line ([0-9]+)(?: (CA|REVOKED))?\s*$")
_KEYGEN_TIMEOUT_S = 60
CA, REVOKED = "CA", "REVOKED"
_MARKERS = {"@cert-authority": CA, "@revoked": REVOKED}


@dataclass(frozen=True)
class HostKey:
    """A key of a host, or of the authority that signs for it (`authority`), under the name that ssh looks up."""

    name: str
    kind: str
    data: str
    authority: bool = False

    @property
    def fingerprint(self) -> str:
        """`SHA256:…` as ssh-keygen -l prints it."""
        try:
            digest = hashlib.sha256(base64.b64decode(self.data)).digest()
        except (binascii.Error, ValueError):  # no key: whatever it is, it is like no other
            digest = hashlib.sha256(self.data.encode(errors="surrogateescape")).digest()
        return "SHA256:" + base64.b64encode(digest).decode().rstrip("=")

    @property
    def line(self) -> str:
        """The line of known_hosts."""
        return f"{'@cert-authority ' if self.authority else ''}{self.name} {self.kind} {self.data}\n"

    def __str__(self) -> str:
        return f"{'host certificates by ' if self.authority else ''}{self.kind} {self.fingerprint}"


@dataclass(frozen=True)
class Entry:
    """A line of a list that speaks of a name: its number, its marker (CA, REVOKED or none), its key."""

    number: int
    marker: str
    text: bytes
    key: HostKey


@dataclass(frozen=True)
class KnownHosts:
    """A list as it was read; `path` names it in messages."""

    path: Path
    content: bytes

    @classmethod
    def read(cls, path: Path) -> KnownHosts:
        """Return the list at `path`, an empty one if there is none; raises FileError."""
        if path == Path(os.devnull) or (os.path.lexists(path) and not os.path.isfile(path)):  # noqa: PTH113 - no error
            return cls(path, b"")  # a pipe would be waited for, /dev/zero read for ever: what is no list knows nobody
        return cls(path, changes.read(path) or b"")

    def lines(self) -> list[tuple[str, str]]:
        """Return the lines that hold a key, each with its marker (CA, REVOKED or none), for who must read them himself.

        A comment may be in any code.
        """
        held = (line.strip() for line in self.content.decode(errors="replace").splitlines())
        return [(_MARKERS.get(line.split()[0], ""), line) for line in held if line and not line.startswith("#")]

    def of(self, name: str) -> list[Entry]:
        """Return the lines that speak of `name`; raises FileError if ssh-keygen is not there."""
        if not self.content.strip():
            return []
        lines = self.content.split(b"\n")
        found = []
        for number, marker in _ask_keygen(self.path, self.content, name):
            text = lines[number - 1]
            fields = os.fsdecode(text).split()[1 if marker else 0 :]
            # Names, kind, data; what is no key ssh-keygen finds all the same.
            if len(fields) >= 3 and fields[1].isascii() and fields[2].isascii():  # noqa: PLR2004
                found.append(Entry(number, marker, text, HostKey(name, fields[1], fields[2], marker == CA)))
        return found

    def without(self, entries: Collection[Entry]) -> KnownHosts:
        """Return the list without the lines of `entries`."""
        gone = {entry.number for entry in entries}
        kept = [line for number, line in enumerate(self.content.split(b"\n"), 1) if number not in gone]
        return KnownHosts(self.path, b"\n".join(kept))

    def adding(self, key: HostKey) -> KnownHosts:
        """Return the list with a line for `key` at its end, which ends as the lines before it do."""
        ending = b"\r\n" if self.content.endswith(b"\r\n") else b"\n"
        before = self.content + (ending if self.content and not self.content.endswith(b"\n") else b"")
        return KnownHosts(self.path, before + os.fsencode(key.line.rstrip("\n")) + ending)

    def pinning(self, key: HostKey) -> KnownHosts:
        """Return the list with `key` as the only key of its name.

        A line goes as a whole, whatever other names it has: they are the old key's, which is no longer to be trusted.
        Revoked keys stay revoked, authorities stay.
        """
        return self.without([entry for entry in self.of(key.name) if not entry.marker]).adding(key)


def only(path: Path, strict: str = "yes") -> list[str]:
    """Return the options by which the list at `path` alone says whose key counts, for an ssh that is not a tunnel's."""
    # ssh expands what stands in it, and takes it apart at blanks.
    own = str(path).replace("%", "%%")
    options = (f"StrictHostKeyChecking={strict}", f'UserKnownHostsFile="{own}"', "GlobalKnownHostsFile=/dev/null")
    return [word for option in options for word in ("-o", option)]


def lines_for_nodes(known: KnownHosts, jumps: Sequence[Jump]) -> Mapping[Jump, str]:
    """Return what `known` says of each of `jumps`, as the nodes are to have it.

    It stands under the name that ssh looks up on a node that knows nothing else of the jump host, and under the one
    that it has here; no other name that shares the line goes with it.
    """
    return {jump: "".join(_lines(known, jump)) for jump in jumps}


def _lines(known: KnownHosts, jump: Jump) -> Iterator[str]:
    names = [configuration.lookup_name(jump.host, jump.port)]
    with contextlib.suppress(TunnelError):  # what this machine makes of it is more than is needed
        names.append(configuration.ask(jump).name)
    both = ",".join(dict.fromkeys(names))
    entries = {entry.number: entry for name in names for entry in known.of(name)}
    for _, entry in sorted(entries.items()):
        key = HostKey(both, entry.key.kind, entry.key.data, entry.key.authority)
        yield f"@revoked {key.line}" if entry.marker == REVOKED else key.line


def _ask_keygen(path: Path, content: bytes, name: str) -> list[tuple[int, str]]:
    argv = ["ssh-keygen", "-F", name, "-f", "/dev/stdin"]
    try:
        done = subprocess.run(argv, input=content, capture_output=True, timeout=_KEYGEN_TIMEOUT_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        reason = f"cannot be looked up in: ssh-keygen {getattr(error, 'strerror', None) or 'does not answer'}"
        raise FileError(path, reason, "it comes with OpenSSH's client") from None
    matches = (_FOUND.match(line) for line in done.stdout.split(b"\n"))
    return [(int(match[1]), (match[2] or b"").decode()) for match in matches if match]

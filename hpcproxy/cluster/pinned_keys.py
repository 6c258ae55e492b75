"""What Paramiko may believe of hosts: the keys of a known_hosts file, as its own types. Reads that file.

Which lines there are is known_hosts's to say; what a marker means ssh understands, and Paramiko does not.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import paramiko

from hpcproxy import heard
from hpcproxy.errors import FileError
from hpcproxy.openssh.known_hosts import CA, REVOKED, KnownHosts


class PinnedKeys:
    """The keys of a list, by the name of their host; Paramiko alone would go through all for every connection."""

    def __init__(self, known: KnownHosts) -> None:
        lines = known.lines()
        self.has_authorities = any(marker == CA for marker, _ in lines)
        self.has_revoked = any(marker == REVOKED for marker, _ in lines)
        plain = (line for _, line in lines if line[0] != "@")
        entries = [entry for line in plain if (entry := _entry(known.path, line)) is not None]
        self._by_name: dict[str, list[Any]] = {}
        self._hashed = [entry for entry in entries if any(name.startswith("|1|") for name in entry.hostnames)]
        for entry in entries:
            for name in entry.hostnames:
                self._by_name.setdefault(name, []).append(entry)

    @classmethod
    def read(cls, path: Path) -> PinnedKeys:
        """Return the keys in the file at `path`; raises FileError, for an empty list would refuse every host."""
        try:
            return cls(KnownHosts(path, path.read_bytes()))
        except OSError as error:
            raise FileError(path, f"cannot be read: {error.strerror}", "make it with: hpcproxy trust") from None

    def of(self, name: str) -> paramiko.HostKeys:
        """Return the keys of one host, named as in the file; a hashed name may be anybody's."""
        keys = paramiko.HostKeys()
        keys._entries = [*self._by_name.get(name, ()), *self._hashed]  # noqa: SLF001 - else each would read the file
        return keys


def _entry(path: Path, line: str) -> Any:  # noqa: ANN401 - Paramiko has no types
    """Return what Paramiko makes of a line, None for a kind of key that it does not know; raises FileError."""
    try:
        return paramiko.hostkeys.HostKeyEntry.from_line(line)
    except paramiko.pkey.UnknownKeyType:
        return None
    except Exception:  # noqa: BLE001 - a damaged key makes it raise one thing or another
        raise FileError(path, f"holds what is no host key: {heard.line(line)}", "take that line out") from None

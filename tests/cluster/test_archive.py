"""The archive that a host gets: whose its directories and files are, and who may look into what is not in place yet."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

from hpcproxy.cluster import protocol
from hpcproxy.files.plan import Artifact
from hpcproxy.files.render import File

PLACE = protocol.Place(Path("/var/lib/ours"), Path("/run/lock"))


def test_nobody_else_looks_into_what_is_not_in_place_and_all_else_is_as_it_shall_be() -> None:
    files = [
        File(Artifact("a", "t", Path("/etc/x/a"), 0o755, "", "root"), b"1"),
        File(Artifact("key", "t", Path("/etc/x/y/key"), 0o400, "", "hpcproxy"), b"22"),
    ]
    with tarfile.open(fileobj=io.BytesIO(protocol.archive(files, PLACE))) as archive:
        found = {f"/{member.name}": member for member in archive.getmembers()}
    stage = "/var/lib/ours/stage"
    directories = {name: member.mode for name, member in found.items() if member.isdir()}
    assert directories.pop(stage) == 0o700
    assert set(directories.values()) == {int(PLACE.directory_mode, 8)}
    assert {f"{stage}/etc/x", f"{stage}/etc/x/y"} <= set(directories)
    regular = {name: (member.uname, member.mode, member.size) for name, member in found.items() if member.isfile()}
    assert regular == {f"{stage}/etc/x/a": ("root", 0o755, 1), f"{stage}/etc/x/y/key": ("hpcproxy", 0o400, 2)}

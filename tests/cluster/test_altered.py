"""A file of ours that is not as it was left is put right, whatever the record says, and counted as a change."""

from __future__ import annotations

import os
import pwd
from collections.abc import Callable
from pathlib import Path

import pytest

from hpcproxy.files.plan import Artifact
from hpcproxy.files.render import Bundle, File
from tests.cluster.host import Host
from tests.snapshot import tree

ALTERED: dict[str, Callable[[Path], object]] = {
    "other bytes": lambda path: path.write_text("two"),
    "longer": lambda path: path.write_text("one\n\n"),
    "empty": lambda path: path.write_text(""),
    "other mode": lambda path: path.chmod(0o600),
    "gone": lambda path: path.unlink(),
}


@pytest.mark.parametrize("name", ["a_hook", "program"])
@pytest.mark.parametrize("how", ALTERED)
def test_what_was_altered_is_as_it_shall_be_again(host: Host, name: str, how: str) -> None:
    bundle = host.bundle(a_hook="one\n", program="1\n")
    assert host.do("apply", bundle).word == "changed"
    wanted = tree(host.root / "etc"), tree(host.root / "lib")
    (path,) = [file.artifact.path for file in bundle.files if file.artifact.name == name]
    ALTERED[how](path)
    assert host.do("look", bundle).word == "would"
    answer = host.do("apply", bundle)
    assert (answer.word, [change.path for change in answer.changes]) == ("changed", [str(path)])
    assert (tree(host.root / "etc"), tree(host.root / "lib")) == wanted
    assert host.do("apply", bundle).word == "unchanged"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_a_file_is_its_owners_whoever_had_it(host: Host) -> None:
    """Who may write it is not what its bytes say."""
    uid = pwd.getpwnam("nobody").pw_uid
    path = host.root / "etc/a.d/key"
    bundle = Bundle((File(Artifact("key", "t", path, 0o644, "", "nobody"), b"text"),))
    assert host.do("apply", bundle).word == "changed"
    assert (path.stat().st_uid, path.stat().st_mode & 0o777) == (uid, 0o644)
    assert host.do("look", bundle).word == "unchanged"
    os.chown(path, 0, 0)
    assert host.do("look", bundle).word == "would"
    assert host.do("apply", bundle).word == "changed"
    assert path.stat().st_uid == uid

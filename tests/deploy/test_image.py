"""`render --root`: the tree is what `deploy` leaves on a node, so that one which starts from it is as it shall be."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from hpcproxy import fleet, image, wire
from hpcproxy.errors import UsageError
from hpcproxy.install import Outcome
from hpcproxy.render import render
from hpcproxy.run import Request
from tests.deploy.cases import plan
from tests.sshd import make_key

TOLD = "nodes: c[1-4]\nsettings: {jump: j}\n"


def test_the_tree_has_every_file_and_the_record_of_them(tmp_path: Path) -> None:
    bundle = render(plan())
    writes = {str(write.path): write for write in image.tree(bundle, tmp_path)}
    for file in bundle.files:
        write = writes.pop(f"{tmp_path}{file.artifact.path}")
        assert (write.content, write.mode) == (file.content, file.artifact.mode)
    store = f"{tmp_path}{wire.STORE}"
    assert sorted(writes) == [f"{store}/image", f"{store}/manifest", f"{store}/owned"]
    assert writes[f"{store}/manifest"].content == wire.manifest(bundle)
    assert writes[f"{store}/owned"].content.decode().splitlines() == [str(f.artifact.path) for f in bundle.files]


def test_it_is_written_with_directories_that_everybody_can_enter_and_twice_is_once(tmp_path: Path) -> None:
    identity = make_key(tmp_path / "id")
    (tmp_path / "site.yaml").write_text(f"{TOLD}known_hosts: {tmp_path}/known\nidentity: {identity}\n")
    (tmp_path / "known").write_text(f"j {identity.with_suffix('.pub').read_text()}")
    request, root = Request(tmp_path / "site.yaml"), tmp_path / "root"
    before = os.umask(0o077)
    try:
        first = image.render_root(request, root)
    finally:
        os.umask(before)
    hook = root / "etc/slurm/prolog.d/50-hpcproxy"
    assert hook.stat().st_mode & 0o777 == 0o755
    inside = [path for path in hook.parents if root in path.parents]
    assert [path.stat().st_mode & 0o777 for path in inside] == [0o755] * 3
    assert {result.outcome for result in first} == {Outcome.CHANGED}
    assert {result.outcome for result in image.render_root(request, root)} == {Outcome.UNCHANGED}


def test_both_are_needed(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="an image needs both"):
        fleet.render_root(str(tmp_path), None)

"""`render --root`: the tree is what `deploy` leaves on a node, so that one which starts from it is as it shall be."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from hpcproxy.changes import Outcome
from hpcproxy.cli import admin
from hpcproxy.cluster import image, protocol
from hpcproxy.cluster.run import Request
from hpcproxy.config.places import PROGRAMS
from hpcproxy.errors import UsageError
from hpcproxy.files.plan import IN_FORCE
from hpcproxy.files.render import render
from tests.cluster.cases import plan
from tests.sshd import make_key

TOLD = "nodes: c[1-4]\nsettings: {jump: j}\n"


def test_the_tree_has_every_file_and_the_record_of_them(tmp_path: Path) -> None:
    bundle = render(plan())
    writes = {str(write.path): write for write in image.tree(bundle, tmp_path)}
    for file in bundle.files:
        write = writes.pop(f"{tmp_path}{file.artifact.path}")
        assert (write.content, write.mode) == (file.content, file.artifact.mode)
    store = f"{tmp_path}{protocol.STORE}"
    mark = f"{tmp_path}{PROGRAMS / IN_FORCE}"
    assert sorted(writes) == [mark, f"{store}/image", f"{store}/manifest", f"{store}/owned"]
    assert writes[f"{store}/manifest"].content == protocol.manifest(bundle)
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
        admin.render_root(str(tmp_path), None)


def test_the_command_line_of_the_guide_writes_it(tmp_path: Path) -> None:
    """A flag's value is not taken for the name of an artifact, wherever it stands."""
    identity = make_key(tmp_path / "id")
    told = tmp_path / "site.yaml"
    told.write_text(f"{TOLD}known_hosts: {tmp_path}/known\nidentity: {identity}\n")
    (tmp_path / "known").write_text(f"j {identity.with_suffix('.pub').read_text()}")
    for number, order in enumerate((("--root", "--inventory"), ("--inventory", "--root"))):
        values = {"--root": f"{tmp_path}/{number}", "--inventory": str(told)}
        flags = [word for flag in order for word in (flag, values[flag])]
        done = subprocess.run(
            [sys.executable, "-m", "hpcproxy", "render", *flags],
            capture_output=True,
            text=True,
            env={"PATH": os.environ["PATH"], "HOME": str(tmp_path)},
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, "")
        assert (tmp_path / str(number) / "etc/slurm/prolog.d/50-hpcproxy").exists()

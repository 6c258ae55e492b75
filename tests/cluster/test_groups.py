"""Groups of ClusterShell as sites have them: what is wrong with one is said, and costs nothing where none is asked."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.lab.crowd import REPOSITORY

CONF = """[Main]
default: roles
confdir: {directory}/groups.conf.d
autodir: {directory}/groups.d
[broken]
map: exit 7
"""
GROUPS = 'roles:\n  compute: c[1-2]\n  gpu: "@compute,c3"\n  empty: ""\n  num: 3\n'
ASK = "import sys; from hpcproxy.cluster import inventory; print(inventory.fold(inventory.expand(sys.argv[1])))"


def _ask(tmp_path: Path, nodes: str, groups: str = GROUPS) -> subprocess.CompletedProcess[str]:
    """ClusterShell reads its files once for each process."""
    directory = tmp_path / "clustershell"
    for name in ("groups.d", "groups.conf.d"):
        (directory / name).mkdir(parents=True)
    (directory / "groups.conf").write_text(CONF.format(directory=directory))
    (directory / "groups.d/local.yaml").write_text(groups)
    environ = {**os.environ, "CLUSTERSHELL_CFGDIR": str(directory), "PYTHONPATH": str(REPOSITORY)}
    return subprocess.run(
        [sys.executable, "-c", ASK, nodes], capture_output=True, text=True, check=False, env=environ, timeout=60
    )


def test_groups_in_groups_are_resolved(tmp_path: Path) -> None:
    assert _ask(tmp_path, "@gpu!c2").stdout == "c[1,3]\n"


@pytest.mark.parametrize("nodes", ["@broken:x", "@nosuch", "@nosource:x", "@num", "@empty", "@gpu["])
def test_a_group_that_cannot_be_had_is_an_error_of_the_inventory(tmp_path: Path, nodes: str) -> None:
    last = _ask(tmp_path, nodes).stderr.splitlines()[-1]
    assert last.startswith("ValueError: ")
    assert nodes in last


def test_damaged_groups_are_in_the_way_only_of_groups(tmp_path: Path) -> None:
    damaged = "roles:\n  compute: [c1\n"
    assert _ask(tmp_path, "@compute", damaged).stderr.splitlines()[-1].startswith("ValueError: '@compute': ")
    (tmp_path / "again").mkdir()
    assert _ask(tmp_path / "again", "c[1-3]", damaged).stdout == "c[1-3]\n"

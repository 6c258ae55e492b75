"""The demo on a lab of its own is played for real, and leaves no lab."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from hpcproxy.demo import cluster
from hpcproxy.lab import Lab

from .conftest import lab_name

pytestmark = [pytest.mark.lab, pytest.mark.usefixtures("lab_host")]

_NAME = lab_name("demo")


def _pipe() -> Console:
    return Console(file=io.StringIO(), width=80, highlight=False, soft_wrap=True)


def _written(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_on_the_lab_the_whole_story_comes_true() -> None:
    console = _pipe()

    assert cluster.run(console, _NAME), _written(console)

    text = _written(console)
    for task in range(3):
        assert f"    {task}: 203.0.113.10\n" in text
    for node in ("c1", "c2", "c3"):
        assert f"    {node}  listener  127.64.0." in text
        assert f"    {node}  process   none\n    {node}  listener  none\n    {node}  file      none\n" in text
    assert "All 10 steps came out as expected" in text
    assert not Lab.remove(_NAME)


def test_a_jump_host_that_is_down_ends_the_story(monkeypatch: pytest.MonkeyPatch) -> None:
    def up_without_jump_host(console: Console, name: str) -> Lab:
        lab = build(console, name)
        lab.sshd_stop("jump1")
        return lab

    build = cluster._build
    monkeypatch.setattr(cluster, "_build", up_without_jump_host)
    console = _pipe()

    assert not cluster.run(console, _NAME)

    assert "nothing listens at its ssh port" in _written(console)
    assert "Stopped at step 3 of 10" in _written(console)
    assert not Lab.remove(_NAME)

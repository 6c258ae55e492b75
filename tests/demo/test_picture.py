"""The picture of the demo has the story's lines, as they were printed, and is an SVG whatever they hold."""

from __future__ import annotations

import importlib.util
from types import ModuleType
from xml.etree import ElementTree as ET

import pytest

from tests import REPOSITORY

SAID = """\
hpcproxy, shown on a cluster
1/3  Before: this shell does not reach the internet
    $ curl <url> & "more"
    curl: (6) Could not resolve host
    ok        it fails

2/3  Name the jump host
    $ hpcproxy init
    ok        pinned

3/3  The job's output
    $ cat job.out
    if [ -r "x" ]; then . "x"; else printf 'hpcproxy: no prologue.sh here; the job runs on' >&2; fi  # hpcproxy hook
    203.0.113.10
    ok        every node

All 3 steps came out as expected, in 5 s.
"""


@pytest.fixture(scope="module")
def bench() -> ModuleType:
    spec = importlib.util.spec_from_file_location("demo_picture", REPOSITORY / "bench" / "demo_picture.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_it_has_the_chosen_steps_and_the_last_line(bench: ModuleType) -> None:
    lines = bench.chosen(SAID)
    assert lines[0] == "Before: this shell does not reach the internet"
    assert "    203.0.113.10" in lines
    assert lines[-1] == "All 3 steps came out as expected, in 5 s."
    assert not [line for line in lines if "init" in line], "that step is not told"
    assert max(map(len, lines)) <= 92
    (hook,) = [line for line in lines if "# hpcproxy hook" in line]
    assert hook.endswith("…  # hpcproxy hook")


def test_it_is_an_svg_with_those_very_lines(bench: ModuleType) -> None:
    lines = bench.chosen(SAID)
    whole = ET.fromstring(bench.picture(lines))  # noqa: S314 - our own
    drawn = [text.text for text in whole.iter("{http://www.w3.org/2000/svg}text")]
    assert drawn == [line for line in lines if line]


def test_the_one_in_the_docs_is_of_a_run_that_came_out_right() -> None:
    text = (REPOSITORY / "docs" / "demo.svg").read_text()
    assert "steps came out as expected" in text
    assert ET.fromstring(text).tag.endswith("svg")  # noqa: S314 - our own

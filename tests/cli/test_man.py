"""hpcproxy(1) is made from the commands, and has all of them."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from hpcproxy.cli import front, man, program
from tests import REPOSITORY

PAGE = REPOSITORY / "man" / "hpcproxy.1"


def write_page() -> None:
    """The page in man/ is today's."""
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text(man.page(program.tasks()))


def test_the_page_is_todays() -> None:
    for _ in range(2):  # Invoke takes help away from whoever asked for it
        assert PAGE.read_text() == man.page(program.tasks()), "write it anew with: invoke golden"


def test_it_has_every_command_and_no_line_that_roff_would_take_for_its_own() -> None:
    lines = PAGE.read_text().splitlines()
    for name in front.COMMANDS:
        assert [line for line in lines if line.startswith(f".SS hpcproxy {name}".replace("-", "\\-"))] != [], name
    requests = {line.split()[0] for line in lines if line.startswith((".", "'"))}
    assert requests == {".TH", ".SH", ".SS", ".TP", ".B", ".PP"}


@pytest.mark.skipif(shutil.which("groff") is None, reason="groff is not here")
def test_groff_takes_it_without_a_word() -> None:
    argv = ["groff", "-man", "-Tutf8", "-ww", str(PAGE)]
    done = subprocess.run(argv, capture_output=True, check=True)
    assert done.stderr == b""

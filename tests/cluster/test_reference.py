"""The table of flags in docs/admin-reference.md is what the commands take: no flag too many, none too few."""

from __future__ import annotations

import re

import pytest

from hpcproxy.cli import admin
from tests import REPOSITORY
from tests.cli.test_cli import ARGUMENTS

PAGE = (REPOSITORY / "docs" / "admin-reference.md").read_text()
SECTION = PAGE.partition("\n## The commands\n")[2].partition("\n## ")[0]
ROWS = re.findall(r"^\| (`--[^|]+) \| ([^|]+) \| [^|]+ \|$", SECTION, re.MULTILINE)
TASKS = {name: ARGUMENTS[name] for name in (*(task.name.replace("_", "-") for task in admin.TASKS), "render")}


@pytest.mark.parametrize("verb", TASKS)
def test_the_table_has_the_flags_of_each_command(verb: str) -> None:
    told = {flag for flags, verbs in ROWS if f"`{verb}`" in verbs for flag in re.findall(r"--[a-z-]+", flags)}
    taken = {max(argument.names, key=len).replace("_", "-") for argument in TASKS[verb]}
    assert told == {f"--{name}" for name in taken}


def test_it_names_no_command_that_is_not_there() -> None:
    assert {verb for _, verbs in ROWS for verb in re.findall(r"`([a-z-]+)`", verbs)} == set(TASKS)

"""What each folder of templates/lib promises in the table of docs/design.md, held against its commands."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import pytest

from tests import REPOSITORY
from tests.shell_syntax import LIBRARY, Call, calls, functions, includes, parts, templates

PAGE = REPOSITORY / "docs/design.md"
HEADS = {"sh": "# shellcheck shell=dash", "bash": "# shellcheck shell=bash"}


class Rule(NamedTuple):
    shell: str
    errexit: str
    may_end: str


def _rules() -> dict[str, Rule]:
    rows = [line.split("|")[1:-1] for line in PAGE.read_text().splitlines() if line.startswith("| `lib/")]
    return {row[0].strip(" `")[4:]: Rule(*(cell.strip() for cell in row[2:])) for row in rows}


RULES = _rules()
PARTS = pytest.mark.parametrize("part", parts(), ids=lambda path: f"{path.parent.name}/{path.name}")
TEMPLATES = pytest.mark.parametrize("template", templates(), ids=lambda path: path.name)


def _name(call: Call) -> str:
    """What is called, behind `command` and `builtin` too."""
    words = [word for word in call.words if word not in ("command", "builtin")]
    return words[0] if words else ""


def _turns_on(call: Call) -> bool:
    options = [word for word in call.words[1:] if word.startswith("-") and word != "--"]
    return _name(call) == "set" and any("e" in word or "o" in word for word in options)


def test_the_table_has_every_folder_and_no_other() -> None:
    assert sorted(RULES) == sorted(path.name for path in LIBRARY.iterdir())
    assert {(rule.errexit, rule.may_end) for rule in RULES.values()} <= {
        (errexit, end) for errexit in ("on", "off", "either") for end in ("yes", "no")
    }


def test_every_part_is_in_a_script_and_lies_in_a_folder() -> None:
    assert sorted({part for template in templates() for part in includes(template)}) == parts()
    assert parts() == sorted(path for path in LIBRARY.rglob("*") if path.is_file())


@PARTS
def test_a_part_is_in_its_folders_shell(part: Path) -> None:
    assert part.read_text().splitlines()[0] == HEADS[RULES[part.parent.name].shell]


@PARTS
def test_a_part_turns_no_set_e_on(part: Path) -> None:
    assert [call for call in calls(part) if _turns_on(call)] == []


@PARTS
def test_a_part_ends_the_shell_only_where_its_folder_may(part: Path) -> None:
    """`exit`, or another program in the shell's place; in a process of its own, as in $(…), it may."""
    if RULES[part.parent.name].may_end == "yes":
        return
    ends = [
        call for call in calls(part) if not call.aside and _name(call) in ("exit", "exec") and call.words != ("exec",)
    ]
    assert ends == []


@TEMPLATES
def test_a_script_is_what_its_parts_ask_for(template: Path) -> None:
    text = template.read_text()
    errexit = "on" if any(_turns_on(call) for call in calls(template)) else "off"
    for part in includes(template):
        rule = RULES[part.parent.name]
        assert rule.errexit in ("either", errexit), part
        if rule.shell == "bash":
            assert "shell=dash" not in text, part
        if rule.errexit == "on":
            assert "\nset -euo pipefail\n" in text, part
    if any(part.parent.name != "sourced" for part in includes(template)):
        return
    assert errexit == "off", "what users' shells read changes none of their options"


def test_one_line_ends_a_users_shell() -> None:
    """It does what `required: true` promises."""
    read = [template for template in templates() if {part.parent.name for part in includes(template)} == {"sourced"}]
    ends = [(path.name, call.words) for path in read for call in calls(path) if _name(call) == "exit"]
    assert ends == [("prologue.sh.j2", ("exit", "1"))]


@PARTS
def test_no_function_of_a_part_over_40_lines(part: Path) -> None:
    assert [each for each in functions(part) if each.lines > 40] == []


@TEMPLATES
def test_no_function_of_a_template_over_40_lines(template: Path) -> None:
    assert [each for each in functions(template) if each.lines > 40] == []

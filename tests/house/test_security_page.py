"""Every test that the page of promises names is there, and every promise names one."""

from __future__ import annotations

import ast
import re

import pytest

from tests import REPOSITORY

PAGE = (REPOSITORY / "docs" / "security.md").read_text()
SECTION = PAGE.partition("## What is promised")[2].partition("\n## ")[0]
PROMISES = re.findall(r"^\| (.+?) \| (.+?) \|$", SECTION, re.MULTILINE)
NAMED = sorted({name for _, tests in PROMISES for name in re.findall(r"`([^`]+)`", tests)})


def test_every_promise_names_a_test() -> None:
    assert PROMISES[0] == ("promise", "held by")
    rows = PROMISES[1:]
    assert len(rows) > 10
    assert [promise for promise, tests in rows if not re.fullmatch(r"`tests/[^`]+`(, `tests/[^`]+`)*", tests)] == []


@pytest.mark.parametrize("name", NAMED)
def test_a_test_that_is_named_is_there(name: str) -> None:
    path, _, function = name.partition("::")
    tree = ast.parse((REPOSITORY / path).read_text())
    assert function in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}

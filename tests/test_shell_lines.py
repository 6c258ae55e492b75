"""templates/line: shell that is no script, as one line; and no shell stands in a Python string."""

from __future__ import annotations

import ast
import re
import subprocess
from pathlib import Path

import pytest

import hpcproxy
from hpcproxy.shell_lines import LINES, shell_line
from tests import style

PACKAGE = Path(hpcproxy.__file__).parent
NAMES = sorted(path.stem for path in LINES.iterdir())
# Developers' tools have their own: the lab and the demo are no part of what is installed on a cluster.
MODULES = [path for path in sorted(PACKAGE.rglob("*.py")) if path.relative_to(PACKAGE).parts[0] not in ("lab", "demo")]
SHELL = re.compile(
    r"\b(?:if|for|while|until) [^;]+; (?:then|do) |\$\{\w+[:}-]|printf ['\"]%"
    r"|(?<![\w-])(?:if \[|fi;|\|\| \{|exec /|exec sudo|set -[ux]|set -e[ux\n]|trap '|read -r|eval \"(?!`))"
    r"|(?<!emulate )\bsh -c"
)
# What looks like shell and is none of ours to run: a reader of job scripts, advice, ssh's own option.
KNOWN = {
    "files/elsewhere.py": "patterns for what others write",
    "account/overrides.py": "likewise",
}


def _strings(path: Path) -> list[str]:
    """The string constants of a module that are no docstrings."""
    tree = ast.parse(path.read_text())
    documents = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    constants = [node for node in ast.walk(tree) if isinstance(node, ast.Constant) and id(node) not in documents]
    texts = [node.value.decode("latin-1") if isinstance(node.value, bytes) else node.value for node in constants]
    return [text for text in texts if isinstance(text, str)]


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_shell_stands_in_a_python_string(path: Path) -> None:
    if str(path.relative_to(PACKAGE)) in KNOWN:
        return
    assert [text for text in _strings(path) if SHELL.search(text)] == []


def test_the_search_finds_what_it_should() -> None:
    for name in NAMES:
        assert SHELL.search(shell_line(name)), name


@pytest.mark.parametrize("name", NAMES)
def test_a_line_is_one_and_does_what_its_file_does(name: str) -> None:
    line = shell_line(name)
    assert "\n" not in line
    assert "#" not in line
    first = (LINES / f"{name}.sh").read_text().splitlines()[0]
    dialect = "-ln=bash" if first == "# shellcheck shell=bash" else "-ln=posix"
    # Both as shfmt prints them: the same commands, whatever line they stand on.
    shown = [_minified(dialect, text) for text in (line, (LINES / f"{name}.sh").read_text())]
    assert shown[0] == shown[1] != ""


def _minified(dialect: str, text: str) -> str:
    argv = style.shfmt(dialect, "-mn")
    shown = subprocess.run(argv, input=text, capture_output=True, text=True, check=True).stdout
    return re.sub(r"\b(then|else|do);|\{;", lambda match: f"{match[0][:-1]} ", shown.replace("\n", ";"))

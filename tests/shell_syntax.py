"""Shell as a tree: shfmt's parser, asked for the functions and the calls of a file."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from hpcproxy.files.render import TEMPLATES
from tests import style

LIBRARY = TEMPLATES / "lib"
_ASIDE = {"Subshell", "CmdSubst", "ProcSubst"}  # what runs in them is a process of its own
_JINJA = re.compile(r"\{%.*?%\}|<#--.*?--#>", re.DOTALL)


@dataclass(frozen=True)
class Function:
    name: str
    lines: int


@dataclass(frozen=True)
class Call:
    """A simple command: its words as far as they are plain text, and whether the shell itself would feel its `exit`."""

    words: tuple[str, ...]
    line: int
    aside: bool


def parts() -> list[Path]:
    """Return the static shell of all scripts."""
    return sorted(LIBRARY.glob("*/*.sh"))


def templates() -> list[Path]:
    """Return what is rendered for sh and bash, each with the parts that it includes; no other shell takes any."""
    return sorted(
        path for path in TEMPLATES.glob("*/*.j2") if path.suffixes[-2] not in (".fish", ".zsh", ".lua", ".tcl")
    )


def includes(template: Path) -> list[Path]:
    """Return the parts that `template` includes, in their order."""
    return [TEMPLATES / name for name in re.findall(r"{% include '([^']+)' %}", template.read_text())]


def shell_text(path: Path) -> str:
    """Return what a shell would see of a part or a template, with a word in each value's place."""
    return re.sub(r"\{\{.*?\}\}", "x", _JINJA.sub("", path.read_text())) if path.suffix == ".j2" else path.read_text()


def functions(path: Path) -> list[Function]:
    """Return every function of `path`; its lines are counted from its name to its closing brace."""
    return [
        Function(node["Name"]["Value"], node["End"]["Line"] - node["Pos"]["Line"] + 1)
        for node, _ in _walk(_tree(path), aside=False)
        if node.get("Type") == "FuncDecl"
    ]


def calls(path: Path) -> list[Call]:
    """Return every simple command of `path`."""
    return [
        Call(tuple(_plain(word) for word in node["Args"]), node["Pos"]["Line"], aside)
        for node, aside in _walk(_tree(path), aside=False)
        if node.get("Type") == "CallExpr" and node.get("Args")
    ]


@cache
def _tree(path: Path) -> Any:
    dialect = "-ln=bash" if "shell=bash" in path.read_text() or "#!/bin/bash" in path.read_text() else "-ln=posix"
    argv = style.shfmt(dialect, "--to-json")
    done = subprocess.run(argv, input=shell_text(path), capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def _walk(node: Any, *, aside: bool) -> Iterator[tuple[dict[str, Any], bool]]:
    if isinstance(node, list):
        for child in node:
            yield from _walk(child, aside=aside)
    elif isinstance(node, dict):
        yield node, aside
        inside = aside or node.get("Type") in _ASIDE
        for child in node.values():
            yield from _walk(child, aside=inside)


def _plain(word: dict[str, Any]) -> str:
    return "".join(part.get("Value", "\0") for part in word["Parts"])

"""Each bench starts, and what it takes of other modules is there: nobody runs them for weeks, and all else changes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

BENCH = Path(__file__).resolve().parents[1] / "bench"
PROGRAMS = sorted(path.name for path in BENCH.glob("*.py") if '__name__ == "__main__"' in path.read_text())
# Loads the file in argv[1] and prints every `name.what` in it where `name` is a module, and has no `what`.
MISSING = """
import ast, runpy, sys, types
found = runpy.run_path(sys.argv[1], run_name="started")
for node in ast.walk(ast.parse(open(sys.argv[1]).read())):
    if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
        module = found.get(node.value.id)
        if isinstance(module, types.ModuleType) and not hasattr(module, node.attr):
            print(f"{sys.argv[1]}:{node.lineno}: {node.value.id}.{node.attr}")
"""


def _python(*words: str, path: str = "", codes: tuple[int, ...] = (0,)) -> str:
    """What Python prints with these words, as from a shell in a checkout."""
    environ = {**os.environ, "PYTHONPATH": path}
    done = subprocess.run(
        [sys.executable, *words],
        cwd=BENCH.parent,
        env=environ,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode in codes, done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout


@pytest.mark.parametrize("name", PROGRAMS)
def test_it_says_how_it_is_called(name: str) -> None:
    assert _python(f"bench/{name}", "--help").startswith(f"usage: {name}")


@pytest.mark.parametrize("name", sorted(path.name for path in BENCH.glob("*.py")))
def test_what_it_takes_from_other_modules_is_there(name: str) -> None:
    assert _python("-c", MISSING, f"bench/{name}", path=str(BENCH)) == ""


# Those that need no cluster, as short as they can be; code 1 is that of a bound that is missed, as here it may be.
SHORT = {
    "bashrc.py": (("2",), "without "),
    "agent.py": (
        ("--seconds", "0.1", "--sittings", "1", "--gb", "0.001", "--requests", "2", "--python", sys.executable),
        "agent memory, 500 connections relayed",
    ),
}


@pytest.mark.parametrize("name", sorted(SHORT))
def test_it_comes_to_its_end(name: str) -> None:
    words, said = SHORT[name]
    assert said in _python(f"bench/{name}", *words, codes=(0, 1))

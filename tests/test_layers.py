"""The layer table of docs/design.md, held against the import statements."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import hpcproxy
from hpcproxy.config import KEYS

PACKAGE = Path(hpcproxy.__file__).parent
REPOSITORY = PACKAGE.parent

# A module imports from lower layers, or from a neighbour that stands before it here.
LAYERS = {
    "errors": 0,
    "changes": 1,
    "heard": 1,
    "process": 1,
    "config": 1,
    "shell": 1,
    "block": 1,
    "templated": 1,
    "elsewhere": 1,
    "jobscript": 1,
    "settings": 1,
    "floors": 1,
    "sshoptions": 1,
    "reasons": 1,
    "ssh": 1,
    "toolenv": 1,
    "inventory": 1,
    "plan": 2,
    "render": 2,
    "siteplan": 2,
    "firewall": 2,
    "jumpkit": 2,
    "slurmconf": 2,
    "plugstack": 2,
    "governed": 2,
    "wire": 2,
    "outcome": 2,
    "prospect": 2,
    "install": 3,
    "loginshell": 3,
    "overrides": 3,
    "connect": 3,
    "sshconfig": 3,
    "dial": 3,
    "pool": 3,
    "known_hosts": 3,
    "hops": 3,
    "hostkey": 3,
    "recognition": 3,
    "tunnels": 3,
    "collect": 3,
    "become": 3,
    "identity": 3,
    "routes": 3,
    "openssh": 3,
    "session": 3,
    "trouble": 3,
    "deploy": 3,
    "switch": 3,
    "plugin": 3,
    "proof": 3,
    "verify": 3,
    "netcat": 3,
    "ops": 4,
    "asuser": 4,
    "run": 4,
    "trust": 4,
    "kit": 4,
    "image": 4,
    "rollout": 4,
    "report": 5,
    "consent": 5,
    "rehearsal": 5,
    "fleet": 5,
    "cli": 5,
    "__main__": 6,
}
# `lab` and `demo` use the product as its users do; `node` runs on compute nodes and knows nothing of the rest.
APART = {
    "lab": {"cli", "rehearsal"},
    "demo": {"cli", "rehearsal"},
    "node": {"config", "render", "plan", "siteplan", "firewall", "kit", "proof"},
}
ONLY_IN = {
    "yaml": {"config", "settings", "inventory", "overrides"},
    "pydantic": {"config", "inventory"},
    "jinja2": {"render"},
    "fabric": {"deploy", "session"},
    "paramiko": {"deploy", "session", "trouble", "identity"},
    "invoke": {"__main__", "cli", "fleet", "rehearsal", "report"},
    "shlex": {"shell"},
    "rich": {"consent", "fleet", "report"},
    "ClusterShell": {"inventory"},
}

MODULES = sorted(PACKAGE.glob("*.py"))
EVERYTHING = sorted(path for path in PACKAGE.rglob("*.py") if "templates" not in path.parts)


def _imports(path: Path) -> Iterator[str]:
    """Every module that `path` imports anywhere, in functions too; names of our own with their package."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name} imports by a relative name"
            if node.module == "hpcproxy":
                yield from (f"hpcproxy.{alias.name}" for alias in node.names)
            else:
                yield node.module or ""


def _ours(path: Path) -> set[str]:
    names = {name.split(".")[1] for name in _imports(path) if name.startswith("hpcproxy.")}
    return {name for name in names if not name.startswith("__version")}


def test_every_module_has_a_layer() -> None:
    assert {path.stem for path in MODULES} - {"__init__"} <= set(LAYERS)
    assert len(MODULES) > 10


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_a_module_imports_from_lower_layers_only(path: Path) -> None:
    order = list(LAYERS)
    for name in _ours(path):
        if name in APART:
            assert path.stem in APART[name], f"{path.stem} imports {name}"
            continue
        assert LAYERS[name] <= LAYERS[path.stem], f"{path.stem} imports {name} from above"
        assert order.index(name) < order.index(path.stem), f"{path.stem} imports its neighbour {name}"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_a_library_is_used_where_the_table_says(path: Path) -> None:
    for name in {name.split(".")[0] for name in _imports(path)}:
        assert path.stem in ONLY_IN.get(name, {path.stem}), f"{path.stem} imports {name}"


def test_no_file_over_400_lines() -> None:
    files = [
        path
        for folder in ("bench", "hpcproxy", "templates", "tests")
        for path in (REPOSITORY / folder).rglob("*")
        if path.suffix in {".py", ".sh", ".j2"} and "golden" not in path.parts  # which is what the rest renders
    ]
    assert len(files) > 100
    assert [path.name for path in files if len(path.read_text().splitlines()) > 400] == []


@pytest.mark.parametrize("path", EVERYTHING, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_function_over_40_lines(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            lines = (node.end_lineno or 0) - node.lineno + 1
            assert lines <= 40, f"{node.name} has {lines} lines"


@pytest.mark.parametrize("path", EVERYTHING, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_nothing_happens_at_import_but_definitions(path: Path) -> None:
    if path.stem == "__main__":
        return
    for node in ast.parse(path.read_text()).body:
        assert not isinstance(node, (ast.For, ast.While, ast.With)), f"{path.name}:{node.lineno}"


def test_the_manual_names_every_setting() -> None:
    text = (REPOSITORY / "docs" / "configuration.md").read_text()
    assert [key for key in KEYS if f"`{key}`" not in text] == []

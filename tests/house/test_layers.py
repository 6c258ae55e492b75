"""The tables of docs/design.md and docs/agent.md, held against the files and the import statements."""

from __future__ import annotations

import ast
import importlib.util
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import hpcproxy
from hpcproxy.config.model import KEYS

PACKAGE = Path(hpcproxy.__file__).parent
REPOSITORY = PACKAGE.parent

LIBRARIES = {
    *("ClusterShell", "cryptography", "fabric", "invoke", "jinja2", "paramiko", "pydantic", "python_socks", "rich"),
    *("shlex", "yaml"),
}
ACROSS = {"account": "cluster", "cluster": "account", "doctor": "cluster"}  # know nothing of each other
APART = ("node", "lab", "demo")
STARTS = ("", "__main__")  # the package itself, and its program, which stands above all packages


def _rows(page: str, columns: int) -> list[list[str]]:
    """The cells of the tables of docs/`page` that have that many columns, without backquotes in the first two."""
    lines = [line for line in (REPOSITORY / "docs" / page).read_text().splitlines() if line.startswith("| `")]
    rows = [[cell.strip() for cell in line[1:-1].split("|")] for line in lines]
    return [[row[0].strip("`"), row[1].strip("`"), *row[2:]] for row in rows if len(row) == columns]


# Where a module stands, in the order of the table: "package.module", or the module alone on the ground.
PLACES = {
    (module if package == "ground" else f"{package}.{module}"): (package, libraries)
    for package, module, _line, libraries in _rows("design.md", 4)
}
NODE = {
    (module if package == "ground" else f"{package}.{module}"): package
    for package, module, _line in _rows("agent.md", 3)
}
# Each package in one piece, above those that may import from it: to its left in the page's drawing.
PACKAGES = ("ground", "config", "openssh", "files", "account", "cluster", "doctor", "cli")
NODE_PACKAGES = ("ground", "io", "state", "upstream", "proxy", "life")


def _modules(folder: Path) -> dict[str, Path]:
    """Every module below `folder` by its dotted name; a package by its own."""
    paths = [path.relative_to(folder).with_suffix("") for path in folder.rglob("*.py") if "templates" not in path.parts]
    return {".".join(path.parts).removesuffix(".__init__"): folder / path.with_suffix(".py") for path in sorted(paths)}


ALL = {name: path for name, path in _modules(PACKAGE).items() if name != "__init__"}
OURS = {name: path for name, path in ALL.items() if name.split(".")[0] not in APART and path.stem != "__init__"}
AGENT = {name: path for name, path in _modules(PACKAGE / "node").items() if path.stem != "__init__"}


def _imports(path: Path) -> Iterator[str]:
    """Every module that `path` imports anywhere, in functions too; names of our own with their package."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            module = node.module or ""
            inside = [f"{module}.{alias.name}" for alias in node.names if f"{module}.{alias.name}"[9:] in ALL]
            yield from inside or [module]


def _ours(path: Path) -> list[str]:
    names = [name[len("hpcproxy.") :] for name in _imports(path) if name.startswith("hpcproxy.")]
    return [name for name in names if not name.startswith("__version")]


def test_the_table_has_every_module_and_no_other() -> None:
    assert sorted(PLACES) == sorted(set(OURS) - set(STARTS))
    assert len(PLACES) > 50


def test_the_tables_have_each_package_in_one_piece_and_in_its_order() -> None:
    for packages, found in (
        (PACKAGES, [package for package, _ in PLACES.values()]),
        (NODE_PACKAGES, list(NODE.values())),
    ):
        assert found == sorted(found, key=packages.index)


@pytest.mark.parametrize("name", OURS)
def test_a_module_names_what_it_imports_from_the_root(name: str) -> None:
    relative = [
        node for node in ast.walk(ast.parse(OURS[name].read_text())) if isinstance(node, ast.ImportFrom) and node.level
    ]
    assert relative == []


@pytest.mark.parametrize("name", OURS)
def test_a_module_imports_from_above_it_in_the_table_only(name: str) -> None:
    order = list(PLACES)
    for other in _ours(OURS[name]):
        if other.split(".")[0] in APART:
            continue
        assert other in PLACES, f"{name} imports {other}, which is no module"
        if name in STARTS:
            continue
        assert order.index(other) < order.index(name), f"{name} imports {other}, which stands below it"
        assert PLACES[other][0] != ACROSS.get(PLACES[name][0]), f"{name} imports {other} across"


@pytest.mark.parametrize("apart", APART)
def test_what_stands_apart_is_used_where_the_table_says(apart: str) -> None:
    users = {name for name, path in ALL.items() if any(_of(other, apart) for other in _ours(path))}
    packages = {name.split(".")[0] if name.startswith(APART) else name for name in users} - {apart}
    (row,) = [row for row in _rows("design.md", 3) if row[0] == apart]
    assert sorted(packages) == sorted(re.findall("`([^`]+)`", row[2]))


def _of(name: str, package: str) -> bool:
    return name == package or name.startswith(f"{package}.")


def test_no_library_is_used_that_the_table_would_not_name() -> None:
    used = {library.split(".")[0] for path in OURS.values() for library in _imports(path)}
    assert {name for name in used if _is_installed(name)} <= LIBRARIES


def _is_installed(name: str) -> bool:
    """Whether it is neither ours nor Python's own."""
    spec = importlib.util.find_spec(name)
    where = spec.origin if spec is not None else ""
    return name != "hpcproxy" and bool(re.search("/(site|dist)-packages/", where or ""))


@pytest.mark.parametrize("name", PLACES)
def test_a_library_is_used_where_the_table_says(name: str) -> None:
    used = {library.split(".")[0] for library in _imports(OURS[name])} & LIBRARIES
    assert used == set(PLACES[name][1].split(", ")) & LIBRARIES


def test_the_map_of_the_agent_has_every_module_and_no_other() -> None:
    assert sorted(NODE) == sorted(AGENT)
    assert len(NODE) > 30


@pytest.mark.parametrize("name", AGENT)
def test_a_module_of_the_agent_imports_from_above_it_in_its_map_only(name: str) -> None:
    order, here = list(NODE), name.split(".")[:-1]
    for node in ast.walk(ast.parse(AGENT[name].read_text())):
        if not isinstance(node, ast.ImportFrom) or not node.level:
            continue
        base = here[: len(here) - (node.level - 1)] + (node.module.split(".") if node.module else [])
        others = [".".join(base)] if node.module else [".".join([*base, alias.name]) for alias in node.names]
        for other in others:
            assert NODE[name] != "ground", f"{name} imports {other}"
            assert order.index(other) < order.index(name), f"{name} imports {other}, which stands below it"


def test_no_file_over_400_lines() -> None:
    files = [
        path
        for folder in ("bench", "hpcproxy", "templates", "tests")
        for path in (REPOSITORY / folder).rglob("*")
        if path.suffix in {".py", ".sh", ".j2"} and "golden" not in path.parts  # which is what the rest renders
    ]
    assert len(files) > 100
    assert [path.name for path in files if len(path.read_text().splitlines()) > 400] == []


@pytest.mark.parametrize("path", ALL.values(), ids=ALL)
def test_no_function_over_40_lines(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            lines = (node.end_lineno or 0) - node.lineno + 1
            assert lines <= 40, f"{node.name} has {lines} lines"


@pytest.mark.parametrize("path", ALL.values(), ids=ALL)
def test_nothing_happens_at_import_but_definitions(path: Path) -> None:
    if path.stem == "__main__":
        return
    for node in ast.parse(path.read_text()).body:
        assert not isinstance(node, (ast.For, ast.While, ast.With)), f"{path.name}:{node.lineno}"


def test_the_manual_names_every_setting() -> None:
    text = (REPOSITORY / "docs" / "configuration.md").read_text()
    assert [key for key in KEYS if f"`{key}`" not in text] == []

"""What the pages tell somebody to type is there, and can be pasted; what they draw is as it is drawn."""

from __future__ import annotations

import ast
import re
import subprocess
from pathlib import Path

import pytest
from invoke.collection import Collection

import hpcproxy
import tasks as checkout
from hpcproxy.account import job_script
from hpcproxy.cli import program
from hpcproxy.openssh import reasons

PACKAGE = Path(hpcproxy.__file__).parent
REPOSITORY = PACKAGE.parent
PAGES = [*sorted((REPOSITORY / "docs").glob("*.md")), REPOSITORY / "README.md", REPOSITORY / "CONTRIBUTING.md"]


def _blocks(page: Path) -> list[str]:
    """The texts of a page that a shell is to read."""
    return re.findall(r"^```sh\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL)


def _names(collection: Collection) -> list[str]:
    return sorted(name for name in collection.task_names)


# ------------------------------------------------------------------------------------------------ commands


@pytest.mark.parametrize("name", _names(program.tasks()))
def test_every_command_stands_on_a_page(name: str) -> None:
    spelled = re.compile(rf"\b(hpcproxy|invoke) {re.escape(name)}\b")
    assert [page.name for page in PAGES if spelled.search(page.read_text())] != []


@pytest.mark.parametrize("name", sorted(set(_names(checkout.namespace)) - set(_names(program.tasks()))))
def test_every_task_of_a_checkout_stands_on_a_page(name: str) -> None:
    assert [page.name for page in PAGES if re.search(rf"\binvoke {re.escape(name)}\b", page.read_text())] != []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_on_a_page_is_there(page: Path) -> None:
    blocks = re.sub(r" +# .*", "", "\n".join(_blocks(page)))
    known = {"hpcproxy": _names(program.tasks()), "invoke": _names(checkout.namespace)}
    for spelled, name in re.findall(r"(?:^|[ /(])(hpcproxy|invoke) ([a-z][a-z.-]+)", blocks, re.MULTILINE):
        assert name in known[spelled], f"{page.name} tells to type {spelled} {name}"


def test_what_contributing_names_is_there() -> None:
    text = (REPOSITORY / "CONTRIBUTING.md").read_text()
    spoken = [name for name in re.findall(r"`([^` ]+)`", text) if "/" in name and not name.startswith("/")]
    typed = re.findall(r"\btests/\S+\.py\b", "\n".join(_blocks(REPOSITORY / "CONTRIBUTING.md")))
    assert len(spoken) > 10
    assert [name for name in [*spoken, *typed] if not (REPOSITORY / name).exists() and name != ".venv/bin/"] == []
    for line in "\n".join(_blocks(REPOSITORY / "CONTRIBUTING.md")).splitlines():
        _flags_are_there(line)


def _flags_are_there(line: str) -> None:
    """Each flag of an `invoke TASK --flag` on that line is one that the task takes."""
    typed = re.match(r"(?:sudo )?\.venv/bin/invoke ([a-z.-]+)((?: .*?)?)(?: -- .*)?$", line)
    if typed is None:
        return
    flags = {flag for argument in checkout.namespace[typed[1]].get_arguments() for flag in argument.names}
    asked = {flag.replace("-", "_") for flag in re.findall(r" --([a-z-]+)", typed[2])}
    assert asked <= {flag.replace("-", "_") for flag in flags}, line


@pytest.mark.parametrize("page", ["README.md", "docs/design.md"])
def test_a_stranger_finds_it(page: str) -> None:
    assert "CONTRIBUTING.md" in (REPOSITORY / page).read_text()


# ------------------------------------------------------------------------------------------------ samples


def test_the_readmes_job_script_can_be_pasted(tmp_path: Path) -> None:
    (sample,) = [block for block in _blocks(REPOSITORY / "README.md") if "#SBATCH" in block]
    assert job_script.usual_hook().decode().strip() in sample.splitlines()
    script = tmp_path / "train.sh"
    script.write_text(sample.replace("srun ", ": "))
    for shell in ("bash", "dash"):
        done = subprocess.run([shell, "-eu", script], capture_output=True, text=True, check=True)
        assert done.stderr == "hpcproxy: no prologue.sh here; the job runs on without a way out\n"


# ------------------------------------------------------------------------------------------------ what is drawn


def _errors(path: Path) -> set[str]:
    """The errors of ours that a module defines."""
    classes = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.ClassDef)]
    return {each.name for each in classes if any(getattr(base, "id", "") == "HpcproxyError" for base in each.bases)}


def test_the_error_tree_is_the_real_one() -> None:
    paths = [path for path in sorted(PACKAGE.rglob("*.py")) if "templates" not in path.parts]
    real = {f"{path.stem}.{name}".removeprefix("errors.") for path in paths for name in _errors(path)}
    drawn, folder = set(), ""
    for line in (ast.get_docstring(ast.parse((PACKAGE / "errors.py").read_text())) or "").splitlines():
        if branch := re.match(r"[│ ]*[├└]── ([A-Za-z_.]+)", line):
            name = branch[1]
            if not name.endswith("Error"):
                folder = name
            else:
                drawn.add(f"{folder}.{name}" if line[0] in "│ " and "." not in name else name)
    assert drawn == real
    assert len(drawn) > 10


_WORLD = {
    *("subprocess", "socket", "tempfile", "shutil", "selectors", "fabric", "paramiko", "threading", "signal", "fcntl"),
}
_TOUCHING = {
    *("read_text", "read_bytes", "write_text", "write_bytes", "mkdir", "unlink", "exists", "is_file", "is_dir", "stat"),
    *("lstat", "iterdir", "glob", "rglob", "rename", "run", "Popen", "chmod", "getenv"),
}
_PURE = [
    path
    for path in sorted(PACKAGE.rglob("*.py"))
    if "templates" not in path.parts
    and re.search(r"\bPure\b(?!,? but)", ast.get_docstring(ast.parse(path.read_text())) or "")
]


def test_many_modules_are_pure() -> None:
    assert len(_PURE) >= 15


@pytest.mark.parametrize("path", _PURE, ids=lambda path: f"{path.parent.name}.{path.stem}")
def test_a_module_that_says_pure_touches_nothing(path: Path) -> None:
    nodes = list(ast.walk(ast.parse(path.read_text())))
    imported = {alias.name.split(".")[0] for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    imported |= {(node.module or "").split(".")[0] for node in nodes if isinstance(node, ast.ImportFrom)}
    assert imported & _WORLD == set()
    calls = [node.func for node in nodes if isinstance(node, ast.Call)]
    assert {call.attr for call in calls if isinstance(call, ast.Attribute)} & _TOUCHING == set()
    assert {call.id for call in calls if isinstance(call, ast.Name)} & {"open", "print", "input"} == set()


def test_every_layer_that_a_reason_names_stands_in_troubleshooting() -> None:
    text = (REPOSITORY / "docs" / "troubleshooting.md").read_text()
    inner = ("phase", "offered", "skip")  # of the table's own working, never shown
    layers = {row.why.layer for row in reasons.FAILURES} - set(inner)
    assert len(layers) > 5
    assert [layer for layer in sorted(layers) if f"| `{layer}: " not in text] == []

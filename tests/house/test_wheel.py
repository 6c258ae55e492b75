"""The wheel alone: built, installed in a fresh environment, and used where the sources are out of reach."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import venv
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from hpcproxy import __version__
from tests import REPOSITORY

_SOURCES = ("hpcproxy", "templates", "pyproject.toml", "LICENSE", "README.md", "man")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from a copy so that nothing of the build reaches the checkout."""
    copy, target = tmp_path_factory.mktemp("sources"), tmp_path_factory.mktemp("wheel")
    for name in _SOURCES:
        source = REPOSITORY / name
        if source.is_dir():
            shutil.copytree(source, copy / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, copy / name)
    # With the environment's own setuptools: a test needs no network.
    argv = [sys.executable, "-m", "build", "--no-isolation", "--wheel", "--outdir", str(target), str(copy)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (built,) = target.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def program(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """`hpcproxy` as installed from the wheel; its dependencies are those of the environment that runs the tests."""
    directory = tmp_path_factory.mktemp("venv")
    venv.create(directory, with_pip=False)
    argv = [sys.executable, "-m", "pip", "--python", str(directory / "bin" / "python")]
    subprocess.run([*argv, "install", "--quiet", "--no-deps", "--no-index", str(wheel)], check=True)
    own = next((directory / "lib").glob("python*/site-packages"))
    theirs = [path for path in sys.path if path.endswith("-packages")]
    # Behind the wheel's own; an editable install's finder is started by .pth files, which are not read this way.
    (own / "dependencies.pth").write_text("\n".join(theirs) + "\n")
    yield directory / "bin" / "hpcproxy"
    shutil.rmtree(directory)


def _run(program: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environ = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    argv = [str(program), *arguments]
    return subprocess.run(argv, capture_output=True, text=True, check=False, cwd="/", env=environ)


def test_the_wheel_holds_the_templates_and_nothing_of_the_tests(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    templates = {str(path.relative_to(REPOSITORY)) for path in (REPOSITORY / "templates").rglob("*") if path.is_file()}
    assert {f"hpcproxy/{name}" for name in templates} <= set(names)
    assert "hpcproxy/py.typed" in names
    beside = {f"hpcproxy-{__version__}.dist-info", f"hpcproxy-{__version__}.data"}
    assert {name.split("/")[0] for name in names} == {"hpcproxy", *beside}
    manual = f"hpcproxy-{__version__}.data/data/share/man/man1/hpcproxy.1"
    assert [name for name in names if ".data/" in name] == [manual]
    packages = {str(path.relative_to(REPOSITORY)) for path in (REPOSITORY / "hpcproxy").rglob("__init__.py")}
    # What runs on compute nodes goes there as one built file, not as a package.
    assert packages - {"hpcproxy/node/__init__.py"} <= set(names)


def test_the_installed_program_is_the_wheels(program: Path) -> None:
    python = program.parent / "python"
    done = _run(python, "-c", "import hpcproxy; print(hpcproxy.__file__)")
    assert done.stdout.startswith(str(program.parent.parent)), done.stdout + done.stderr
    assert _run(program, "--version").stdout.split()[:2] == ["hpcproxy", __version__]


def test_the_installed_program_renders_and_installs(program: Path, home: Path) -> None:
    listed = _run(program, "render")
    assert (listed.returncode, listed.stderr) == (0, "")
    for name in ("tunnel.sh", "job.sh", "prologue.sh", "epilogue.sh", "bashrc.sh"):
        assert name in listed.stdout
        assert _run(program, "render", "--name", name).stdout.count("\n") > 20
    installed = _run(program, "install-bashrc", "--jump", "u@h", "--port", "2015")
    assert installed.returncode == 0, installed.stderr
    assert (home / ".hpcproxy" / "tunnel.sh").read_text() == _run(program, "render", "--name", "tunnel.sh").stdout
    assert _run(program, "uninstall").returncode == 0
    assert list(home.iterdir()) == []

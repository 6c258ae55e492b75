"""The floor: every Python from 3.6 on that is here runs the built file, and the sources promise no more."""

import ast
import glob
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from hpcproxy.node import build
from tests.waiting import until

from .harness import OPENINGS, Agent, clean_environment, echo, jump_of

PACKAGE = Path(build.__file__).parent
SOURCES = sorted(PACKAGE.rglob("*.py"))
STANDARD = {
    *(
        "_thread",
        "array",
        "binascii",
        "collections",
        "ctypes",
        "errno",
        "fcntl",
        "gc",
        "heapq",
        "io",
        "json",
        "marshal",
        "os",
    ),
    *("re", "resource", "select", "signal", "socket", "stat", "struct", "sys", "termios", "time", "types", "typing"),
    *("zipfile", "zipimport"),
}
# What no other of the agent's processes loads.
OF_ITS_OWN_PROCESS = {"handshakes.py": {"queue", "ssl", "threading"}, "meet.py": {"contextlib"}}


def pythons():
    """Every python3 of this machine, 3.6 and later, one per version."""
    places = os.environ["PATH"].split(os.pathsep) + glob.glob(os.path.expanduser("~/.pyenv/versions/*/bin"))
    found = {}
    for path in sorted({path for place in places for path in glob.glob(os.path.join(place, "python3*"))}):
        if re.search(r"/python3(\.\d+)?$", path) and os.access(path, os.X_OK):
            done = subprocess.run(
                [path, "-I", "-c", "import sys; print('%d.%d.%d' % sys.version_info[:3])"],
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                universal_newlines=True,
                check=False,
                env=clean_environment("/"),
            )
            version = done.stdout.strip()
            if done.returncode == 0 and tuple(map(int, version.split("."))) >= (3, 6):
                found.setdefault(version, path)
    return sorted(found.items())


@pytest.mark.parametrize("version, path", pythons())
def test_every_python_here_runs_it(version, path, jump_host, far_end, tmp_path):
    server = far_end(echo)
    agent = Agent(tmp_path / "a", [jump_of(jump_host)], python=path, flags=("-I", "-X", "dev", "-W", "error")).start()
    try:
        agent.ready()
        for opening in OPENINGS:
            sock, head = agent.tunnel(server.target)
            with sock:
                assert b" 200 " in head
                sock.sendall(opening + b"hello")
                assert sock.recv(10) == opening + b"hello"
        assert agent.ask(b"GET http://127.0.0.1:1/ HTTP/1.1\r\n\r\n").startswith(b"HTTP/1.1 502 ")
        os.kill(agent.ssh_pid(), 9)
        until(lambda: agent.status().get("reconnects") == 1, "it reconnects")
        log = agent.log()
    finally:
        code = agent.stop()
    assert (code, agent.err.read_text()) == (0, "")
    assert " error " not in log


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_the_sources_are_python_36(path):
    tree = ast.parse(path.read_text(encoding="utf-8"), feature_version=(3, 6))
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            modules = [node.module]
        else:
            continue
        for module in modules:
            wanted = STANDARD | OF_ITS_OWN_PROCESS.get(path.name, set())
            assert module.partition(".")[0] in wanted, "{}: imports {}".format(path.name, module)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_modules_and_functions_are_short(path):
    text = path.read_text(encoding="utf-8")
    assert text.count("\n") < 400
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            assert node.end_lineno - node.lineno < 40, node.name
            assert ast.get_docstring(node) or node.name.startswith("_") or node.name in ("stop", "done"), node.name


def test_vermin_finds_nothing_newer():
    vermin = shutil.which("vermin", path=os.path.dirname(sys.executable)) or shutil.which("vermin")
    assert vermin is not None, "vermin comes with the extra `dev`"
    # --no-parse-comments: a comment's date is no feature. Variable annotations are of 3.6 themselves.
    done = subprocess.run(
        [vermin, "-t=3.6-", "--violations", "--eval-annotations", *map(str, SOURCES)],
        stdout=subprocess.PIPE,
        universal_newlines=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout


def test_the_same_sources_give_the_same_bytes(tmp_path):
    again = tmp_path / "node"
    shutil.copytree(str(PACKAGE), str(again), ignore=shutil.ignore_patterns("__pycache__"))
    code = "import sys; sys.path.insert(0, {!r}); from node.build import build; sys.stdout.buffer.write(build())"
    done = subprocess.run(
        [sys.executable, "-I", "-c", code.format(str(tmp_path))], stdout=subprocess.PIPE, check=True, cwd="/"
    )
    assert done.stdout == build.build()


def test_what_is_in_the_file(tmp_path):
    path = tmp_path / "agent.pyz"
    path.write_bytes(build.build())
    with zipfile.ZipFile(str(path)) as archive:
        names = archive.namelist()
    assert names[0] == "__main__.py"
    assert "hpcproxy_node/build.py" not in names
    assert len(names) == len(SOURCES)  # all but build.py, and __main__.py
    assert path.read_bytes().startswith(b"#!/usr/bin/env python3\n")

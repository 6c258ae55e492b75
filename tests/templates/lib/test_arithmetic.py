"""In an arithmetic expression and in a subscript of bash's a value is a program: `a[$(cmd)]` runs cmd."""

from __future__ import annotations

import os
import re
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from hpcproxy.files.render import render
from tests import REPOSITORY
from tests.cluster.cases import plan
from tests.shells import SHELLS, script, tunnel_state
from tests.supervisor import write_script

# What a script reads of its environment, by the names that it writes out.
OUTSIDE = re.compile(r"\b(?:SLURM|SLURMD|SRUN|HPCPROXY)_?[A-Z0-9_]*\b|\b(?:TMPDIR|HOME|UID|RANDOM|HOSTNAME)\b")
NOT_TO_BE_SET = ("UID", "RANDOM", "HPCPROXY_")  # bash's own; the head of a name
BASE = {"SLURM_JOB_ID": "77", "SLURM_JOB_UID": "4242", "SLURM_JOB_NUM_NODES": "1", "SLURMD_NODENAME": "c1"}


def _environments(text: str, marker: Path) -> list[dict[str, str]]:
    """One for each variable that the script knows, with a program as its value."""
    names = sorted({name for name in OUTSIDE.findall(text) if name not in NOT_TO_BE_SET and not name.endswith("_")})
    program = f"a[$(touch {marker})]"
    return [{name: value} for name in names for value in (program, f"1{program}", f"x[0$(touch {marker})]+1")]


def _stubs(directory: Path) -> str:
    """A PATH with an ssh that is refused, and a Slurm that knows nothing."""
    directory.mkdir()
    refused = 'while [ $# -gt 0 ]; do [ "$1" = -E ] && echo \'u@h: Permission denied (publickey).\' >"$2"; shift; done'
    for name, body in {
        "ssh": f"{refused}; exit 255",
        "srun": "exit 1",
        "squeue": "exit 1",
        "scancel": ":",
        "logger": ":",
    }.items():
        (directory / name).write_text(f"#!/bin/sh\n{body}\n")
        (directory / name).chmod(0o755)
    return f"{directory}:/usr/bin:/bin"


@pytest.mark.parametrize("command", ["job.sh start", "job.sh stop", "job.sh status", "tunnel.sh hold 77 0 ssh"])
def test_a_users_scripts_run_no_value_of_the_environment(command: str, tmp_path: Path) -> None:
    name, *words = command.split()
    path = write_script(tmp_path / "home", jump="u@h").with_name(name)
    marker, search = tmp_path / "ran", _stubs(tmp_path / "bin")
    with tunnel_state("77") as state:
        (state / "pid").write_text("1 a[$(touch x)]\n")
        for one in _environments(path.read_text(), marker):
            environ = {**os.environ, "PATH": search, **BASE, **one}
            argv = ["/bin/bash", "-p", str(path), *words]
            subprocess.run(argv, env=environ, cwd=tmp_path, capture_output=True, check=False, timeout=60)
            assert not marker.exists(), one


@pytest.mark.parametrize("name", ["prolog", "epilog", "taskprolog"])
def test_slurms_hooks_run_no_value_of_the_environment(name: str, tmp_path: Path) -> None:
    whole = plan(settings={"jump": "u@h"}, policy={"comment": True})
    file = render(replace(whole, values={**whole.values, "run": tmp_path / "run", "home": tmp_path / "none"})).named(
        name
    )
    assert file is not None
    path, marker = tmp_path / name, tmp_path / "ran"
    path.write_bytes(file.content)
    (tmp_path / "run/holders").mkdir(parents=True)
    (tmp_path / "run/holders/77.0.said").write_text("ready c1 j\n")
    for one in _environments(path.read_text(), marker):
        environ = {"HPCPROXY_KEY": "77.0", "HPCPROXY_URL": "http://127.64.0.77:2015", **BASE, **one}
        argv = ["/bin/bash", "-p", str(path)]
        subprocess.run(argv, env=environ, cwd=tmp_path, capture_output=True, check=False, timeout=60)
        assert not marker.exists(), one


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize("name", ["prologue.sh", "epilogue.sh", "bashrc.sh"])
def test_fragments_run_no_value_of_the_environment(shell: str, name: str, tmp_path: Path) -> None:
    path = write_script(tmp_path / "home", jump="u@h").with_name(name)
    (path.parent / "job.sh").write_text("exit 1\n")
    marker = tmp_path / "ran"
    text = f". {path}\n" + ("proxy_on; proxy_status; proxy_off\n" if name == "bashrc.sh" else "")
    for one in _environments(path.read_text(), marker):
        script(shell, text, {**os.environ, **BASE, "http_proxy": "http://127.0.0.1:2015", **one})
        assert not marker.exists(), one


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize("since", ["a[$(touch ran)]", "0a[$(touch ran)]", "09", "-1", "99999999999999999999"])
def test_no_value_of_a_status_is_run(shell: str, since: str, tmp_path: Path) -> None:
    path = write_script(tmp_path / "home", jump="u@h").with_name("bashrc.sh")
    with tunnel_state() as state:
        (state / "status").write_text(f"version=1\nready=true\nsince={since}\njump=j\n")
        done = script(shell, f"set -eu; . {path}; cd {tmp_path}; proxy_on; proxy_status", os.environ)
    assert "through j\n" in done.stdout, done.stderr
    assert done.stderr == ""
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("job", ["a[$(touch ran)]", "1;touch ran", "0x10", "", "-1", "12345678901"])
def test_what_is_no_job_id_has_no_address(job: str, tmp_path: Path) -> None:
    library = REPOSITORY / "templates/lib/any/address.sh"
    words = ["/bin/bash", "-c", '. "$0"; job_address "$1" && echo "$address"', library, job]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (1, "", "")
    assert list(tmp_path.iterdir()) == []


def test_a_zero_in_front_makes_no_other_number_of_a_job_id(tmp_path: Path) -> None:
    library = REPOSITORY / "templates/lib/any/address.sh"
    words = ["/bin/bash", "-c", 'set -e; . "$0"; for job; do job_address "$job"; echo "$address"; done', library]
    done = subprocess.run([*words, "89", "089", "0000000089"], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert done.stdout.split() == ["127.64.0.89"] * 3


def test_every_script_that_is_run_refuses_what_bash_would_inherit() -> None:
    """By -p: no functions, options, BASH_ENV of whoever starts it, also where it is started by its name."""
    site = render(plan())
    scripts = [file for file in site.files if file.content.startswith(b"#!") and b"bash" in file.content[:20]]
    assert len(scripts) >= 5
    assert {file.content.partition(b"\n")[0] for file in scripts} == {b"#!/bin/bash -p"}

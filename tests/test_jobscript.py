from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpcproxy import jobscript
from hpcproxy.errors import ScriptError
from hpcproxy.jobscript import HOOK, MARK

_HEADS = [b"#!/bin/bash", b"#!/bin/sh", b"#!/usr/bin/env bash", b"#! /bin/dash -e"]
_script_lines = st.one_of(
    st.sampled_from(
        [
            b"#SBATCH -N3",
            b"#SBATCH --gres=gpu:1",
            b"# comment",
            b"  # indented comment",
            b"",
            b"   ",
            b"srun hostname",
            b"##SBATCH off",
            b"#PBS x",
            b"echo '# hpcproxy hook' here",
            b"\xff",
        ]
    ),
    st.binary(max_size=12).map(lambda raw: raw.replace(b"\n", b"").replace(b"\r", b"")),
)
_scripts = st.builds(
    lambda head, lines, end: b"\n".join([head, *lines]) + end,
    st.sampled_from(_HEADS),
    st.lists(_script_lines, max_size=10),
    st.sampled_from([b"", b"\n"]),
)


@settings(max_examples=1000)
@given(_scripts)
def test_remove_undoes_put_byte_for_byte(script: bytes) -> None:
    assert jobscript.remove(jobscript.put(script)) == script


@given(_scripts)
def test_putting_twice_is_putting_once(script: bytes) -> None:
    once = jobscript.put(script)
    assert once.count(HOOK) == 1
    assert jobscript.put(once) == once


@settings(max_examples=1000)
@given(_scripts)
def test_no_option_that_sbatch_reads_stands_behind_the_hook(script: bytes) -> None:
    wrapped = jobscript.put(script)
    assert _options_read_by_sbatch(wrapped) == _options_read_by_sbatch(script)


def _options_read_by_sbatch(script: bytes) -> list[bytes]:
    """What Slurm's own parser takes (src/sbatch/opt.c): every line up to the first whose first visible is no #."""
    options = []
    for line in script.split(b"\n"):
        if line.startswith(b"#SBATCH"):
            options.append(line)
        elif line.lstrip(b" \t\v\f\r") and not line.lstrip(b" \t\v\f\r").startswith(b"#"):
            break
    return options


@given(_scripts)
def test_remove_leaves_a_script_without_hook_alone(script: bytes) -> None:
    assert jobscript.remove(script) == script


def test_the_hook_stands_right_behind_the_last_option() -> None:
    script = b"#!/bin/bash\n#SBATCH -N3\n# why\n\n#SBATCH --time=1\n# next\nsrun hostname\n#SBATCH late\n"
    expected = (
        b"#!/bin/bash\n#SBATCH -N3\n# why\n\n#SBATCH --time=1\n" + HOOK + b"\n# next\nsrun hostname\n#SBATCH late\n"
    )
    assert jobscript.put(script) == expected


def test_a_script_without_options_gets_it_behind_the_first_line() -> None:
    assert jobscript.put(b"#!/bin/sh\ntrue\n") == b"#!/bin/sh\n" + HOOK + b"\ntrue\n"


def test_a_script_of_options_only_without_final_newline() -> None:
    script = b"#!/bin/bash\n#SBATCH -N1"
    assert jobscript.put(script) == script + b"\n" + HOOK
    assert jobscript.remove(script + b"\n" + HOOK) == script


def test_the_hook_of_an_earlier_version_is_replaced() -> None:
    old = b"#!/bin/bash\n#SBATCH -N1\n. ~/.hpcproxy/old.sh  " + MARK + b"\ntrue\n"
    assert jobscript.put(old) == b"#!/bin/bash\n#SBATCH -N1\n" + HOOK + b"\ntrue\n"


def test_options_that_sbatch_never_reads_are_numbered() -> None:
    script = b"#!/bin/bash\n#SBATCH -N1\nmodule load x\n#SBATCH -n2\n\n#SBATCH -c3\n"
    assert jobscript.ignored_options(script) == [4, 6]
    assert jobscript.ignored_options(jobscript.put(script)) == [5, 7]
    assert jobscript.ignored_options(b"#!/bin/bash\n#SBATCH -N1\n  # so\n#SBATCH -n2\ntrue\n") == []


@pytest.mark.parametrize(
    "head",
    [
        b"#!/bin/bash",
        b"#!/bin/bash -l",
        b"#! /bin/sh",
        b"#!/bin/dash",
        b"#!/usr/bin/env bash",
        b"#!/usr/bin/env -S bash -l",
        b"#!/usr/bin/env -S A=1 bash",
    ],
)
def test_shells_that_can_source_it(head: bytes) -> None:
    assert jobscript.put(head + b"\ntrue\n") == head + b"\n" + HOOK + b"\ntrue\n"


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        (b"#!/bin/zsh\ntrue\n", "is a zsh script; the hook line needs one of bash, sh, dash"),
        (b"#!/usr/bin/env python3\nprint()\n", "is a python3 script"),
        (b"#!/bin/tcsh\n", "is a tcsh script"),
        (b"#!/usr/bin/env\n", "is a env script"),
        (b"#!/bin/bashful\n", "is a bashful script"),
        (b"#!/bin/ba\xffsh\n", "is a ba�sh script"),
        (b"echo hello\n", "its first line is no #!"),
        (b"\n#!/bin/bash\n", "its first line is no #!"),
        (b"#!\n", "its first line is no #!"),
        (b"", "its first line is no #!"),
        (b"\xef\xbb\xbf#!/bin/bash\n", "its first line is no #!"),
        (b"#!/bin/bash\r\ntrue\r\n", "DOS line endings"),
        (b"#!/bin/bash\ntrue\r\n", "DOS line endings"),
        (b"\x7fELF\0\0", "its first line is no #!"),
    ],
)
def test_a_script_that_cannot_take_it_is_refused_by_name(script: bytes, reason: str) -> None:
    with pytest.raises(ScriptError) as caught:
        jobscript.put(script, "job.sh")
    assert str(caught.value).startswith("job.sh: ")
    assert reason in str(caught.value)


# ------------------------------------------------------------------------------------------------ the line itself

SHELLS = ("bash", "dash")


@pytest.mark.parametrize("shell", SHELLS)
def test_the_hook_line_parses(shell: str) -> None:
    done = subprocess.run([shell, "-n"], input=HOOK + b"\n", capture_output=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


@pytest.mark.parametrize("dialect", SHELLS)
def test_the_hook_line_passes_shellcheck(dialect: str) -> None:
    # SC1090: a path that is known at run time only cannot be followed.
    argv = ["shellcheck", "-s", dialect, "-e", "SC1090,SC1091", "-"]
    done = subprocess.run(argv, input=HOOK + b"\n", capture_output=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def _run(shell: str, text: bytes, environ: dict[str, str]) -> subprocess.CompletedProcess[bytes]:
    program = shutil.which(shell)
    assert program is not None
    return subprocess.run([program, "-s"], input=text, capture_output=True, check=False, env=environ)


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize("environ", [{}, {"HOME": "/nowhere"}, {"HPCPROXY_HOME": "/no where"}])
def test_without_our_files_the_job_runs_on_with_one_line(shell: str, environ: dict[str, str]) -> None:
    done = _run(shell, b"set -eu\n" + HOOK + b"\nprintf 'went on %s\\n' \"$?\"\n", environ)
    assert (done.returncode, done.stdout) == (0, b"went on 0\n")
    assert done.stderr == b"hpcproxy: no prologue.sh here; the job runs on without a way out\n"


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize("variable", ["HOME", "HPCPROXY_HOME"])
def test_with_our_files_the_prologue_is_sourced(shell: str, variable: str, tmp_path: Path) -> None:
    directory = tmp_path / "o'ur $(touch x) hömé"
    ours = directory / ".hpcproxy" if variable == "HOME" else directory
    ours.mkdir(parents=True)
    (ours / "prologue.sh").write_text("sourced=yes\n")
    done = _run(shell, b"set -eu\n" + HOOK + b"\nprintf '%s\\n' \"$sourced\"\n", {variable: str(directory)})
    assert (done.returncode, done.stdout, done.stderr) == (0, b"yes\n", b"")

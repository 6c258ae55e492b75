from __future__ import annotations

import shutil
import string
import subprocess
from pathlib import Path

import jinja2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpcproxy.account import job_script
from hpcproxy.account.job_script import MARK, State
from hpcproxy.errors import ScriptError

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
    assert job_script.remove(job_script.put(script)) == script


@given(_scripts)
def test_putting_twice_is_putting_once(script: bytes) -> None:
    once = job_script.put(script)
    assert once.count(HOOK) == 1
    assert job_script.put(once) == once


@settings(max_examples=1000)
@given(_scripts)
def test_no_option_that_sbatch_reads_stands_behind_the_hook(script: bytes) -> None:
    wrapped = job_script.put(script)
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
    assert job_script.remove(script) == script


def test_the_hook_stands_right_behind_the_last_option() -> None:
    script = b"#!/bin/bash\n#SBATCH -N3\n# why\n\n#SBATCH --time=1\n# next\nsrun hostname\n#SBATCH late\n"
    expected = (
        b"#!/bin/bash\n#SBATCH -N3\n# why\n\n#SBATCH --time=1\n" + HOOK + b"\n# next\nsrun hostname\n#SBATCH late\n"
    )
    assert job_script.put(script) == expected


def test_a_script_without_options_gets_it_behind_the_first_line() -> None:
    assert job_script.put(b"#!/bin/sh\ntrue\n") == b"#!/bin/sh\n" + HOOK + b"\ntrue\n"


def test_a_script_of_options_only_without_final_newline() -> None:
    script = b"#!/bin/bash\n#SBATCH -N1"
    assert job_script.put(script) == script + b"\n" + HOOK
    assert job_script.remove(script + b"\n" + HOOK) == script


def test_the_hook_of_an_earlier_version_is_replaced() -> None:
    old = b"#!/bin/bash\n#SBATCH -N1\n. ~/.hpcproxy/old.sh  " + MARK + b"\ntrue\n"
    assert job_script.put(old) == b"#!/bin/bash\n#SBATCH -N1\n" + HOOK + b"\ntrue\n"


def test_options_that_sbatch_never_reads_are_numbered() -> None:
    script = b"#!/bin/bash\n#SBATCH -N1\nmodule load x\n#SBATCH -n2\n\n#SBATCH -c3\n"
    assert job_script.ignored_options(script) == [4, 6]
    assert job_script.ignored_options(job_script.put(script)) == [5, 7]
    assert job_script.ignored_options(b"#!/bin/bash\n#SBATCH -N1\n  # so\n#SBATCH -n2\ntrue\n") == []


# ------------------------------------------------------------------------------------------------ who else reads it


@pytest.mark.parametrize(
    "line",
    [
        b"#DW jobdw capacity=10GB access_mode=striped type=scratch",
        b"#BB create_persistent name=data capacity=1GB",
        b"#PBS -l walltime=00:07:00",
        b"#PJM -L node=4",
        b"#BSUB -W 10",
        b"#$ -cwd",
        b"#@ wall_clock_limit = 1:00",
    ],
    ids=lambda line: line.split()[0].decode(),
)
def test_the_hook_stands_behind_every_line_that_a_program_reads(line: bytes) -> None:
    script = b"#!/bin/bash\n#SBATCH -N1\n\n" + line + b"\n# prose\nsrun ls\n"
    assert job_script.put(script) == b"#!/bin/bash\n#SBATCH -N1\n\n" + line + b"\n" + HOOK + b"\n# prose\nsrun ls\n"


_SUBMITTER = b"#!/bin/sh\nfor a in 1 2; do\nsbatch %s\n#!/bin/bash\n#SBATCH -N1\n#SBATCH -J job_$a\ncurl x\n%s\ndone\n"
HOOK, PLAIN = job_script.usual_hook(), job_script.plain_hook()


@pytest.mark.parametrize(
    ("begin", "end"),
    [(b"<<EOT", b"EOT"), (b"<<'EOT'", b"EOT"), (b'<< "end-1"', b"end-1"), (b"<<-EOT", b"\tEOT"), (b"<<\\EOT", b"EOT")],
    ids=repr,
)
def test_a_job_in_a_here_document_gets_the_hook_in_there(begin: bytes, end: bytes) -> None:
    script = _SUBMITTER % (begin, end)
    wrapped = job_script.place(script)
    assert wrapped.content == script.replace(b"curl x", PLAIN + b"\ncurl x")
    assert (wrapped.lines, wrapped.plain) == ((7,), True)
    assert job_script.remove(wrapped.content) == script
    assert job_script.put(wrapped.content) == wrapped.content
    assert job_script.ignored_options(script) == []


def test_each_of_two_here_documents_gets_it() -> None:
    one = b"sbatch <<A\n#!/bin/bash\n#SBATCH -N1\ntrue\nA\n"
    script = (
        b"#!/bin/bash\n"
        + one
        + b"cat > notes <<B\nno job\nB\n"
        + one.replace(b"<<A", b"<<C").replace(b"\nA\n", b"\nC\n")
    )
    wrapped = job_script.place(script)
    assert wrapped.lines == (5, 14)
    assert wrapped.content.count(PLAIN) == 2
    assert job_script.remove(wrapped.content) == script


@pytest.mark.parametrize(
    "script",
    [
        b"#!/bin/bash\n#SBATCH -N1\nsbatch <<E\n#!/bin/bash\n#SBATCH -N2\ntrue\nE\n",  # a job that submits the next
        b"#!/bin/bash\nx=$((1<<EOT))\n#!/bin/bash\n#SBATCH -N1\n",  # no here-document: nothing ends it
        b"#!/bin/bash\ncat <<< EOT\n#!/bin/bash\n#SBATCH -N1\nEOT\n",
        b"#!/bin/bash\ncat <<EOT\n#SBATCH is an option\nEOT\n",
    ],
    ids=["resubmits", "arithmetic", "here-string", "prose"],
)
def test_what_is_no_submitter_gets_the_hook_in_its_own_head(script: bytes) -> None:
    assert HOOK not in job_script.put(script).split(b"<<", 1)[-1]
    assert job_script.put(script).index(HOOK) < script.index(b"<<") + len(HOOK)


def test_a_job_of_another_language_in_a_here_document_is_refused_at_its_line() -> None:
    script = b"#!/bin/sh\nsbatch <<E\n#!/usr/bin/env python3\n#SBATCH -N1\nE\n"
    with pytest.raises(ScriptError) as caught:
        job_script.put(script, "submit.sh")
    assert str(caught.value).startswith("submit.sh:3: is a python3 script")


# ------------------------------------------------------------------------------------------------ templates


@pytest.mark.parametrize(
    "body",
    [b"# properties = {properties}\n{exec_job}\n", b"{{ command }}\n", b"{% for x in y %}\ntrue\n{% endfor %}\n"],
    ids=["str.format", "jinja", "jinja block"],
)
def test_a_template_gets_a_hook_without_braces(body: bytes) -> None:
    wrapped = job_script.place(b"#!/bin/bash\n#SBATCH -N1\n" + body)
    assert (wrapped.plain, wrapped.why) == (True, "this looks like a template")
    assert wrapped.content == b"#!/bin/bash\n#SBATCH -N1\n" + PLAIN + b"\n" + body


@pytest.mark.parametrize("body", [b"echo ${x} {a,b} ${y:-{}}\n", b"awk '{print}' f\n", b"f() { x; }\n"], ids=repr)
def test_what_every_shell_writes_is_no_template(body: bytes) -> None:
    assert not job_script.place(b"#!/bin/bash\n" + body).plain


def test_every_template_language_leaves_the_plain_hook_alone() -> None:
    text = PLAIN.decode()
    assert text.format() == text
    assert string.Template(text).substitute() == text
    assert text % () == text
    assert jinja2.Template(text).render() == text


def test_the_plain_form_stays_when_it_is_wrapped_again() -> None:
    once = job_script.place(b"#!/bin/bash\ntrue\n", plain=True).content
    assert job_script.put(once) == once


def test_the_plain_form_names_a_moved_directory_and_refuses_one_that_needs_quotes() -> None:
    assert b"test -r /srv/me/.hp/prologue.sh;" in job_script.plain_hook("/srv/me/.hp")
    with pytest.raises(ScriptError, match="without quotes"):
        job_script.plain_hook("/srv/my dir")


# ------------------------------------------------------------------------------------------------ is it up to date


@pytest.mark.parametrize(
    ("script", "state"),
    [
        (b"#!/bin/bash\ntrue\n", State.NONE),
        (job_script.put(b"#!/bin/bash\n#SBATCH -N1\ntrue\n"), State.CURRENT),
        (job_script.place(b"#!/bin/bash\ntrue\n", plain=True).content, State.CURRENT),
        (b"#!/bin/bash\n. ~/.hpcproxy/old.sh  " + MARK + b"\ntrue\n", State.STALE),
        (b"#!/bin/bash\n" + HOOK + b"\n#DW jobdw\ntrue\n", State.MISPLACED),
        (b"#!/bin/bash\ntrue\n" + HOOK + b"\n", State.MISPLACED),
        (b"print()\n" + HOOK + b"\n", State.MISPLACED),
    ],
)
def test_how_a_script_stands_to_this_version(script: bytes, state: State) -> None:
    assert job_script.state(script) is state


@pytest.mark.parametrize(
    "head",
    [
        b"#!/bin/bash",
        b"#!/opt/bash-5.2/bin/bash-5.2",
        b"#!/usr/bin/bash5",
        b"#!/bin/bash -l",
        b"#! /bin/sh",
        b"#!/bin/dash",
        b"#!/usr/bin/env bash",
        b"#!/usr/bin/env -S bash -l",
        b"#!/usr/bin/env -S A=1 bash",
    ],
)
def test_shells_that_can_source_it(head: bytes) -> None:
    assert job_script.put(head + b"\ntrue\n") == head + b"\n" + HOOK + b"\ntrue\n"


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        (b"#!/bin/zsh\ntrue\n", "is a zsh script; the hook line needs one of bash, sh, dash"),
        (b"#!/usr/bin/env Rscript --vanilla\n", "and the line: exec Rscript --vanilla job.sh; wrap that one"),
        (b"#!/usr/bin/env -S conda run -n x bash\n", "and the line: exec conda run -n x bash job.sh"),
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
        job_script.put(script, "job.sh")
    assert str(caught.value).startswith("job.sh: ")
    assert reason in str(caught.value)


# ------------------------------------------------------------------------------------------------ the line itself

SHELLS = ("bash", "dash")


@pytest.mark.parametrize("hook", [HOOK, PLAIN], ids=["usual", "plain"])
@pytest.mark.parametrize("shell", SHELLS)
def test_the_hook_line_parses(shell: str, hook: bytes) -> None:
    done = subprocess.run([shell, "-n"], input=hook + b"\n", capture_output=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


@pytest.mark.parametrize("hook", [HOOK, PLAIN], ids=["usual", "plain"])
@pytest.mark.parametrize("dialect", SHELLS)
def test_the_hook_line_passes_shellcheck(dialect: str, hook: bytes) -> None:
    # SC1090: a path that is known at run time only cannot be followed.
    argv = ["shellcheck", "-s", dialect, "-e", "SC1090,SC1091,SC2292", "-"]
    done = subprocess.run(argv, input=hook + b"\n", capture_output=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


@pytest.mark.parametrize("shell", SHELLS)
def test_the_plain_hook_does_what_the_usual_one_does(shell: str, tmp_path: Path) -> None:
    go_on = b"\nprintf '%s\\n' \"${sourced-no} $?\"\n"
    without = _run(shell, b"set -eu\n" + PLAIN + go_on, {"HOME": str(tmp_path)})
    assert (without.returncode, without.stdout) == (0, b"no 0\n")
    assert without.stderr == b"hpcproxy: no prologue.sh here, the job runs on without a way out\n"
    (tmp_path / ".hpcproxy").mkdir()
    (tmp_path / ".hpcproxy" / "prologue.sh").write_text("sourced=yes\n")
    done = _run(shell, b"set -eu\n" + PLAIN + go_on, {"HOME": str(tmp_path)})
    assert (done.returncode, done.stdout, done.stderr) == (0, b"yes 0\n", b"")


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

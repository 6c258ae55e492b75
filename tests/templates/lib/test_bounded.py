"""A program that somebody else may have put a wrapper around: its time, its exit code, what it leaves."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import tempfile
from pathlib import Path

import pytest

from hpcproxy.files.render import TEMPLATES
from tests.supervisor import command_line
from tests.waiting import until

_SOURCED = 'set -euo pipefail; source "$0/lib/any/bounded.sh"; code=0'
_ASK = f'{_SOURCED}; said=$(bounded "$@") || code=$?; echo "$code $said"'
_HEAR = f'{_SOURCED}; hear "$@" || code=$?; echo "$code $said"'


def _asked(*words: str, ask: str = _ASK, errors: str = "") -> str:
    argv = ["/bin/bash", "-p", "-c", ask, str(TEMPLATES), *words]
    with tempfile.TemporaryFile("w+") as talk:  # no pipe, whose end somebody may hold
        quiet = subprocess.DEVNULL
        done = subprocess.run(argv, stdin=quiet, stdout=subprocess.PIPE, stderr=talk, text=True, check=True, timeout=60)
        talk.seek(0)
        said = talk.read()
    assert errors in said
    assert bool(errors) == bool(said)
    return done.stdout


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("9", "echo", "it"), "0 it\n"),
        (("9", "sh", "-c", "echo it; exit 7"), "7 it\n"),
        (("9", "sh", "-c", "kill -9 $$"), "137 \n"),
        (("0.1", "sleep", "60"), "124 \n"),
        (("-s", "KILL", "0.1", "sleep", "60"), "137 \n"),
        (("9", "/nowhere/at/all"), "127 \n"),
        (("0.1", "sh", "-c", "trap '' TERM; while :; do sleep 0.1; done"), "137 \n"),
    ],
)
def test_it_ends_as_the_program_does(words: tuple[str, ...], said: str) -> None:
    errors = "No such file" if said == "127 \n" else ""
    assert _asked(*words, errors=errors) == said
    assert _asked(*words, ask=_HEAR, errors=errors) == said


def test_what_blocks_the_signal_ends_in_time_too() -> None:
    words = ["env", "--block-signal=TERM", "/bin/bash", "-p", "-c", _ASK, str(TEMPLATES), "0.1", "sleep", "60"]
    assert subprocess.run(words, capture_output=True, text=True, check=True, timeout=30).stdout == "137 \n"


@pytest.mark.parametrize("said", ["", "one", "one\n", "one\n\ntwo\n", "7\n", "\n"])
def test_what_is_heard_is_what_was_said(said: str, tmp_path: Path) -> None:
    (tmp_path / "said").write_text(said)
    assert _asked("9", "cat", str(tmp_path / "said"), ask=_HEAR) == f"0 {said.removesuffix(chr(10))}\n"
    both = _HEAR.replace("hear ", "both=1 hear ")
    assert _asked("9", "sh", "-c", "echo one >&2; echo two", ask=both) == "0 one\ntwo\n"


@pytest.mark.parametrize("ask", [_ASK, _HEAR])
def test_who_holds_its_output_is_not_waited_for_and_does_not_stay(ask: str) -> None:
    name = str(2_000_000 + os.getpid())
    assert _asked("50", "sh", "-c", f"sleep {name} & echo it", ask=ask) == "0 it\n"
    until(lambda: not _named(name), "nothing is left")


def test_a_daemon_that_holds_it_is_not_waited_for(tmp_path: Path) -> None:
    """In a session of its own it may be anybody's, and stays."""
    name, there = str(2_500_000 + os.getpid()), tmp_path / "there"
    daemon = f"setsid -f sh -c 'touch {there}; exec sleep {name}'; until [ -e {there} ]; do sleep 0.01; done; echo it"
    assert _asked("50", "sh", "-c", daemon, ask=_HEAR) == "0 it\n"
    (pid,) = until(lambda: _named(name), "the daemon is there")
    os.kill(pid, signal.SIGKILL)


def _named(name: str) -> list[int]:
    pids = [int(path.name) for path in Path("/proc").glob("[0-9]*")]
    return [pid for pid in pids if command_line(pid).startswith(b"sleep\0" + name.encode())]


@pytest.mark.parametrize("ask", [_ASK, _HEAR])
def test_a_signal_to_all_of_us_is_the_programs_to_answer(ask: str, tmp_path: Path) -> None:
    """As Slurm sends it, to each process of the job: what the program says to it is heard, and its exit code."""
    for turn in range(12):
        up = tmp_path / str(turn)
        script = f"trap 'trap \"\" TERM; echo heard; exit 3' TERM; touch {up}; while :; do sleep 0.02; done"
        words = ["/bin/bash", "-p", "-c", f"trap : TERM; {ask}", str(TEMPLATES), "50", "bash", "-c", script]
        with subprocess.Popen(words, stdout=subprocess.PIPE, text=True, start_new_session=True) as process:
            until(up.exists, "it runs")
            argv = ["ps", "-o", "pid=", "-s", str(process.pid)]
            listed = subprocess.run(argv, capture_output=True, text=True, check=True)
            for pid in listed.stdout.split():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(pid), signal.SIGTERM)
            assert process.communicate(timeout=60)[0] == "3 heard\n"

"""A program that somebody else may have put a wrapper around: its time, its exit code, what it leaves."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from pathlib import Path

import pytest

from hpcproxy.files.render import TEMPLATES
from tests.supervisor import command_line
from tests.waiting import until

_ASK = 'set -euo pipefail; source "$0/lib/any/bounded.sh"; code=0; said=$(bounded "$@") || code=$?; echo "$code $said"'


def _started(*words: str) -> subprocess.Popen[str]:
    argv = ["/bin/bash", "-p", "-c", _ASK, str(TEMPLATES), *words]
    return subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, start_new_session=True)


def _asked(*words: str) -> str:
    with _started(*words) as process:
        return process.communicate(timeout=60)[0]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("9", "echo", "it"), "0 it\n"),
        (("9", "sh", "-c", "echo it; exit 7"), "7 it\n"),
        (("9", "sh", "-c", "kill -9 $$"), "137 \n"),
        (("0.1", "sleep", "60"), "124 \n"),
        (("-s", "KILL", "0.1", "sleep", "60"), "137 \n"),
        (("9", "/nowhere/at/all"), "127 \n"),
    ],
)
def test_it_ends_as_the_program_does(words: tuple[str, ...], said: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert _asked(*words) == said
    capfd.readouterr()


def test_who_holds_its_output_is_not_waited_for_and_does_not_stay() -> None:
    name = str(2_000_000 + os.getpid())
    assert _asked("50", "sh", "-c", f"sleep {name} & echo it") == "0 it\n"
    left = [path for path in Path("/proc").glob("[0-9]*") if command_line(int(path.name)).startswith(b"sleep")]
    until(lambda: not [path for path in left if name.encode() in command_line(int(path.name))], "nothing is left")


def test_a_signal_to_all_of_us_is_the_programs_to_answer(tmp_path: Path) -> None:
    """As Slurm sends it, to each process of the job: what the program says to it is heard, and its exit code."""
    script = f"trap 'echo heard; exit 3' TERM; touch {tmp_path}/up; while :; do sleep 0.05; done"
    argv = f"trap : TERM; {_ASK}"
    words = ["/bin/bash", "-p", "-c", argv, str(TEMPLATES), "50", "bash", "-c", script]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True, start_new_session=True) as process:
        until((tmp_path / "up").exists, "it runs")
        listed = subprocess.run(
            ["ps", "-o", "pid=", "-s", str(process.pid)], capture_output=True, text=True, check=True
        )
        for pid in listed.stdout.split():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGTERM)
        assert process.communicate(timeout=60)[0] == "3 heard\n"

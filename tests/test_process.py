"""A program of this machine: heard to its end, and no longer."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hpcproxy import process
from tests.supervisor import command_line
from tests.waiting import until


def run(script: str, **bounds: float) -> process.Done:
    return process.run(["/bin/sh", "-c", script], **{"timeout_s": 60.0, **bounds})


def test_a_slow_one_is_heard_to_its_last_word() -> None:
    assert run("sleep 0.5; echo one; sleep 0.5; echo two; sleep 0.5; echo three >&2; exit 3") == process.Done(
        3, b"one\ntwo\n", b"three\n"
    )


@pytest.mark.parametrize(
    "way",
    [
        "sleep {} & echo it",
        "sleep {} & exec echo it",
        "setsid -f sh -c 'touch there; exec sleep {}'; until [ -e there ]; do sleep 0.01; done; echo it",
        "(while :; do echo . >&2; sleep 0.05 {}; done) & echo it",
    ],
)
def test_who_holds_its_outputs_is_not_waited_for(way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    name = str(3_000_000 + os.getpid())
    assert run(way.format(name if "while" not in way else f"0.{name}"), timeout_s=600.0).stdout == b"it\n"
    if "setsid" in way:
        (pid,) = until(lambda: _named(name), "the daemon is there")
        os.kill(pid, signal.SIGKILL)
    until(lambda: not _named(name), "nothing is left")


def _named(name: str) -> list[int]:
    pids = [int(path.name) for path in Path("/proc").glob("[0-9]*")]
    return [pid for pid in pids if command_line(pid).startswith(b"sleep") and name.encode() in command_line(pid)]


def test_what_comes_between_a_look_at_its_outputs_and_one_whether_it_has_ended_counts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def ended(program: subprocess.Popen[bytes]) -> bool:
        os.waitid(os.P_PID, program.pid, os.WEXITED | os.WNOWAIT)
        return True

    monkeypatch.setattr(process, "_has_ended", ended)
    assert run("setsid -f sleep 2; sleep 0.5; echo it").stdout == b"it\n"


def test_one_that_has_no_outputs_any_more_has_its_time_all_the_same() -> None:
    with pytest.raises(subprocess.TimeoutExpired):
        run("exec >&- 2>&-; sleep 60", timeout_s=0.5)


def test_one_that_is_given_up_is_told_to_end_first(tmp_path: Path) -> None:
    with pytest.raises(subprocess.TimeoutExpired):
        run(f"trap 'touch {tmp_path}/told; exit' TERM; sleep 60 & wait", timeout_s=0.5)
    assert (tmp_path / "told").exists()


def test_where_the_kernel_reaps_it_is_heard_all_the_same() -> None:
    script = "import signal; signal.signal(signal.SIGCHLD, signal.SIG_IGN)\nfrom hpcproxy import process\n"
    script += "print(process.run(['/bin/sh', '-c', 'sleep 30 & sleep 0.5; echo it'], timeout_s=60).stdout)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "b'it\\n'\n"


def test_each_bound_is_kept() -> None:
    began = time.monotonic()
    with pytest.raises(subprocess.TimeoutExpired):
        run("while :; do echo x; sleep 0.05; done", timeout_s=0.5)
    with pytest.raises(TimeoutError):
        run("echo x; sleep 60", silence_s=0.5)
    with pytest.raises(process.TooMuchError):
        run("while :; do echo xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx; done | head -c 9000000; sleep 60")
    assert time.monotonic() - began < 55

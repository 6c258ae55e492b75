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


@pytest.mark.parametrize("way", ["sleep {} & echo it", "setsid sleep {} & echo it", "sleep {} & exec echo it"])
def test_who_holds_its_outputs_is_not_waited_for(way: str) -> None:
    name = str(3_000_000 + os.getpid())
    assert run(way.format(name), timeout_s=600.0).stdout == b"it\n"
    left = [int(path.name) for path in Path("/proc").glob("[0-9]*") if name.encode() in command_line(int(path.name))]
    if "setsid" in way:
        assert len(left) == 1, "what is in a session of its own may be anybody's"
        os.kill(left[0], signal.SIGKILL)
    until(lambda: not [pid for pid in left if name.encode() in command_line(pid)], "nothing is left")


def test_its_last_words_count_whenever_they_come() -> None:
    """Between a look at its outputs and one whether it has ended there is a moment."""
    for wait in (0.19, 0.195, 0.2, 0.205, 0.21, 0.39, 0.4, 0.41):
        script = f"import os, time; time.sleep({wait}); os.write(1, b'x' * 60000); os._exit(0)"
        argv = [
            sys.executable,
            "-I",
            "-S",
            "-c",
            f"import os; os.fork() or os.setsid() or os.execv('/bin/sleep', ['sleep', '3'])\n{script}",
        ]
        assert len(process.run(argv, timeout_s=60).stdout) == 60000


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

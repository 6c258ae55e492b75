"""When an ssh that the shell holds is taken for dead: by looks, not by our clock, which a test has in its hand."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

import hpcproxy

SSH = Path(hpcproxy.__file__).parent / "templates" / "lib" / "tunnel" / "ssh.sh"
INTERVAL_S = 5
# Runs watch_ssh with a wait that returns at once: `look N` is called before the N-th look, `seconds` pass by each.
_WATCH = """
set -u
. "$1"
alive_interval_s={interval} alive_count=$2 ssh_pid=$3 serves=$4 of_step='' waited=0 seconds={interval}
{look}
log() {{ printf '%s\\n' "$2"; }}
bound_log() {{ :; }}
clock() {{ now=$((now + seconds)); }}
stat_is() {{
    local line
    until read -r line <"/proc/$ssh_pid/stat" && [[ ${{line##*) }} == $1* ]]; do :; done
}}
read() {{
    if [[ ${{2-}} != -t ]]; then builtin read "$@"; return; fi
    seconds={interval}
    waited=$((waited + 1))
    if ((waited > 20)); then printf 'it is left\\n'; exit; fi
    look "$waited"
    return 1
}}
probe_master() {{ printf 'asked\\n'; [[ $serves == yes ]]; }}
signal_ssh() {{ printf '%s after %d\\n' "$1" "$waited"; }}
now=0
watch_ssh 0
"""


@pytest.fixture
def ssh_pid() -> Iterator[int]:
    with subprocess.Popen(["sleep", "600"]) as process:
        yield process.pid
        process.kill()


def _watched(pid: int, alive_count: int, look: str, *, serves: bool = True) -> list[str]:
    text = _WATCH.format(interval=INTERVAL_S, look=f"look() {{ {look}; }}")
    argv = ["bash", "-c", text, "bash", str(SSH), str(alive_count), str(pid), "yes" if serves else "no"]
    done = subprocess.run(argv, capture_output=True, text=True, check=True, timeout=60, stdin=subprocess.DEVNULL)
    assert done.stderr == ""
    return done.stdout.splitlines()


@pytest.mark.parametrize(("alive_count", "looks"), [(1, 1), (2, 1), (3, 2), (4, 3), (10, 9)])
def test_one_that_was_stopped_is_ended_when_a_silent_jump_host_would_be(
    alive_count: int, looks: int, ssh_pid: int
) -> None:
    os.kill(ssh_pid, signal.SIGSTOP)
    said = _watched(ssh_pid, alive_count, "if (($1 == 1)); then stat_is T; fi")
    assert said == ["ssh was stopped; ended", f"KILL after {looks}"]


def test_only_looks_in_a_row_count(ssh_pid: int) -> None:
    look = 'case $1 in 1 | 4) kill -STOP "$ssh_pid"; stat_is T ;; 3) kill -CONT "$ssh_pid"; stat_is S ;; esac'
    assert _watched(ssh_pid, 4, look)[-1] == "KILL after 6"


def test_one_that_serves_is_left(ssh_pid: int) -> None:
    assert _watched(ssh_pid, 2, ":") == ["it is left"]


@pytest.mark.parametrize("serves", [True, False])
@pytest.mark.parametrize(("seconds", "still"), [(2 * INTERVAL_S + 1, False), (2 * INTERVAL_S + 2, True)])
def test_after_a_pause_of_ours_the_far_end_is_asked(seconds: int, still: bool, serves: bool, ssh_pid: int) -> None:
    said = _watched(ssh_pid, 4, f"if (($1 == 2)); then seconds={seconds}; fi", serves=serves)
    asked = [f"this node or job stood still for {seconds - INTERVAL_S} s", "asked"] if still else []
    assert said == [*asked, "KILL after 2" if still and not serves else "it is left"]


def test_one_that_has_gone_is_no_business_of_it() -> None:
    gone = 'if (($1 == 2)); then kill -KILL "$ssh_pid"; while [[ -e /proc/$ssh_pid ]]; do :; done; fi'
    with subprocess.Popen(["bash", "-c", "sleep 600 & echo $!; wait"], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        assert _watched(int(parent.stdout.readline()), 4, gone) == []

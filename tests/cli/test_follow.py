"""`status --follow`: rates from two looks, and an end when there is nothing to look at any more."""

from __future__ import annotations

import dataclasses
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hpcproxy.account.tunnels import Tunnel
from hpcproxy.cli import follow
from tests.waiting import until

COUNTS = {"requests": 3, "active": 1, "bytes_up": 1000, "bytes_down": 5000, "held": 2, "reconnects": 4}
TUNNEL = Tunnel(
    node="c1", job="7", restart=0, directory=Path("/"), pid=1, url="http://127.64.0.7:2015", ready=True,
    since=time.time() - 90, jump="alice@jump1", last_error=None, passed_over=None, counts=COUNTS,
)  # fmt: skip


def test_a_rate_is_what_went_through_between_two_looks() -> None:
    later = dataclasses.replace(TUNNEL, counts={**COUNTS, "bytes_up": 5000, "bytes_down": 2_005_000})
    assert _sent_and_received([TUNNEL], {}, 0) == ["-", "-"]
    assert _sent_and_received([later], {("c1", "7.0"): TUNNEL}, 2) == ["2.0 kB/s", "1.0 MB/s"]


def test_an_agent_that_counts_from_nothing_again_has_no_rate() -> None:
    anew = dataclasses.replace(TUNNEL, counts={**COUNTS, "bytes_up": 10})
    assert _sent_and_received([anew], {("c1", "7.0"): TUNNEL}, 2) == ["-", "0 B/s"]


def _sent_and_received(found: list[Tunnel], before: dict[tuple[str, str], Tunnel], seconds: float) -> list[str]:
    head, line = (re.split(" {2,}", one) for one in follow.frame(found, before, seconds))
    return line[head.index("sent") : head.index("received") + 1]


def test_what_is_not_there_or_down_is_said_within_the_terminal() -> None:
    down = dataclasses.replace(TUNNEL, ready=False, last_error="route: " + "far " * 40)
    lines = list(follow.frame([down, "c2"], {}, 1, columns=40))
    assert lines[2:] == [f"c1: {down.last_error}"[:40], "c2 has no tunnel"]
    assert max(len(line) for line in lines) <= 40


def test_it_ends_when_nothing_is_left(capsys: pytest.CaptureFixture[str]) -> None:
    looks = iter([[TUNNEL], [TUNNEL], []])
    follow.follow(lambda: next(looks), 0)
    assert capsys.readouterr().out.endswith("no tunnel is up\n\n")


def test_an_interrupt_ends_it_in_one_line(tmp_path: Path) -> None:
    program = "from pathlib import Path\nfrom hpcproxy.account import status\nfrom hpcproxy.cli import program\n"
    program += (
        "from tests.cli.test_follow import TUNNEL\nstatus.here = lambda account: ([TUNNEL], [])\nprogram.main()\n"
    )
    argv = [sys.executable, "-c", program, "status", "--follow"]
    out = tmp_path / "out"
    with out.open("w") as file, subprocess.Popen(argv, stdout=file, stderr=subprocess.PIPE, env=os.environ) as process:
        until(lambda: "alice@jump1" in out.read_text(), "it has looked")
        process.send_signal(signal.SIGINT)
        said = process.communicate(timeout=60)[1]
    assert (process.returncode, said) == (130, b"hpcproxy: interrupted\n")

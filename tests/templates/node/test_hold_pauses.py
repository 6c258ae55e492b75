"""How often a jump host is tried where ssh itself listens: what comes between tries, as the supervisor asks for it.

An ssh that fails as it is told, and a `sleep` that writes down what it is asked for and returns at once.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.supervisor import Supervisor, write_script
from tests.waiting import until

REFUSED = "ssh: connect to host h port 22: Connection refused\n"
BUSY = "kex_exchange_identification: Connection closed by remote host\n"
NO_KEY = "u@h: Permission denied (publickey).\n"

# As a master it has a socket, if it is to come up, and then ends; asked over it, it says that the far end was tried.
_SSH = """#!/bin/bash
case " $* " in
    *" -G "* | *" -V "*) exec {ssh} "$@" ;;
    *" -O "*) exit 0 ;;
    *" -W "*) printf 'channel 1: open failed: connect failed: Connection refused\\n' >>ssh.log; exit 255 ;;
esac
host=${{!#}} host=${{host#*@}}
printf 'try %s\\n' "$host" >>'{events}'
if [[ -e '{events}.up' ]]; then
    {python} -c 'import socket; socket.socket(socket.AF_UNIX).bind("ctl")'
    /bin/sleep 0.3
    if [[ -e '{events}.stays' ]]; then head -c 1000000 /dev/zero >>ssh.log; fi
    while [[ -e '{events}.stays' ]]; do
        [[ -s ssh.log ]] || touch '{events}.emptied'
        /bin/sleep 0.1
    done
fi
cat '{events}.words-'"$host" >>ssh.log
exit 255
"""
_SLEEP = """#!/bin/sh
printf 'sleep %s\\n' "$1" >>'{events}'
exec /bin/sleep 0.01
"""


class Stage:
    """A supervisor whose ssh and whose pauses are ours."""

    def __init__(
        self, directory: Path, words: Mapping[str, str], *, up: bool = False, job: str = "shell", **settings: Any
    ) -> None:
        self.events = directory / "events"
        programs = directory / "programs"
        programs.mkdir()
        for host, text in words.items():
            (directory / f"events.words-{host}").write_text(text)
        if up:
            (directory / "events.up").touch()
        names = {"ssh": shutil.which("ssh"), "python": shutil.which("python3"), "events": self.events}
        for name, text in (("ssh", _SSH), ("sleep", _SLEEP)):
            (programs / name).write_text(text.format(**names))
            (programs / name).chmod(0o755)
        script = write_script(directory / "home", jump=[f"u@{host}" for host in words], agent=False, **settings)
        environ = {**os.environ, "PATH": f"{programs}:{os.environ['PATH']}"}
        self.supervisor = Supervisor(script, job, environ)

    def lines(self, word: str) -> list[str]:
        """What came after each `word` so far."""
        text = self.events.read_text() if self.events.exists() else ""
        return re.findall(rf"^{word} (\S+)$", text, re.MULTILINE)

    @property
    def pauses(self) -> list[float]:
        """What it asked for between rounds; its other pauses are shorter, and not told in thousandths."""
        return [float(text) for text in self.lines("sleep") if re.fullmatch(r"\d+\.\d{3}", text)]

    def first(self, count: int) -> list[float]:
        """The first `count` pauses, once there were as many; there were no more tries than pauses allow."""
        return until(lambda: self.pauses[:count] if len(self.pauses) >= count else [], f"{count} pauses")


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Callable[..., Stage]]:
    stages: list[Stage] = []

    def begin(words: Mapping[str, str], **more: Any) -> Stage:
        stages.append(Stage(tmp_path, words, **more))
        return stages[-1]

    yield begin
    for each in stages:
        each.supervisor.end()


def _within(pauses: list[float], least: float, wholes: list[float]) -> bool:
    """Each pause is a part of its whole, `least` at least: nodes that fail together do not come back together."""
    return all(least * whole - 0.001 <= pause <= whole for pause, whole in zip(pauses, wholes))


def test_after_a_failure_that_may_pass_the_pauses_grow_to_a_bound(stage: Callable[..., Stage]) -> None:
    on_stage = stage({"h": REFUSED}, retry_max_s=8)
    pauses = on_stage.first(6)
    assert _within(pauses, 0.5, [1, 2, 4, 8, 8, 8]), pauses
    assert len(set(pauses)) > 1
    assert len(on_stage.lines("try")) <= len(on_stage.pauses) + 1


def test_who_is_busy_is_met_with_patience(stage: Callable[..., Stage]) -> None:
    on_stage = stage({"h": BUSY}, retry_max_s=1)
    pauses = on_stage.first(16)
    assert _within(pauses, 0.1, [4] * 16), pauses
    assert max(pauses) > 1, "four seconds, of which a random part, are more than one in five of six"
    assert len(on_stage.lines("try")) <= len(on_stage.pauses) + 1


def test_one_that_somebody_has_to_mend_is_tried_once_while_the_others_are_tried_on(
    stage: Callable[..., Stage],
) -> None:
    on_stage = stage({"refusing": NO_KEY, "away": REFUSED}, retry_max_s=1)
    on_stage.first(5)
    assert on_stage.lines("try").count("refusing") == 1
    assert on_stage.lines("try").count("away") >= 5


def test_what_never_lives_for_long_comes_back_ever_more_slowly(stage: Callable[..., Stage]) -> None:
    on_stage = stage({"h": ""}, up=True, retry_max_s=1)
    pauses = on_stage.first(5)
    assert _within(pauses, 0.5, [0.25, 0.5, 1, 1, 1]), pauses
    assert on_stage.supervisor.line("ready")
    assert len(on_stage.lines("try")) <= len(on_stage.pauses) + 1


def test_after_a_loss_the_other_jump_host_comes_first(stage: Callable[..., Stage]) -> None:
    """Who was cut off there would wait for the answer of one that may not answer for long."""
    on_stage = stage({"a": "", "b": ""}, up=True, retry_max_s=1)
    until(lambda: len(on_stage.lines("try")) >= 4, "four logins")
    assert on_stage.lines("try")[:4] == ["a", "b", "a", "b"]


def test_the_log_of_an_ssh_that_says_a_lot_is_emptied(stage: Callable[..., Stage], tmp_path: Path) -> None:
    """It writes a line for each connection that fails, and may live for weeks."""
    (tmp_path / "events.stays").touch()
    on_stage = stage({"h": ""}, up=True, alive_interval_s=1)
    assert on_stage.supervisor.line("ready")
    try:
        until((tmp_path / "events.emptied").exists, "its megabyte is gone")
    finally:
        (tmp_path / "events.stays").unlink()


def test_the_nodes_of_a_large_job_wait_for_their_turn_before_the_first_login(
    stage: Callable[..., Stage], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thousand at one login a second would take more than is waited for at most: two minutes."""
    monkeypatch.setenv("SLURM_JOB_NUM_NODES", "1000")
    monkeypatch.setenv("SLURMD_NODENAME", "n7")
    on_stage = stage({"h": REFUSED}, job="4711", logins_per_s=1, retry_max_s=1)
    turn = on_stage.first(1)[0]
    assert 1 < turn <= 120, "a turn, and no pause between tries"
    assert f"its first login comes in {round(turn * 1000)} ms" in (on_stage.supervisor.state / "log").read_text()
    text = until(lambda: on_stage.events.read_text() if on_stage.lines("try") else "", "its first login")
    assert text.index("sleep ") < text.index("try h")

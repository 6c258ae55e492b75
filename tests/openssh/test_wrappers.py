"""A site's or a user's own `ssh`, a script around the real one: nothing of what it starts outlives what we asked."""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hpcproxy import process
from hpcproxy.cli import front
from hpcproxy.config.model import Jump
from hpcproxy.openssh import configuration
from tests import ssh_at_hand, sshd
from tests.sshd import Sshd
from tests.supervisor import Supervisor, children, command_line, write_script
from tests.waiting import until

# What it leaves is known by its name: a number of seconds that no other test has.
_NUMBERS = itertools.count(1_000_000 + os.getpid() % 10_000 * 100)

STAYS = {
    "quiet": 'sleep {} >/dev/null 2>&1 & SSH "$@"',
    "holds our outputs": 'sleep {} & SSH "$@"',
    "waits for it": 'sleep {} & SSH "$@" & wait $!',
    "becomes it": 'sleep {} & exec SSH "$@"',
    "heeds nothing": "trap '' HUP INT TERM; sleep {} & SSH \"$@\"",
}


@pytest.fixture(params=list(STAYS))
def left(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[[], list[int]]]:
    """Say what the wrapper that stands for ssh in this test has left behind."""
    name = str(next(_NUMBERS))

    def look() -> list[int]:
        pids = [int(path.name) for path in Path("/proc").glob("[0-9]*")]
        return [pid for pid in pids if command_line(pid).startswith(b"sleep\0" + name.encode() + b"\0")]

    (tmp_path / "ssh_config").write_text("")
    try:
        with ssh_at_hand.stood_for(tmp_path, STAYS[request.param].format(name)):
            yield look
    finally:
        for pid in look():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def test_it_goes_with_the_tunnel(
    hold: Callable[..., Supervisor], left: Callable[[], list[int]], tmp_path: Path
) -> None:
    with sshd.running(tmp_path / "own") as own:
        assert own.process is not None
        supervisor = hold(**own.settings)
        assert supervisor.line("ready", "failed").startswith("ready ")
        until(lambda: children(own.process.pid), "somebody is logged in")
        assert len(left()) == 1, "of the ssh that holds the tunnel, and of none that was asked something"
        assert supervisor.end(signal.SIGURG) == 0
        until(lambda: not left(), "nothing is left")
        until(lambda: not children(own.process.pid), "nobody is logged in any more")


def test_it_goes_with_a_trial(jump_host: Sshd, left: Callable[[], list[int]], tmp_path: Path) -> None:
    script = write_script(tmp_path / "home", **jump_host.settings)
    done = subprocess.run(["/bin/bash", "-p", script, "probe"], capture_output=True, text=True, check=True)
    assert done.stdout == f"ok {jump_host.jump}\n"
    until(lambda: not left(), "nothing is left")


def test_it_goes_with_a_question_about_credentials(
    jump_host: Sshd, left: Callable[[], list[int]], tmp_path: Path
) -> None:
    script = write_script(tmp_path / "home", **jump_host.settings)
    subprocess.run(["/bin/bash", "-p", script, "credentials", "60"], capture_output=True, text=True, check=True)
    until(lambda: not left(), "nothing is left")


def test_it_goes_with_what_we_ask_ourselves(left: Callable[[], list[int]]) -> None:
    assert configuration.ask(Jump("h", user="u")).hostname == "h"
    assert process.run(("ssh", "-V"), timeout_s=60).stderr.startswith(b"OpenSSH")
    assert "OpenSSH" in front.version_line()
    until(lambda: not left(), "nothing is left")

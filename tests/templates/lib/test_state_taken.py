"""Names that somebody else makes where state directories stand: taken in advance, made anew, or 100,000 of them.

Alice is who runs the tests, root; bob is another user of the node. TMPDIR is a directory like /tmp.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hpcproxy.account import tunnels
from tests import REPOSITORY, modest, servers, shells
from tests.sshd import Sshd
from tests.supervisor import Supervisor, write_script
from tests.waiting import until

BOB = 65001
# Stands in for ssh's control socket at argv[2], with links by the names that we write to, to the file argv[3], and says
# what it is handed. PROTOCOL.mux: a hello, an answer that the master is alive, a channel.
_BOB = """
import array, os, socket, struct, sys, threading
os.setgid(int(sys.argv[1])); os.setuid(int(sys.argv[1])); os.umask(0)
state, victim = sys.argv[2:]
os.makedirs(state, 0o777)
names = "log status.json status status.new status.tmp ssh.log access.log pid env host turn"
for name in names.split():
    os.symlink(victim, os.path.join(state, name))
listener = socket.socket(socket.AF_UNIX)
os.chdir(state)
listener.bind("ctl")
listener.listen(64)
print("there", flush=True)
def packet(*numbers):
    return struct.pack(">%dI" % (1 + len(numbers)), 4 * len(numbers), *numbers)
def serve(sock):
    print("asked", flush=True)
    sock.sendall(packet(1, 4) + packet(0x80000005, 1, os.getpid()))
    while True:
        data, extra, _, _ = sock.recvmsg(4096, socket.CMSG_SPACE(64))
        for _, _, fds in extra:
            print("handed", flush=True)
        if not data:
            return
while True:
    threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()
"""

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")


@pytest.fixture
def base(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A directory like /tmp: root's, sticky, everybody's to write in."""
    directory = Path(tempfile.mkdtemp(prefix="hp-", dir="/dev/shm"))
    directory.chmod(0o1777)
    monkeypatch.setenv("TMPDIR", str(directory))
    yield directory
    shutil.rmtree(directory, ignore_errors=True)


def _fetch(url: str, internet: str) -> str:
    words = ["curl", "-sS", "--max-time", "10", "--noproxy", "", "-x", url, internet]
    return subprocess.run(words, capture_output=True, text=True, check=False).stdout.strip()


@pytest.mark.parametrize("whole", [True, False], ids=["whole-tmpdir", "state-only"])
def test_what_bob_makes_in_its_place_gets_nothing_and_overwrites_nothing(
    whole: bool, mode: str, base: Path, hold: Callable[..., Supervisor], jump_host: Sshd, tmp_path: Path
) -> None:
    supervisor = hold(**jump_host.settings)
    supervisor.line("ready")
    state, url = supervisor.state, supervisor.url
    victim = tmp_path / "thesis"
    victim.write_text("alice's\n")
    top = base / state.relative_to(base).parts[0]
    shutil.rmtree(top if whole else state)
    if not whole:
        top.chmod(0o777)  # as in a TMPDIR that a group shares
    bob_argv = [sys.executable, "-I", "-S", "-c", _BOB, str(BOB), str(state), str(victim)]
    with servers.internet() as internet, subprocess.Popen(bob_argv, stdout=subprocess.PIPE, text=True) as bob:
        try:
            assert bob.stdout is not None
            assert bob.stdout.readline() == "there\n"
            _fetch(url, internet)
            for pid in supervisor.ssh_pids:
                os.kill(pid, signal.SIGKILL)
            until(lambda: not supervisor.ssh_pids or mode == "ssh", "that ssh is gone")
            _fetch(url, internet)
            end = time.monotonic() + 3
            while time.monotonic() < end:
                _fetch(url, internet)
                time.sleep(0.2)
        finally:
            bob.kill()
        assert "handed" not in bob.stdout.read()
    assert victim.read_text() == "alice's\n"
    assert supervisor.end() == 0
    assert sorted(path.name for path in state.iterdir())[:2] == ["access.log", "ctl"]  # bob's, as he left it


@pytest.mark.parametrize("kind", ["directory", "link", "file", "of-ours-but-open"])
def test_a_name_that_was_taken_in_advance_is_not_used(
    kind: str, mode: str, base: Path, hold: Callable[..., Supervisor], jump_host: Sshd, tmp_path: Path
) -> None:
    del mode
    taken, elsewhere = base / f"hpcproxy-{os.geteuid()}", tmp_path / "elsewhere"
    elsewhere.mkdir(mode=0o700)
    if kind == "link":
        taken.symlink_to(elsewhere)
    elif kind == "file":
        taken.write_text("")
    else:
        taken.mkdir()
        taken.chmod(0o777)
    if kind != "of-ours-but-open":
        os.lchown(taken, BOB, BOB)
    supervisor = hold(**jump_host.settings)
    supervisor.line("ready")
    (said,) = (Path(line.split(" ", 2)[2]) for line in supervisor.lines if line.startswith("state "))
    assert said.parent.name.startswith(f"hpcproxy-{os.geteuid()}-")
    assert said.stat().st_mode & 0o777 == said.parent.stat().st_mode & 0o777 == 0o700
    assert f"{taken} is not this user's alone" in (said / "log").read_text()
    assert [tunnel.directory for tunnel in tunnels.find({**os.environ, "HPCPROXY_STATE": str(said)})] == [said]
    assert supervisor.end() == 0
    assert list(base.iterdir()) == [taken]
    assert list(elsewhere.iterdir()) == []


def test_a_base_where_others_can_rename_is_not_used(
    base: Path, hold: Callable[..., Supervisor], jump_host: Sshd
) -> None:
    base.chmod(0o777)
    supervisor = hold(**jump_host.settings)
    supervisor.line("ready")
    (said,) = (line.split(" ", 2)[2] for line in supervisor.lines if line.startswith("state "))
    assert said.startswith(f"/tmp/hpcproxy-{os.geteuid()}/{supervisor.job}.0-")
    assert list(base.iterdir()) == []
    assert supervisor.end() == 0
    assert not Path(said).exists()


@pytest.fixture
def crowd(base: Path) -> Path:
    """100,000 directories of bob's, by every name that a state directory ever had."""
    os.seteuid(BOB)
    try:
        for number in range(50_000):
            (base / f"hpcproxy-{number}.0-{number:08d}").mkdir()
            (base / f"hpcproxy-{os.getuid()}-{number:08d}").mkdir()
    finally:
        os.seteuid(0)
    return base


def test_a_hundred_thousand_names_of_bobs_keep_nobody_waiting(crowd: Path, jump_host: Sshd, tmp_path: Path) -> None:
    script = write_script(tmp_path / "home", **jump_host.settings)

    def seconds_until_ready(base: Path) -> float:
        begun = time.monotonic()
        supervisor = Supervisor(script, environ={**os.environ, "TMPDIR": str(base)})
        try:
            supervisor.line("ready")
            took = time.monotonic() - begun
            assert [tunnel.job for tunnel in tunnels.find({"TMPDIR": str(base)})] == [supervisor.job]
            return took
        finally:
            supervisor.end()

    alone = tmp_path / "alone"
    alone.mkdir(mode=0o700)
    # Over more than 3 s if each of them was looked at, and there are two who look.
    plain = min(seconds_until_ready(alone) for _ in range(2))
    assert min(seconds_until_ready(crowd) for _ in range(2)) < 2 * plain + 0.5


@pytest.mark.parametrize("shell", shells.SHELLS)
def test_a_shell_finds_its_own_where_it_may_not_list_the_names(shell: str, base: Path) -> None:
    lib = REPOSITORY / "templates/lib/sourced"
    sourced = "".join(f". {lib}/{name}.sh\n" for name in ("env", "listening", "find"))
    text = f'{sourced}__hpcproxy_run=/none\n__hpcproxy_find 9 && printf "%s" "$__hpcproxy_state"'
    with shells.tunnel_state("9") as state:
        base.chmod(0o1333)
        done = subprocess.run(modest.argv(shell, "-c", text), capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == (str(state), "")


def test_bounds_of_the_users_shells_are_none_of_ours(
    hold: Callable[..., Supervisor], jump_host: Sshd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sites export it, so that forgotten terminals end; a node that is busy needs more than a second for `stat`."""
    slow = tmp_path / "slow" / "stat"
    slow.parent.mkdir()
    slow.write_text('#!/bin/sh\nsleep 1.5\nexec /usr/bin/stat "$@"\n')
    slow.chmod(0o755)
    monkeypatch.setenv("PATH", f"{slow.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("TMOUT", "1")
    monkeypatch.setenv("POSIXLY_CORRECT", "1")
    monkeypatch.setenv("FUNCNEST", "5")
    assert hold(**jump_host.settings).line("ready", "gave-up").startswith("ready ")

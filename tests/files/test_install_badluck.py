"""Installing on a full disk, twice at once, and killed at any moment: a file is the old one or the new one."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType

import pytest

from hpcproxy import changes
from hpcproxy.account import verbs
from hpcproxy.account.account import Account
from hpcproxy.changes import Outcome, Step
from hpcproxy.files import block, install
from tests.snapshot import tree

FLAGS = {"jump": ["hello@192.168.31.10"], "port": 2015}
COMMAND = [sys.executable, "-m", "hpcproxy", "install-bashrc", "--jump", "hello@192.168.31.10", "--port", "2015"]
OLD = b"export A=1\n" * 50
NEW = block.put(OLD, block.bashrc_pointer())


def _steps(account: Account) -> list[Step]:
    settings = verbs.settings_of(account, FLAGS)
    steps = [
        verbs._config_step(account, FLAGS, settings.text),
        *install.bundle_steps(verbs.bundle_of(account, settings.config)),
    ]
    return [*steps, *install.bashrc_steps(account.bashrc)]


# ------------------------------------------------------------------------------------------------ kill -9


def _in_a_child(body: Callable[[], None]) -> int:
    """Run `body` in a forked child; return the signal that ended it, 0 if it ran to its end."""
    child = os.fork()
    if child == 0:
        try:
            body()
        finally:
            os._exit(0)
    return os.WTERMSIG(os.waitpid(child, 0)[1])


def _killed_before_call(number: int, steps: list[Step]) -> int:
    """Apply `steps` in a child that dies by SIGKILL just before its `number`-th call into the interpreter's C code."""

    def body() -> None:
        count = 0

        def watch(_frame: FrameType, event: str, _argument: object) -> None:
            nonlocal count
            count += event == "c_call"
            if count == number:
                os.kill(os.getpid(), signal.SIGKILL)

        sys.setprofile(watch)
        changes.apply(steps)

    return _in_a_child(body)


def test_kill_at_any_moment_leaves_every_file_old_or_new(home: Path, account: Account) -> None:
    (home / ".bashrc").write_bytes(OLD)
    account.home.directory.mkdir(mode=0o700)
    steps = _steps(account)
    # Old content everywhere, so that "less than old" would show.
    wanted = {step.path: step.content for step in steps if isinstance(step, changes.Write)}
    old = {path: OLD if path == account.bashrc else b"# old " * 200 + path.name.encode() for path in wanted}
    seen, number, signalled = set(), 0, signal.SIGKILL
    while signalled:
        number += 13 if number > 60 else 1  # every call of the first file, then every 13th: a prime, so all kinds
        for path, content in old.items():
            path.write_bytes(content)
        signalled = _killed_before_call(number, steps)
        for path, content in wanted.items():
            assert path.read_bytes() in (old[path], content), f"{path} after a kill before call {number}"
        assert account.bashrc.read_bytes() in (OLD, NEW)
        seen.add(tuple(path.read_bytes() == content for path, content in wanted.items()))
    assert len(seen) == len(wanted) + 1  # each stage between all old and all new has been met
    assert all(path.read_bytes() == content for path, content in wanted.items())


@pytest.mark.parametrize("name", ["config.yaml", "tunnel.sh", ".bashrc"])
def test_a_run_after_a_kill_completes_and_uninstall_leaves_nothing(
    name: str, home: Path, account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    (home / ".bashrc").write_bytes(OLD)
    before = tree(home)
    rename = os.replace

    def kill_before(source: str, target: Path) -> None:
        if target.name == name:
            os.kill(os.getpid(), signal.SIGKILL)
        rename(source, target)

    def body() -> None:
        monkeypatch.setattr(os, "replace", kill_before)
        verbs.install_bashrc(account, verbs.settings_of(account, FLAGS), dry_run=False)

    assert _in_a_child(body) == signal.SIGKILL
    assert (home / ".bashrc").read_bytes() == OLD
    verbs.install_bashrc(account, verbs.settings_of(account, FLAGS), dry_run=False)
    assert (home / ".bashrc").read_bytes() == NEW
    again = verbs.install_bashrc(account, verbs.settings_of(account, FLAGS), dry_run=False)
    assert {result.outcome for result in again} == {Outcome.UNCHANGED}
    verbs.uninstall(account)
    assert tree(home) == before


# ------------------------------------------------------------------------------------------------ at once


def test_installs_at_once_end_as_one(home: Path) -> None:
    (home / ".bashrc").write_bytes(OLD)
    processes = [subprocess.Popen(COMMAND, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(4)]
    for process in processes:
        out, err = process.communicate()
        assert process.returncode == 0, out + err
        assert [line for line in err.splitlines() if not line.startswith("hpcproxy: next: ")] == []
    assert (home / ".bashrc").read_bytes() == NEW
    account = Account.of(os.environ)
    assert {
        result.outcome for result in verbs.install_bashrc(account, verbs.settings_of(account, FLAGS), dry_run=True)
    } == {Outcome.UNCHANGED}
    assert sorted(path.name for path in home.iterdir()) == [".bash_profile", ".bashrc", ".hpcproxy"]


# ------------------------------------------------------------------------------------------------ no space


def _limited(size_bytes: int) -> subprocess.CompletedProcess[str]:
    """Install in a process whose files the kernel keeps from growing beyond `size_bytes`."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, size_bytes))

    environ = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(COMMAND, capture_output=True, text=True, check=False, preexec_fn=limit, env=environ)


@pytest.mark.parametrize(
    ("limit_bytes", "failing"), [(10, "config.yaml"), (2000, "tunnel.sh"), (100_000, "agent.pyz")], ids=str
)
def test_a_file_that_cannot_grow_leaves_the_old_one_and_no_debris(limit_bytes: int, failing: str, home: Path) -> None:
    old = b"# long\n" * 20_000
    (home / ".bashrc").write_bytes(old)
    done = _limited(limit_bytes)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert f"{failing}: File too large; what was there is unchanged" in done.stderr
    assert (home / ".bashrc").read_bytes() == old
    assert [path.name for path in home.rglob("*") if "hpcproxy-new" in path.name] == []
    assert subprocess.run(COMMAND, capture_output=True, check=False).returncode == 0
    assert (home / ".bashrc").read_bytes() == block.put(old, block.bashrc_pointer())


def test_a_full_disk_leaves_the_old_file_and_no_debris(home: Path) -> None:
    """On a real full file system, in a mount namespace of its own (a user namespace where we are not root)."""
    if shutil.which("unshare") is None or not _may_mount(home):
        pytest.skip("this kernel lets us make no mount namespace")
    script = """
        set -eu
        mount -t tmpfs -o size=48k,mode=700 tmpfs "$HOME"
        printf '%s' 'export A=1' >"$HOME/.bashrc"
        head -c 4096 /dev/zero >"$HOME/room"
        cat /dev/zero >"$HOME/filler" 2>/dev/null || :
        rm "$HOME/room"
        status=0
        "$@" >&2 || status=$?
        printf '%s\n' "$status" "$(cat "$HOME/.bashrc")" "$(find "$HOME" -name '*hpcproxy-new*')"
    """
    argv = [*_UNSHARE, "sh", "-c", script, "sh", *COMMAND]
    environ = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(argv, capture_output=True, text=True, check=False, env=environ)
    assert done.stdout.splitlines() == ["1", "export A=1", ""], done.stderr
    assert "No space left on device; what was there is unchanged" in done.stderr
    assert done.stderr.count("\n") == 1


_UNSHARE = ["unshare", "--mount", *([] if os.geteuid() == 0 else ["--map-root-user"]), "--"]


def _may_mount(home: Path) -> bool:
    argv = [*_UNSHARE, "mount", "-t", "tmpfs", "tmpfs", str(home)]
    return subprocess.run(argv, capture_output=True, check=False).returncode == 0


# ------------------------------------------------------------------------------------------------ a power cut


def test_a_file_is_on_disk_before_its_name_and_its_name_before_it_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a power cut leaves an empty file by the right name; fsync(2), NOTES."""
    target, done = tmp_path / "file", []
    fsync, replace = os.fsync, os.replace

    def synced(descriptor: int) -> None:
        done.append(f"sync {Path(f'/proc/self/fd/{descriptor}').readlink().suffix or 'directory'}")
        fsync(descriptor)

    def renamed(old: str, new: Path) -> None:
        done.append("rename")
        assert Path(old).read_bytes() == b"text"
        replace(old, new)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "replace", renamed)
    changes.apply([changes.Write(target, b"text", None)])
    assert done == [f"sync {changes._NEW_SUFFIX}", "rename", "sync directory"]
    assert stat.S_IMODE(target.stat().st_mode) == 0o644

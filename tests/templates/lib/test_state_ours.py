"""A state directory is believed only if nobody else can have made it: one table, for commands and for scripts."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

import hpcproxy
from hpcproxy.account import tunnels

LIBRARY = Path(hpcproxy.__file__).parent / "templates" / "lib"
STRANGER = 65001
JOB = "4711"


def _linked(path: Path) -> None:
    real = path.rename(path.with_name(f"real-{path.name}"))
    path.symlink_to(real)


def _given_away(path: Path) -> None:
    os.chown(path, STRANGER, STRANGER)


# What is done to it, and whether the commands and the scripts take it for one of ours then.
FORGERIES: dict[str, tuple[Callable[[Path], None], bool, bool]] = {
    "as it was made": (lambda _state: None, True, True),
    "a link to one of ours": (_linked, False, False),
    "above it a link": (lambda state: _linked(state.parent), False, False),
    "its group may write": (lambda state: state.chmod(0o770), False, True),
    "others may read": (lambda state: state.chmod(0o704), False, True),
    "another's": (_given_away, False, False),
    "above it another's": (lambda state: _given_away(state.parent), False, False),
    "another's values": (lambda state: _given_away(state / "env"), True, False),
    "a file": (lambda state: (state.rename(state.with_name("away")), state.write_text("")), False, False),  # type: ignore[dict-item]
    "no supervisor": (lambda state: (state / "pid").unlink(), False, False),
    "a supervisor that is another process": (
        lambda state: (state / "pid").write_text(f"{os.getpid()} 1\n"),
        False,
        False,
    ),  # type: ignore[dict-item]
}
IN_A_USER_NAMESPACE = Path("/proc/self/uid_map").read_text().split() != ["0", "0", "4294967295"]
# Owner and mode of a directory (%u and %f of stat), and whether nobody but root and us can rename what is in it.
BASES = {
    "ours": (os.geteuid(), 0o40700, True),
    "ours, that others may read": (os.geteuid(), 0o40755, True),
    "root's": (0, 0o40755, True),
    "root's and sticky": (0, 0o41777, True),
    "root's, and all may write": (0, 0o40777, False),
    "root's, and a group may write": (0, 0o40775, False),
    "a stranger's": (STRANGER, 0o40700, False),
    "a stranger's, that none may write": (STRANGER, 0o40555, False),
    "a stranger's and sticky": (STRANGER, 0o41777, False),
    "of the overflow uid, which is root's in a user namespace only": (65534, 0o41777, IN_A_USER_NAMESPACE),
    "ours by no number": ("", 0o40700, False),
    "ours by a word": ("root", 0o40700, False),
}
BY_ROOT = {"another's", "above it another's", "another's values"}


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """One of a supervisor that lives: this process."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    directory = tmp_path / f"hpcproxy-{os.geteuid()}" / f"{JOB}.0-abcd1234"
    directory.parent.mkdir(mode=0o700)
    directory.mkdir(mode=0o700)
    (directory / "pid").write_text(f"{os.getpid()} {tunnels.start_time(os.getpid())}\n")
    (directory / "env").write_text(
        f"version=1\nkey={JOB}.0\nuid={os.getuid()}\nlisten=0100007F:0001\nurl=http://127.0.0.1:1\nno_proxy=a\n"
    )
    return directory


def _found_by_scripts() -> bool:
    parts = [next(LIBRARY.rglob(name)) for name in ("process.sh", "state.sh")]
    text = '. "$1"; . "$2"; run_base=/nonexistent; find_state_base; find_state "$3"'
    argv = ["bash", "-uc", text, "bash", *map(str, parts), f"{JOB}.0"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.stderr == ""
    return done.returncode == 0


@pytest.mark.parametrize("forgery", FORGERIES)
def test_what_somebody_else_can_have_made_is_not_believed(forgery: str, state: Path) -> None:
    if forgery in BY_ROOT and os.geteuid() != 0:
        pytest.skip("only root can give a file away")
    change, for_commands, for_scripts = FORGERIES[forgery]
    change(state)
    assert bool(tunnels.find(os.environ, run=Path("/nonexistent"))) is for_commands
    assert _found_by_scripts() is for_scripts


def test_a_home_that_the_last_tunnel_takes_away_is_an_empty_one(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between two looks at it: a supervisor removes the directory above its own when it is the last."""
    gone = state.parent / "gone"
    monkeypatch.setattr(tunnels, "homes", lambda _environ: [gone, state.parent])
    assert [tunnel.directory for tunnel in tunnels.find(os.environ)] == [state]


@pytest.mark.parametrize("kind", BASES)
def test_a_base_is_safe_where_none_but_root_and_us_can_rename(kind: str) -> None:
    uid, mode, safe = BASES[kind]
    ask = '. "$0/tunnel/home.sh"; is_safe_base "$1" "$2" && echo safe'
    argv = ["bash", "-c", ask, str(LIBRARY), str(uid), f"{mode:x}"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("safe\n" if safe else "", "")

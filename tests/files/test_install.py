"""Files in somebody's home: whatever is there, and whatever happens, nothing of theirs is lost."""

from __future__ import annotations

import os
import socket
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from hpcproxy.account import verbs
from hpcproxy.account.account import Account
from hpcproxy.changes import Outcome
from hpcproxy.errors import BlockError, FileError, HpcproxyError
from hpcproxy.files import block
from tests import modest
from tests.snapshot import tree

FLAGS = {"jump": ["hello@192.168.31.10"], "port": 2015}
BLOCK = block.put(b"", block.bashrc_pointer())


def _install(account: Account, **flags: object) -> list[Outcome]:
    return [
        result.outcome
        for result in verbs.install_bashrc(account, verbs.settings_of(account, {**FLAGS, **flags}), dry_run=False)
    ]


def _plain(content: bytes) -> Callable[[Path], None]:
    return lambda home: (home / ".bashrc").write_bytes(content) and None


def _missing(_home: Path) -> None:
    pass


def _link_into_dotfiles(home: Path) -> None:
    (home / "dotfiles").mkdir()
    (home / "dotfiles" / "bashrc").write_bytes(b"export A=1\n")
    (home / ".bashrc").symlink_to("dotfiles/bashrc")


def _link_over_link(home: Path) -> None:
    _link_into_dotfiles(home)
    (home / ".bashrc").rename(home / ".other")
    (home / ".bashrc").symlink_to(home / ".other")


def _dangling_link(home: Path) -> None:
    (home / "dotfiles").mkdir()
    (home / ".bashrc").symlink_to("dotfiles/bashrc")


def _link_to_an_empty_file(home: Path) -> None:
    (home / "rc").touch()
    (home / ".bashrc").symlink_to("rc")


def _private(home: Path) -> None:
    (home / ".bashrc").write_bytes(b"secret=1\n")
    (home / ".bashrc").chmod(0o600)


def _other_owner(home: Path) -> None:
    (home / ".bashrc").write_bytes(b"a=1\n")
    if os.geteuid() == 0:
        os.chown(home / ".bashrc", 65534, 65534)
        (home / ".bashrc").chmod(0o640)


HOMES: dict[str, Callable[[Path], None]] = {
    "missing": _missing,
    "empty": _plain(b""),
    "usual": _plain(b"case $- in *i*) ;; *) return ;; esac\nexport A=1\n"),
    "no final newline": _plain(b"export A=1"),
    "only a newline": _plain(b"\n"),
    "CRLF": _plain(b"export A=1\r\nexport B=2\r\n"),
    "CRLF, no final newline": _plain(b"export A=1\r\nexport B=2"),
    "not UTF-8": _plain(b"# caf\xe9 \xff\xfe\nexport A=1\n"),
    "NUL": _plain(b"a\0b\n"),
    "link into dotfiles": _link_into_dotfiles,
    "link over link": _link_over_link,
    "dangling link": _dangling_link,
    "link to an empty file": _link_to_an_empty_file,
    "private": _private,
    "other owner": _other_owner,
}
every_home = pytest.mark.parametrize("name", HOMES)


@every_home
def test_uninstall_undoes_install_for_the_whole_account(name: str, home: Path, account: Account) -> None:
    HOMES[name](home)
    before = tree(home)
    _install(account)
    assert tree(home) != before
    assert block.BEGIN in (home / ".bashrc").read_bytes()
    results, left = verbs.uninstall(account)
    assert tree(home) == before
    assert left == []
    assert all(result.outcome is Outcome.CHANGED for result in results)


@every_home
def test_a_second_run_changes_nothing(name: str, home: Path, account: Account) -> None:
    HOMES[name](home)
    assert set(_install(account)) == {Outcome.CHANGED}
    once = tree(home, times=True)
    assert set(_install(account)) == {Outcome.UNCHANGED}
    assert tree(home, times=True) == once


@every_home
def test_a_dry_run_touches_nothing_and_tells_the_truth(name: str, home: Path, account: Account) -> None:
    HOMES[name](home)
    before = tree(home, times=True)
    preview = verbs.install_bashrc(account, verbs.settings_of(account, FLAGS), dry_run=True)
    assert tree(home, times=True) == before
    assert {result.outcome for result in preview} == {Outcome.WOULD_CHANGE}
    done = verbs.install_bashrc(account, verbs.settings_of(account, FLAGS), dry_run=False)
    assert [result.path for result in done] == [result.path for result in preview]
    assert {
        result.outcome for result in verbs.install_bashrc(account, verbs.settings_of(account, FLAGS), dry_run=True)
    } == {Outcome.UNCHANGED}


@every_home
def test_owner_mode_and_links_stay_as_they_were(name: str, home: Path, account: Account) -> None:
    HOMES[name](home)
    bashrc = home / ".bashrc"
    link = str(bashrc.readlink()) if bashrc.is_symlink() else None
    before = bashrc.stat() if bashrc.exists() else None
    _install(account)
    assert (str(bashrc.readlink()) if bashrc.is_symlink() else None) == link
    after = bashrc.stat()
    if before is not None:
        assert (after.st_mode, after.st_uid, after.st_gid) == (before.st_mode, before.st_uid, before.st_gid)
    else:
        assert stat.S_IMODE(after.st_mode) == 0o644


def test_uninstall_bashrc_leaves_our_files(home: Path, account: Account) -> None:
    (home / ".bashrc").write_bytes(b"a=1\n")
    _install(account)
    ours = tree(account.home.directory)
    (result,) = verbs.uninstall_bashrc(account)
    assert result.outcome is Outcome.CHANGED
    assert (home / ".bashrc").read_bytes() == b"a=1\n"
    assert tree(account.home.directory) == ours
    assert verbs.uninstall_bashrc(account) == []


def test_uninstalling_where_nothing_is_does_nothing(home: Path, account: Account) -> None:
    before = tree(home, times=True)
    assert verbs.uninstall(account) == ([], [])
    assert tree(home, times=True) == before


def test_uninstall_takes_what_the_agent_has_kept_compiled(home: Path, account: Account) -> None:
    _install(account)
    for name in ("agent.cpython-36.code", "agent.cpython-311.code.new"):
        (home / ".hpcproxy" / name).touch()
    verbs.uninstall(account)
    assert not (home / ".hpcproxy").exists()


def test_uninstall_leaves_what_is_not_ours_and_names_it(home: Path, account: Account) -> None:
    _install(account)
    theirs = account.home.directory / "notes.txt"
    theirs.write_text("mine")
    assert verbs.uninstall(account)[1] == [theirs]
    assert theirs.read_text() == "mine"
    assert [path.name for path in account.home.directory.iterdir()] == ["notes.txt"]
    del home


def test_uninstall_works_though_the_settings_are_broken(home: Path, account: Account) -> None:
    before = tree(home)
    _install(account)
    account.home.config.write_bytes(b"port: [\xff")
    verbs.uninstall(account)
    assert tree(home) == before


def test_what_the_user_adds_below_the_block_survives_both_ways(home: Path, account: Account) -> None:
    _install(account)
    with (home / ".bashrc").open("ab") as file:
        file.write(b"export MINE=1\n")
    assert set(_install(account)) == {Outcome.UNCHANGED}
    verbs.uninstall(account)
    assert (home / ".bashrc").read_bytes() == b"export MINE=1\n"


def test_our_files_are_nobody_elses(home: Path, account: Account) -> None:
    os.umask(0)
    _install(account)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in account.home.directory.iterdir()}
    assert stat.S_IMODE(account.home.directory.stat().st_mode) == 0o700
    assert modes == {
        "config.yaml": 0o600,
        "tunnel.sh": 0o700,
        "job.sh": 0o700,
        "prologue.sh": 0o600,
        "epilogue.sh": 0o600,
        "bashrc.sh": 0o600,
        "agent.json": 0o600,
        "agent.pyz": 0o700,
        "stamp": 0o600,
    }
    del home


def test_a_mode_that_somebody_changed_is_mended(account: Account) -> None:
    _install(account)
    script = account.home.directory / "tunnel.sh"
    script.chmod(0o777)
    assert _install(account).count(Outcome.CHANGED) == 1
    assert stat.S_IMODE(script.stat().st_mode) == 0o700


def test_settings_that_were_there_keep_their_text(account: Account) -> None:
    account.home.directory.mkdir()
    account.home.config.write_text("# mine\nscheme: socks5 # why\n")
    _install(account)
    text = account.home.config.read_text()
    assert text == "# mine\nscheme: socks5 # why\njump:\n- hello@192.168.31.10\nport: 2015\n"


def test_hpcproxy_home_moves_everything_but_the_block(home: Path) -> None:
    elsewhere = home / "else where" / "größe"
    account = Account.of({**os.environ, "HPCPROXY_HOME": str(elsewhere)})
    before = {name for name in tree(home) if not name.startswith("else where")}
    _install(account)
    assert (elsewhere / "tunnel.sh").exists()
    assert not (home / ".hpcproxy").exists()
    verbs.uninstall(account)
    assert not elsewhere.exists()
    assert {name for name in tree(home) if not name.startswith("else where")} == before


# ------------------------------------------------------------------------------------------------ refusals


def _two_blocks(home: Path) -> None:
    (home / ".bashrc").write_bytes(BLOCK + b"a=1\n" + BLOCK)


def _half_a_block(home: Path) -> None:
    (home / ".bashrc").write_bytes(b"a=1\n" + block.BEGIN + b"\nexport B=2\n")


def _other_half(home: Path) -> None:
    (home / ".bashrc").write_bytes(b"a=1\n" + block.END + b"\nexport B=2\n")


def _end_first(home: Path) -> None:
    (home / ".bashrc").write_bytes(block.END + b"\n" + block.BEGIN + b"\n")


@pytest.mark.parametrize("make", [_two_blocks, _half_a_block, _other_half, _end_first])
def test_damaged_markers_leave_the_whole_account_untouched(
    make: Callable[[Path], None], home: Path, account: Account
) -> None:
    make(home)
    before = tree(home, times=True)
    commands: list[Callable[[], object]] = [
        lambda: verbs.install_bashrc(account, verbs.settings_of(account, FLAGS), dry_run=False),
        lambda: verbs.install_bashrc(account, verbs.settings_of(account, FLAGS), dry_run=True),
        lambda: verbs.uninstall_bashrc(account),
        lambda: verbs.uninstall(account),
    ]
    for verb in commands:
        with pytest.raises(BlockError, match=r"\.bashrc: holds"):
            verb()
    assert tree(home, times=True) == before


def _read_only(home: Path) -> None:
    (home / ".bashrc").write_bytes(b"a=1\n")
    (home / ".bashrc").chmod(0o444)


def _directory(home: Path) -> None:
    (home / ".bashrc").mkdir()


def _socket(home: Path) -> None:
    here = Path.cwd()
    os.chdir(home)  # a socket's name must be short
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(".bashrc")
    os.chdir(here)


def _link_loop(home: Path) -> None:
    (home / ".bashrc").symlink_to(".bashrc")


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (_read_only, r"\.bashrc: is read-only; allow writing with chmod u\+w"),
        (_directory, r"\.bashrc: Is a directory"),
        (_socket, r"\.bashrc: No such device or address"),
        (_link_loop, r"\.bashrc: Too many levels of symbolic links"),
    ],
)
def test_a_bashrc_that_cannot_be_changed_is_refused_before_anything_is_written(
    make: Callable[[Path], None], reason: str, home: Path, account: Account
) -> None:
    make(home)
    before = tree(home, times=True)
    with pytest.raises(FileError, match=reason):
        _install(account)
    assert tree(home, times=True) == before


def test_a_read_only_bashrc_keeps_its_block_at_uninstall_and_says_so(home: Path, account: Account) -> None:
    (home / ".bashrc").write_bytes(b"a=1\n")
    _install(account)
    (home / ".bashrc").chmod(0o444)
    before = tree(home, times=True)
    with pytest.raises(FileError, match="is read-only"):
        verbs.uninstall(account)
    assert tree(home, times=True) == before


def test_a_bashrc_that_already_has_the_block_may_be_read_only(home: Path, account: Account) -> None:
    _install(account)
    (home / ".bashrc").chmod(0o444)
    assert set(_install(account)) == {Outcome.UNCHANGED}


def test_a_file_where_our_directory_should_be(home: Path, account: Account) -> None:
    (home / ".hpcproxy").write_text("mine")
    before = tree(home, times=True)
    with pytest.raises(HpcproxyError, match=r"\.hpcproxy/config\.yaml: "):
        _install(account)
    assert tree(home, times=True) == before


def test_a_home_that_cannot_be_written(home: Path) -> None:
    home.chmod(0o500)
    try:
        command = modest.argv(sys.executable, "-m", "hpcproxy", "install-bashrc")
        done = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
        assert done.returncode == 1
        assert "Permission denied; what was there is unchanged" in done.stderr
        assert list(home.iterdir()) == []
    finally:
        home.chmod(0o700)

"""This machine, the settings, the installed files: each check content, and each with what it is to find."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from hpcproxy.account.account import Account
from hpcproxy.doctor import of_machine
from hpcproxy.doctor.finding import Mark
from tests.doctor.conftest import is_bad, look, looked
from tests.sshd import Sshd
from tests.supervisor import Supervisor, write_script

_NAMES = ("programs", "room", "directory", "settings", "jump host", "installed files")


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """program(name, script) puts one on PATH, before all others."""
    monkeypatch.setenv("PATH", f"{tmp_path}/programs:{os.environ['PATH']}")

    def put(name: str, script: str) -> None:
        path = tmp_path / "programs" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(script)
        path.chmod(0o755)

    return put


def test_all_is_well(healthy: Account) -> None:
    found = looked(healthy, *_NAMES)
    assert {name: one for name, one in found.items() if one.mark is not Mark.GOOD} == {}


def test_an_old_program(healthy: Account, program: Callable[[str, str], None]) -> None:
    program("srun", "#!/bin/sh\necho slurm 19.05.7\n")
    is_bad(look(healthy, "programs"), "Slurm 19.05.7 is too old, 20.11 is needed", "README.md")


@pytest.mark.parametrize("what", ["absent", "a file"])
def test_no_room_for_files(what: str, healthy: Account, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / "no such place"
    if what == "a file":
        place.write_text("")
    monkeypatch.setenv("TMPDIR", str(place))
    is_bad(look(healthy, "room"), "in which nothing can be made", "unset TMPDIR")


def test_a_full_disk(healthy: Account, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.statvfs(os.environ["TMPDIR"])
    full = os.statvfs_result((*real[:4], 100, *real[5:]))
    monkeypatch.setattr(os, "statvfs", lambda _path: full)
    is_bad(look(healthy, "room"), "is full", "make room")


def test_a_directory_in_which_others_write(healthy: Account) -> None:
    healthy.home.directory.chmod(0o777)
    is_bad(look(healthy, "directory"), "others may write", f"chmod go-w {healthy.home.directory}")


def test_a_directory_that_is_a_file(account: Account) -> None:
    account.home.directory.write_text("")
    is_bad(look(account, "directory"), "is no directory", "mv ")


def test_settings_that_cannot_be_read(healthy: Account) -> None:
    with healthy.home.config.open("a") as file:
        file.write("prot: 2015\n")
    found = looked(healthy, "installed files")
    is_bad(found["settings"], "config.yaml: prot: unknown key", "mend that line")
    assert found["installed files"].words == "not tried, because “settings” failed"


def test_no_jump_host(account: Account) -> None:
    is_bad(look(account, "jump host"), "no jump host is configured", "hpcproxy init --jump USER@HOST")


def test_no_jump_host_where_the_site_has_one(account: Account, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "job.sh").write_text("")
    monkeypatch.setattr(of_machine, "PROGRAMS", tmp_path)
    found = look(account, "jump host")
    assert (found.mark, "your site's own tunnel serves your jobs" in found.words) == (Mark.UNTRIED, True)


def test_a_rolled_out_job_without_a_tunnel_has_its_sites_reason(
    account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HPCPROXY_ERROR", "forwarding jump1: the jump host does not allow forwarding")
    found = looked(account, "tunnel")
    is_bad(found["jump host"], "your site's own tunnel is not there on this node: forwarding jump1", "ask your admin")


def test_a_sites_tunnel_that_is_up_needs_nothing_of_the_users(
    account: Account, jump_host: Sshd, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    supervisor = Supervisor(write_script(tmp_path / "site", **jump_host.settings))
    supervisor.line("ready")
    monkeypatch.setenv("SLURM_JOB_ID", supervisor.job)
    try:
        found = looked(account, "agent", "shell in a job", "certificate")
    finally:
        supervisor.end()
    assert {name: one for name, one in found.items() if one.mark is not Mark.GOOD} == {}
    assert found["tunnel"].words.endswith(f" through {jump_host.jump}")


def test_files_that_are_not_as_the_settings_say(healthy: Account) -> None:
    with (healthy.home.directory / "job.sh").open("a") as file:
        file.write("# mine\n")
    is_bad(look(healthy, "installed files"), "older than the settings", "hpcproxy install-bashrc")


def test_files_that_are_missing(healthy: Account) -> None:
    for path in healthy.home.directory.iterdir():
        if path.name not in {"config.yaml", "known_hosts"}:
            path.unlink()
    found = look(healthy, "installed files")
    is_bad(found, "missing in", "hpcproxy install-bashrc")
    assert "older" not in found.words


def test_it_changes_nothing(account: Account) -> None:
    shutil.rmtree(account.home.directory, ignore_errors=True)
    looked(account)
    assert list(account.user_home.iterdir()) == []
    assert list(Path(os.environ["TMPDIR"]).iterdir()) == []

"""Real shells of an account: the block, who reads it, rc files that set another proxy."""

from __future__ import annotations

import os
import pwd

import pytest

from hpcproxy.account.account import Account
from hpcproxy.doctor.finding import Mark
from tests.doctor.conftest import is_bad, look, looked

_NAMES = ("block in .bashrc", "interactive shell", "login shell", "shell in a job", "rc files")


def _above(account: Account, line: str) -> None:
    account.bashrc.write_text(f"{line}\n{account.bashrc.read_text()}")


def test_all_is_well(healthy: Account) -> None:
    found = looked(healthy, *_NAMES)
    assert {name: one for name, one in found.items() if one.mark is not Mark.GOOD} == {}


def test_a_block_that_is_not_there(healthy: Account) -> None:
    healthy.bashrc.write_text("# mine\n")
    found = looked(healthy, *_NAMES)
    is_bad(found["block in .bashrc"], "the block is not in", "hpcproxy install-bashrc")
    assert found["login shell"].words == "not tried, because “block in .bashrc” failed"


def test_half_a_block(healthy: Account) -> None:
    healthy.bashrc.write_text(healthy.bashrc.read_text().replace("# <<< hpcproxy <<<\n", ""))
    is_bad(look(healthy, "block in .bashrc"), "only half of the hpcproxy block", "by hand")


def test_a_line_that_leaves_before_it(healthy: Account) -> None:
    _above(healthy, "return")
    found = look(healthy, "interactive shell")
    is_bad(found, "(line 1 leaves before it)", "move the block above that")


def test_another_shell(healthy: Account, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = pwd.struct_passwd((*pwd.getpwuid(os.getuid())[:6], "/bin/dash"))
    monkeypatch.setattr(pwd, "getpwuid", lambda _uid: entry)
    found = looked(healthy, *_NAMES)
    assert found["interactive shell"].mark is Mark.UNTRIED
    assert "your login shell is dash, which reads no .bashrc" in found["interactive shell"].words
    assert found["login shell"].words == found["interactive shell"].words


def test_a_login_file_that_reads_no_bashrc(healthy: Account) -> None:
    for name in (".bash_profile", ".bash_login", ".profile"):
        (healthy.user_home / name).unlink(missing_ok=True)
    (healthy.user_home / ".bash_profile").write_text("# mine\n")
    is_bad(look(healthy, "login shell"), "does not read ~/.bashrc", "[ -r ~/.bashrc ] && . ~/.bashrc")


def test_a_line_that_leaves_inside_a_job(healthy: Account) -> None:
    (healthy.user_home / ".profile").write_text("[ -r ~/.bashrc ] && . ~/.bashrc\n")
    _above(healthy, '[ -n "$SLURM_JOB_ID" ] && return')
    found = looked(healthy, *_NAMES)
    is_bad(found["shell in a job"], "inside a job no bash gets as far", "move the block above that")
    assert found["interactive shell"].mark is Mark.GOOD


def test_an_rc_file_with_a_proxy_of_its_own(healthy: Account) -> None:
    _above(healthy, "export https_proxy=http://u:s3cret@p:1")
    found = look(healthy, "rc files")
    is_bad(found, f"{healthy.bashrc}:1: sets https_proxy", f"take line 1 out of {healthy.bashrc}")
    assert "s3cret" not in found.words

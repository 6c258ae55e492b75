"""Real bash, asked whether it reads our block: the field's ways of not getting there, each with its reason."""

from __future__ import annotations

import os
import pwd
import subprocess
from pathlib import Path

import pytest

from hpcproxy.account import login_shell, verbs
from hpcproxy.account.account import Account
from tests.shells import program_of, tunnel_state, url_of


@pytest.fixture(autouse=True)
def _bash(monkeypatch: pytest.MonkeyPatch) -> None:
    _login_shell(monkeypatch, "/bin/bash")


def _login_shell(monkeypatch: pytest.MonkeyPatch, shell: str) -> None:
    found = pwd.getpwuid(os.getuid())
    entry = pwd.struct_passwd((*found[:6], shell))
    monkeypatch.setattr(pwd, "getpwuid", lambda _uid: entry)


@pytest.fixture
def installed(account: Account) -> Account:
    verbs.install_bashrc(account, verbs.settings_of(account, {"jump": ["u@h"]}), dry_run=False)
    return account


def _above(account: Account, lines: str) -> None:
    account.bashrc.write_text(lines + account.bashrc.read_text())


def test_a_home_whose_shells_all_read_it_is_left_alone(installed: Account) -> None:
    (installed.user_home / ".profile").write_text("[ -r ~/.bashrc ] && . ~/.bashrc\n")
    assert verbs.ask_shells(installed) == ([], [])


@pytest.mark.parametrize("name", login_shell.LOGIN_FILES)
def test_a_login_file_that_reads_no_bashrc_gets_the_block_and_gives_it_back(installed: Account, name: str) -> None:
    file = installed.user_home / name
    file.write_text("# mine\nexport PATH=$PATH:$HOME/bin\n")
    before = file.read_bytes()
    (written,), remarks = verbs.ask_shells(installed)
    assert (written.path, remarks) == (file, [])
    assert verbs.ask_shells(installed) == ([], [])
    verbs.uninstall_bashrc(installed)
    assert file.read_bytes() == before


def test_a_home_with_no_login_file_gets_one_and_loses_it(installed: Account) -> None:
    (written,), _ = verbs.ask_shells(installed)
    assert written.path == installed.user_home / ".bash_profile"
    verbs.uninstall_bashrc(installed)
    assert not written.path.exists()


@pytest.mark.parametrize(
    "line", ["[[ $- != *i* ]] && return", '[ -z "$PS1" ] && return', "case $- in *i*) ;; *) return ;; esac"]
)
def test_the_usual_return_of_shells_that_are_not_interactive_is_fine(installed: Account, line: str) -> None:
    _above(installed, line + "\n")
    assert verbs.ask_shells(installed)[1] == []


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ('[ -n "$SLURM_JOB_ID" ] && return', "inside a job no bash gets as far as the block"),
        ('[ -n "${SLURM_JOBID-}" ] && exec true', "inside a job no bash gets as far as the block"),
        ('[ -n "${SLURM_STEP_ID-}" ] && return', "inside a job no bash gets as far as the block"),
        ('[ "${SLURM_PROCID:-x}" != x ] && return', "inside a job no bash gets as far as the block"),
        ('[ -n "${SLURM_JOB_PARTITION-}" ] && return', "inside a job no bash gets as far as the block"),
        ("return", "no bash of yours gets as far as the block"),
        ("exec true", "no bash of yours gets as far as the block"),
        ("case $- in *i*) [ -x /bin/true ] && exec /bin/true;; esac", "no bash of yours gets as far as the block"),
    ],
)
def test_what_leaves_before_the_block_is_named_with_its_line(installed: Account, line: str, why: str) -> None:
    (installed.user_home / ".profile").write_text("[ -r ~/.bashrc ] && . ~/.bashrc\n")
    _above(installed, f"# return\n{line}\n")
    written, remarks = verbs.ask_shells(installed)
    assert written == []
    assert remarks == [f"{why} in {installed.bashrc} (line 2 leaves before it); move the block above that"]


def test_the_line_that_left_is_the_one_that_bash_ran(installed: Account) -> None:
    """Behind it stands another that could have: Debian's own, for shells that are not interactive."""
    (installed.user_home / ".profile").write_text(". ~/.bashrc\n")
    _above(installed, '[ -n "${SLURM_JOB_ID-}" ] && return\ncase $- in\n    *i*) ;;\n    *) return ;;\nesac\n')
    (why,) = verbs.ask_shells(installed)[1]
    assert "(line 1 leaves before it)" in why


def test_a_file_that_bashrc_reads_and_that_leaves_is_named(installed: Account) -> None:
    (installed.user_home / ".profile").write_text(". ~/.bashrc\n")
    (installed.user_home / ".shell").write_text("# mine\nexec true\n")
    _above(installed, ". ~/.shell\n")
    (why,) = verbs.ask_shells(installed)[1]
    assert f"(line 2 of {installed.user_home}/.shell leaves)" in why


def test_a_line_that_bash_does_not_understand_is_named(installed: Account) -> None:
    (installed.user_home / ".profile").write_text(". ~/.bashrc\n")
    _above(installed, "alias a=b\nif [ -n x ]; fi\ncase $- in *i*) ;; *) return ;; esac\n")
    (why,) = verbs.ask_shells(installed)[1]
    assert "(line 2 is none that bash understands)" in why


@pytest.mark.parametrize(
    ("lines", "where"),
    [
        ("set -e\nfalse\n", "bash ends at line 2 of {}"),
        ("alias a=b\ncat <<END >/dev/null\nhello\n", "the here-document of line 2 has no end"),
        ("if true; then\nalias a=b\n", "something has no end"),
        ("alias a='b\n", "something has no end"),
    ],
    ids=["errexit", "here-document", "if", "quote"],
)
def test_what_ends_bash_or_swallows_the_block_is_named(installed: Account, lines: str, where: str) -> None:
    (installed.user_home / ".profile").write_text(". ~/.bashrc\n")
    _above(installed, lines)
    (why,) = verbs.ask_shells(installed)[1]
    assert f"({where.format(installed.bashrc)})" in why


@pytest.mark.parametrize("line", ["tty -s || return", "[ -t 1 ] || return"])
def test_what_asks_for_a_terminal_is_not_said_to_be_in_the_way_where_there_is_one(
    installed: Account, line: str
) -> None:
    (installed.user_home / ".profile").write_text(". ~/.bashrc\n")
    _above(installed, line + "\n")
    (why,) = verbs.ask_shells(installed)[1]
    assert why.startswith(f"without a terminal no bash of yours gets as far as the block in {installed.bashrc} (line 1")


@pytest.mark.parametrize(
    ("shell", "line"),
    [
        ("/bin/tcsh", 'type: eval "`hpcproxy env --shell tcsh`"'),
        ("/usr/bin/zsh", "add to ~/.zshrc: emulate sh -c '. ~/.hpcproxy/bashrc.sh'"),
        ("/usr/bin/fish", "type: hpcproxy env --shell fish | source"),
        ("/usr/bin/ksh", "proxy_on is there in a bash only"),
    ],
)
def test_another_login_shell_is_told_what_it_has(
    installed: Account, shell: str, line: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    _login_shell(monkeypatch, shell)
    written, (why,) = verbs.ask_shells(installed)
    assert written == []
    assert why.startswith(f"your login shell is {Path(shell).name}, which reads no .bashrc: ")
    assert line in why


def test_a_shell_that_hangs_costs_its_bound_and_leaves_nothing(
    installed: Account, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(login_shell, "_TIMEOUT_S", 1)
    _above(installed, f"sleep 1000 & echo $! >> {tmp_path}/pids; wait\n")
    assert "no bash of yours" in verbs.ask_shells(installed)[1][0]
    pids = (tmp_path / "pids").read_text().split()
    assert pids
    assert not [pid for pid in pids if Path(f"/proc/{pid}/stat").exists() and _state(pid) != "Z"]


def _state(pid: str) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]


def test_the_old_recipe_in_bashrc_is_named(installed: Account) -> None:
    (installed.user_home / ".profile").write_text(". ~/.bashrc\n")
    _above(installed, "export http_proxy=socks5://127.0.0.1:2015\n")
    (found,) = verbs.ask_shells(installed)[1]
    assert found.startswith(f"{installed.bashrc}:1: sets http_proxy")


def test_the_line_that_zsh_users_are_told_to_add_works_in_a_zsh_of_their_own(installed: Account) -> None:
    line = f"setopt nounset; emulate sh -c '. {installed.home.directory}/bashrc.sh'"
    text = f'{line}; proxy_on; print -r -- "$http_proxy"; proxy_status; [[ -o nomatch ]] && print as before; proxy_off'
    with tunnel_state("shell") as state:
        done = subprocess.run([program_of("zsh"), "-fc", text], capture_output=True, text=True, check=False)
        url = url_of(state)
    assert (done.returncode, done.stderr) == (0, "")
    assert url in done.stdout.splitlines()
    assert "as before" in done.stdout

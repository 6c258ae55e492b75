"""An account that is well, and a doctor who asks one thing at a time."""

from __future__ import annotations

import os
import pwd
from collections.abc import Iterator
from typing import Any

import pytest

from hpcproxy.account import verbs
from hpcproxy.account.account import Account
from hpcproxy.doctor import graph, table
from hpcproxy.doctor.finding import Finding, Mark
from hpcproxy.doctor.patient import Patient
from tests import servers
from tests.keys import accept
from tests.sshd import Sshd


@pytest.fixture(autouse=True)
def _bash(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = pwd.struct_passwd((*pwd.getpwuid(os.getuid())[:6], "/bin/bash"))
    monkeypatch.setattr(pwd, "getpwuid", lambda _uid: entry)


def set_up(account: Account, server: Sshd, **more: Any) -> Account:
    """Do what a user does before his first job: init, install-bashrc; `more` are settings."""
    flags = {"jump": [server.jump], "identity": str(server.identity), "port": servers.free_port()}
    account.home.directory.mkdir(mode=0o700, exist_ok=True)
    quick = {"connect_timeout_s": 5, "retry_max_s": 1, "allow": "['*', 127.0.0.1]", **more}
    account.home.config.write_text("".join(f"{key}: {value}\n" for key, value in quick.items()))
    assert verbs.init(
        account, verbs.settings_of(account, flags), verbs.Trial(login=False), consent=accept, say=lambda _text: None
    ).works
    verbs.install_bashrc(account, verbs.settings_of(account), dry_run=False)
    verbs.ask_shells(account)
    return account


@pytest.fixture
def healthy(account: Account, jump_host: Sshd) -> Iterator[Account]:
    """An account after `init` and `install-bashrc`, in which nothing is wrong."""
    yield set_up(account, jump_host)
    verbs.down(account)


def look(account: Account, name: str, **asked: Any) -> Finding:
    """Return what the check `name` finds, after those that it needs."""
    return looked(account, name, **asked)[name]


def looked(account: Account, *names: str, **asked: Any) -> dict[str, Finding]:
    """Return what the checks of these names find, and all that they need; without a name what all find."""
    patient = Patient(account, **asked)
    every = {check.name for check in table.of(patient)}
    wanted = set().union(*(graph.closure(table.ALL, name) for name in names)) if names else every
    try:
        found = graph.run([check for check in table.ALL if check.name in wanted], patient, 300)
    finally:
        patient.temporary.end()
    return {one.name: one.finding for one in found}


def is_bad(finding: Finding, words: str, fix: str) -> None:
    """Assert that something is wrong, in these words and with this fix, or that they hold these."""
    assert finding.mark is Mark.BAD, finding
    assert words in finding.words
    assert fix in finding.fix

"""What goes to an admin: all that helps, and nothing that is a secret."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from hpcproxy import heard
from hpcproxy.account import verbs
from hpcproxy.account.account import Account
from hpcproxy.doctor.bundle import contents, text_of
from hpcproxy.doctor.patient import Patient
from tests.doctor.conftest import set_up
from tests.sshd import Sshd

pytestmark = pytest.mark.filterwarnings("ignore:subprocess .* is still running:ResourceWarning")
_SECRETS = ("hunter2", "tok-123456", "pa55")


def test_it_holds_what_helps_and_no_secret(account: Account, jump_host: Sshd, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("https_proxy", "http://me:hunter2@proxy.example:3128")
    monkeypatch.setenv("MY_PROXY_TOKEN", "token=tok-123456")
    monkeypatch.setenv("SLURM_JOB_ID_COMMENT", "password: pa55")
    set_up(account, jump_host)
    tunnel = verbs.up(account, lambda _text: None)
    with (tunnel.directory / "log").open("a") as file:
        file.write("Authorization: api_key=tok-123456\nx\x1b[31my\n")
    try:
        text = text_of(contents(Patient(account), [])).decode()
    finally:
        verbs.down(account)
    assert [secret for secret in _SECRETS if secret in text] == []
    assert "https_proxy=http://…@proxy.example:3128" in text
    assert heard.HIDDEN in text
    assert "x?[31my" in text
    assert "PRIVATE KEY" not in text
    assert f"jump: {jump_host.jump}" in text
    assert f"up through {jump_host.jump}" in text
    listed = [line.partition(". ")[2] for line in text.splitlines() if line.startswith("  ")][:7]
    assert all(f". {title} ====" in text for title in listed)
    assert len(listed) == 7


def _doctor(*words: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "hpcproxy", "doctor", *words]
    return subprocess.run(argv, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)


def test_the_command_writes_a_new_private_file_and_says_what_is_in_it(home: Path, tmp_path: Path) -> None:
    target = tmp_path / "bundle.txt"
    done = _doctor("--bundle", str(target))
    assert done.returncode == 1
    assert target.stat().st_mode & 0o777 == 0o600
    assert f"{target} holds, without secrets: versions of this machine's programs; the report; " in done.stderr
    assert "no jump host is configured" in target.read_text()
    before = target.read_bytes()
    again = _doctor("--bundle", str(target))
    assert (again.returncode, again.stdout, target.read_bytes()) == (2, "", before)
    assert "is there already" in again.stderr
    assert list(home.iterdir()) == []
    assert list(Path(os.environ["TMPDIR"]).iterdir()) == []

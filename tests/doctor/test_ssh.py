"""The program ssh, its configuration, key and ssh-agent: by OpenSSH's own programs."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hpcproxy.account.account import Account
from hpcproxy.config import edit
from hpcproxy.doctor import of_ssh
from hpcproxy.doctor.finding import Mark
from tests import sshd
from tests.doctor.conftest import is_bad, look, looked
from tests.sshd import Sshd


def _identity(account: Account, key: Path) -> None:
    path = account.home.config
    path.write_text(edit.change(path.read_text(), {"identity": str(key)}, str(path)))


def _ssh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    (tmp_path / "programs").mkdir()
    program = tmp_path / "programs" / "ssh"
    program.write_text(script)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")


@pytest.fixture
def agent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An ssh-agent of one's own."""
    path = tmp_path / "agent"
    done = subprocess.run(["ssh-agent", "-s", "-a", path], capture_output=True, text=True, check=True)
    monkeypatch.setenv("SSH_AUTH_SOCK", str(path))
    yield path
    os.kill(int(done.stdout.partition("SSH_AGENT_PID=")[2].partition(";")[0]), signal.SIGTERM)


def test_all_is_well(healthy: Account, jump_host: Sshd) -> None:
    found = looked(healthy, "ssh", "ssh configuration", "ssh-agent", "key")
    assert {name: one for name, one in found.items() if one.mark is not Mark.GOOD} == {}
    assert found["key"].words == f"{jump_host.identity}, without a passphrase"
    assert found["ssh configuration"].words.endswith(f"{sshd.USER}@127.0.0.1:{jump_host.port}")


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("#!/bin/sh\necho 'OpenSSH_6.6.1p1, OpenSSL 1.0.1' >&2\n", "OpenSSH 6.6 is too old"),
        ("#!/bin/sh\necho 'Dropbear v2022.83' >&2\n", "none of OpenSSH's: Dropbear"),
    ],
)
def test_a_program_that_is_none(
    script: str, words: str, healthy: Account, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _ssh(tmp_path, monkeypatch, script)
    is_bad(look(healthy, "ssh"), words, "OpenSSH")


def test_no_program_at_all(account: Account, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    is_bad(look(account, "ssh"), "ssh cannot be run: No such file", "openssh-client")


def test_a_configuration_that_ssh_cannot_read(healthy: Account, ssh_config: Callable[[str | bytes], Path]) -> None:
    ssh_config("Compression perhaps\n")
    found = looked(healthy, "key", "login")
    is_bad(found["ssh configuration"], "line 1", "~/.ssh/config")
    assert found["login"].words == "not tried, because “ssh configuration” failed"


def test_a_proxyjump_in_a_circle(healthy: Account, ssh_config: Callable[[str | bytes], Path]) -> None:
    ssh_config(
        "Host 127.0.0.1\n ProxyJump a.example\nHost a.example\n ProxyJump b.example\nHost b.example\n"
        " ProxyJump a.example\n"
    )
    is_bad(look(healthy, "ssh configuration"), "ProxyJump leads in a circle", "~/.ssh/config")


def test_no_key_at_all(healthy: Account, ssh_config: Callable[[str | bytes], Path]) -> None:
    ssh_config("IdentityFile ~/none\n")
    path = healthy.home.config
    path.write_text("".join(line for line in path.read_text().splitlines(keepends=True) if "identity" not in line))
    is_bad(look(healthy, "key"), "there is no private key where ssh looks", "ssh-keygen -t ed25519")


def test_a_key_that_is_named_and_not_there(healthy: Account, tmp_path: Path) -> None:
    _identity(healthy, tmp_path / "none")
    is_bad(look(healthy, "key"), f"{tmp_path}/none", "ssh-keygen")


def test_a_key_for_all_to_read(healthy: Account, tmp_path: Path) -> None:
    key = sshd.make_key(tmp_path / "id")
    key.chmod(0o644)
    _identity(healthy, key)
    found = look(healthy, "key")
    is_bad(found, "others may read it (mode 0644)", f"chmod 600 {key}")
    assert found.fix == f"chmod 600 {key}"


def test_a_key_with_a_passphrase(healthy: Account, tmp_path: Path) -> None:
    _identity(healthy, sshd.make_key(tmp_path / "id", passphrase="secret"))  # noqa: S106 - nobody's
    is_bad(look(healthy, "key"), "has a passphrase, which nobody can type", "ssh-keygen -t ed25519 -N ''")


def test_the_public_half(healthy: Account, tmp_path: Path) -> None:
    key = sshd.make_key(tmp_path / "id")
    public = Path(f"{key}.pub")
    public.chmod(0o600)
    _identity(healthy, public)
    is_bad(look(healthy, "key"), f"{public} is the public half", "hpcproxy init --identity")


def test_a_key_that_is_cut_short(healthy: Account, tmp_path: Path) -> None:
    key = sshd.make_key(tmp_path / "id")
    key.write_text(key.read_text()[:60])
    _identity(healthy, key)
    is_bad(look(healthy, "key"), f"ssh cannot read the key {key}", "ssh-keygen")


def test_an_ssh_agent_with_and_without_keys_is_no_fault(healthy: Account, agent: Path, tmp_path: Path) -> None:
    assert look(healthy, "ssh-agent").words == "it answers, without a key"
    subprocess.run(["ssh-add", "-q", sshd.make_key(tmp_path / "id")], check=True)
    assert look(healthy, "ssh-agent").words == "it has keys, which no job has"


def test_an_agent_that_is_gone_is_no_fault(healthy: Account, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSH_AUTH_SOCK", "/no/such/agent")
    assert look(healthy, "ssh-agent").mark is Mark.GOOD


def test_an_agent_that_hangs(healthy: Account, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(of_ssh, "_ASK_S", 2)
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(tmp_path / "silent"))
        silent.listen(4)
        monkeypatch.setenv("SSH_AUTH_SOCK", str(tmp_path / "silent"))
        is_bad(look(healthy, "ssh-agent"), "stays silent for 2 s", "unset SSH_AUTH_SOCK")


def _certify(key: Path, tmp_path: Path, *words: str) -> None:
    authority = tmp_path / "ca"
    if not authority.exists():
        sshd.make_key(authority)
    subprocess.run(["ssh-keygen", "-q", "-s", authority, "-I", "x", *words, f"{key}.pub"], check=True)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("-n", sshd.USER, "-V", "-2d:-1d"), "expired at 20"),
        (("-n", sshd.USER, "-V", "-1d:+1d"), "within two weeks: a tunnel that breaks then stays away"),
        (("-n", "mail@site", "-V", "-1d:+52w"), "is for mail@site"),
    ],
)
def test_a_certificate_that_is_no_use_or_ends_soon(
    words: tuple[str, ...], said: str, healthy: Account, tmp_path: Path
) -> None:
    key = sshd.make_key(tmp_path / "id")
    _certify(key, tmp_path, *words)
    _identity(healthy, key)
    is_bad(look(healthy, "certificate"), said, "certificate")


def test_a_certificate_that_lasts_and_one_that_a_job_outlasts(
    healthy: Account, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = sshd.make_key(tmp_path / "id")
    _certify(key, tmp_path, "-n", sshd.USER, "-V", "-1d:+20d")
    _identity(healthy, key)
    assert look(healthy, "certificate").words == f"{key}-cert.pub lasts"
    monkeypatch.setenv("SLURM_JOB_END_TIME", str(int(time.time()) + 30 * 24 * 3600))
    is_bad(look(healthy, "certificate"), "before the time limit of this job", "certificate")


def test_no_certificate_is_needed(healthy: Account) -> None:
    assert look(healthy, "certificate").words.startswith("none, and none is needed")

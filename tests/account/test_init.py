"""`init` keeps a key only if it is known, signed for, or somebody says that it is right, and never a revoked one."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from hpcproxy.account import verbs
from hpcproxy.account.account import Account
from hpcproxy.account.verbs import InitReport, Trial
from hpcproxy.openssh.recognition import Shown
from tests import servers, sshd
from tests.keys import accept, nobody, refuse
from tests.sshd import Sshd
from tests.waiting import until

Init = Callable[..., InitReport]
Write = Callable[[Any], Path]


@pytest.fixture
def init(account: Account, jump_host: Sshd) -> Init:
    def run(consent: Any = accept, server: Sshd = jump_host, account: Account = account, **trial: Any) -> InitReport:
        flags = {"jump": [server.jump], "identity": str(server.identity)}
        settings, wish = verbs.settings_of(account, flags), Trial(**{"login": False, **trial})
        return verbs.init(account, settings, wish, consent=consent, say=lambda _: None)

    return run


def _only(report: InitReport) -> Shown:
    (shown,) = report.keys
    return shown


def _other_key(path: Path) -> str:
    return sshd.make_key(path / "other").with_suffix(".pub").read_text().rsplit(" ", 1)[0]


def _own(account: Account, text: str) -> str:
    account.home.directory.mkdir(exist_ok=True)
    account.home.known_hosts.write_text(text)
    return text


@pytest.fixture
def personal(ssh_config: Write, tmp_path: Path) -> Path:
    """The user's own list of known hosts, as his configuration names it; another is the site's."""
    path = tmp_path / "personal"
    ssh_config(f"UserKnownHostsFile {path}\nGlobalKnownHostsFile {tmp_path / 'site'}\n")
    return path


def _hashed(path: Path, text: str) -> None:
    path.write_text(text)
    subprocess.run(["ssh-keygen", "-q", "-H", "-f", path], check=True, capture_output=True)
    path.with_name(f"{path.name}.old").unlink()
    assert "127.0.0.1" not in path.read_text()


# ------------------------------------------------------------------------------------------------ new and known


def test_a_new_key_is_shown_before_it_is_kept(init: Init, account: Account, jump_host: Sshd) -> None:
    seen = []

    def ask(keys: Any) -> list[str]:
        seen.append([str(one.key) for one in keys])
        assert not account.home.known_hosts.exists()
        return [""]

    assert _only(init(ask)).news == "new"
    assert len(seen[0][0].split("SHA256:")) == 2
    assert account.home.known_hosts.read_text() == jump_host.known_hosts
    report = init(nobody)
    assert _only(report).news == "as before"
    assert report.works
    assert account.home.known_hosts.read_text() == jump_host.known_hosts
    assert account.home.known_hosts.stat().st_mode & 0o777 == 0o600


def test_a_key_that_nobody_confirms_is_not_kept_and_not_logged_in_to(
    init: Init, account: Account, jump_host: Sshd
) -> None:
    before = (jump_host.directory / "log").read_text().count("Accepted")
    report = init(refuse, login=True)
    assert not report.works
    assert report.probes == []
    assert "host-key: " in str(_only(report).error)
    assert not account.home.directory.exists(), "nothing was written"
    assert (jump_host.directory / "log").read_text().count("Accepted") == before


@pytest.mark.parametrize("hashed", [False, True])
@pytest.mark.parametrize("name", ["personal", "site"])
def test_a_key_that_ssh_knows_already_is_not_asked_about(
    init: Init, personal: Path, jump_host: Sshd, hashed: bool, name: str
) -> None:
    path = personal.with_name(name)
    path.write_text(jump_host.known_hosts)
    if hashed:
        _hashed(path, jump_host.known_hosts)
    assert _only(init(nobody)).news == f"as in {path}"


def test_a_key_known_without_the_port_counts_as_for_ssh(init: Init, personal: Path, jump_host: Sshd) -> None:
    personal.write_text(f"127.0.0.1 {jump_host.host_key}\n")
    assert _only(init(nobody)).news == f"as in {personal}"


# ------------------------------------------------------------------------------------------------ changed


def _texts(jump_host: Sshd, other: str) -> dict[str, str]:
    name = f"[127.0.0.1]:{jump_host.port}"
    return {
        "alone": f"{name} {other}\n",
        "tabs": f"{name}\t{other}\n",
        "several names": f"gw,{name},10.0.0.1 {other}\n",
        "a pattern": f"[127.0.0.*]:* {other}\n",
        "of another kind": f"{name} ecdsa-sha2-nistp256 AAAAE2VjZHNhLXNoYTItbmlzdHAyNTYAAAAIbmlzdHAyNTY=\n",
    }


@pytest.mark.parametrize("written", ["alone", "tabs", "several names", "a pattern", "of another kind", "hashed"])
@pytest.mark.parametrize("where", ["own", "personal"])
def test_a_changed_key_is_refused_until_it_is_asked_for(  # noqa: PLR0913, PLR0917 - fixtures
    init: Init, account: Account, personal: Path, jump_host: Sshd, tmp_path: Path, written: str, where: str
) -> None:
    texts = _texts(jump_host, _other_key(tmp_path))
    path = account.home.known_hosts if where == "own" else personal
    account.home.directory.mkdir()
    if written == "hashed":
        _hashed(path, texts["alone"])
    else:
        path.write_text(texts[written])
    text = path.read_text()
    report = init(nobody, login=True)
    error = str(_only(report).error)
    assert not report.works
    assert report.probes == []
    assert "shows another key than the one in" in error
    assert "--replace-key" in error
    assert path.read_text() == text
    assert not account.home.config.exists()
    assert init(accept, replace_key=True).works
    assert account.home.known_hosts.read_text() == jump_host.known_hosts
    assert where == "own" or personal.read_text() == text, "what is not ours stays as it is"
    assert init(nobody).works


def test_a_changed_key_is_asked_about_even_if_it_is_to_be_replaced(
    init: Init, account: Account, jump_host: Sshd, tmp_path: Path
) -> None:
    text = _own(account, f"[127.0.0.1]:{jump_host.port} {_other_key(tmp_path)}\n")
    assert not init(refuse, replace_key=True).works
    assert account.home.known_hosts.read_text() == text


def test_a_list_that_is_a_pipe_knows_nobody_and_is_not_waited_for(init: Init, personal: Path, jump_host: Sshd) -> None:
    personal.unlink(missing_ok=True)
    os.mkfifo(personal)
    assert [key.error for key in init().keys] == [None]


def test_a_list_that_is_not_utf8_keeps_its_bytes(init: Init, account: Account, jump_host: Sshd) -> None:
    account.home.directory.mkdir()
    account.home.known_hosts.write_bytes(b"# caf\xe9\n")
    assert init().works
    assert account.home.known_hosts.read_bytes() == b"# caf\xe9\n" + jump_host.known_hosts.encode()


# ------------------------------------------------------------------------------------------------ revoked, signed for


@pytest.mark.parametrize("where", ["own", "personal"])
def test_a_revoked_key_is_refused_whatever_is_said(
    init: Init, account: Account, personal: Path, jump_host: Sshd, where: str
) -> None:
    text = f"@revoked * {jump_host.host_key}\n{jump_host.known_hosts}"
    account.home.directory.mkdir()
    path = account.home.known_hosts if where == "own" else personal
    path.write_text(text)
    error = str(_only(init(nobody, replace_key=True)).error)
    assert "marks as revoked" in error
    assert "replace-key" not in error
    assert path.read_text() == text


@pytest.fixture
def signed(tmp_path: Path) -> Iterator[tuple[Sshd, str]]:
    """A jump host with a certificate, and its authority's public key."""
    authority = sshd.make_key(tmp_path / "authority")
    server = sshd.prepare(tmp_path / "jump")
    key = server.directory / "host_key.pub"
    names = "127.0.0.1"
    argv = ["ssh-keygen", "-q", "-s", str(authority), "-I", "jump", "-h", "-n", names, "-V", "-1d:+1d", str(key)]
    subprocess.run(argv, check=True)
    with (server.directory / "config").open("a") as file:
        file.write(f"HostCertificate {server.directory / 'host_key-cert.pub'}\n")
    server.start()
    yield server, authority.with_suffix(".pub").read_text().rsplit(" ", 1)[0]
    server.stop()


def test_a_host_that_an_authority_signs_for_is_taken_and_so_are_its_later_keys(
    init: Init, account: Account, personal: Path, signed: tuple[Sshd, str]
) -> None:
    server, authority = signed
    personal.write_text(f"@cert-authority [127.0.0.*]:*,!x {authority}\n")
    report = init(nobody, server=server, login=True)
    shown = _only(report)
    assert (shown.error, shown.news) == (None, "signed by an authority")
    assert account.home.known_hosts.read_text() == f"@cert-authority [127.0.0.1]:{server.port} {authority}\n"
    assert report.works, report.probes
    assert _only(init(nobody, server=server)).news == "signed by an authority"
    assert account.home.known_hosts.read_text() == f"@cert-authority [127.0.0.1]:{server.port} {authority}\n"


def test_another_authority_is_none(init: Init, personal: Path, signed: tuple[Sshd, str], tmp_path: Path) -> None:
    server, _ = signed
    personal.write_text(f"@cert-authority * {_other_key(tmp_path)}\n")
    shown = _only(init(refuse, server=server))
    assert (shown.news, str(shown.error)) == ("new", f"host-key: {server.jump}: is not confirmed")


def test_a_revoked_authority_is_none(init: Init, personal: Path, signed: tuple[Sshd, str]) -> None:
    server, authority = signed
    personal.write_text(f"@cert-authority * {authority}\n@revoked * {authority}\n")
    shown = _only(init(refuse, server=server))
    assert (shown.news, str(shown.error)) == ("new", f"host-key: {server.jump}: is not confirmed")


# ------------------------------------------------------------------------------------------------ the trial


def test_one_login_is_tried_and_works(init: Init) -> None:
    (probe,) = init(login=True).probes
    assert (probe.why, probe.note) == (None, "")


def test_the_login_is_tried_from_a_node_where_that_is_asked_for(
    init: Init, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    srun = tmp_path / "srun"
    note = f'[[ $1 != --version ]] || exit 1\necho "$*" >>{tmp_path}/asked'
    srun.write_text(f'#!/bin/bash\n{note}\nwhile [[ $1 == -* ]]; do shift; done\nexec "$@"\n')
    srun.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    account = Account.of(os.environ)
    (probe,) = init(login=True, account=account).probes
    assert (probe.why, (tmp_path / "asked").exists()) == (None, False)
    (probe,) = init(login=True, on_node=True, account=account).probes
    assert probe.why is None
    (asked,) = (tmp_path / "asked").read_text().splitlines()
    assert asked.startswith("--nodes=1 --ntasks=1 --time=5 ")


def test_a_login_that_only_an_agent_of_this_machine_makes_is_none_that_a_job_has(
    account: Account, jump_host: Sshd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    socket = Path(os.environ["TMPDIR"]) / "agent"
    agent = subprocess.Popen(["ssh-agent", "-D", "-a", str(socket)], stdout=subprocess.DEVNULL)
    locked = tmp_path / "locked"
    locked.write_bytes(jump_host.identity.read_bytes())
    locked.chmod(0o600)
    subprocess.run(["ssh-keygen", "-q", "-p", "-P", "", "-N", "secret", "-f", locked], check=True, capture_output=True)
    try:
        until(socket.exists, "the agent listens")
        monkeypatch.setenv("SSH_AUTH_SOCK", str(socket))
        subprocess.run(["ssh-add", "-q", str(jump_host.identity)], check=True)
        flags = {"jump": [jump_host.jump], "identity": str(locked)}
        account = Account.of(os.environ)
        report = verbs.init(account, verbs.settings_of(account, flags), Trial(), consent=accept, say=lambda _: None)
    finally:
        agent.terminate()
        agent.wait()
    assert report.ssh_agent_only
    assert not report.works
    assert report.probes[0].why
    assert report.probes[0].why.layer == "key"


def test_a_jump_host_that_is_away_leaves_a_valid_configuration(account: Account) -> None:
    jump = f"u@127.0.0.1:{servers.free_port()}"
    settings = verbs.settings_of(account, {"jump": [jump]})
    report = verbs.init(account, settings, Trial(), consent=nobody, say=lambda _: None)
    assert report.probes == []
    assert not report.works
    assert str(verbs.settings_of(account).config.jump[0]) == jump
    assert list(Path(os.environ["TMPDIR"]).iterdir()) == []

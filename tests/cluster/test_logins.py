"""Logins as admins have them, to a real sshd: where Paramiko does not get in, OpenSSH does, and what fails is said."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from hpcproxy.cluster import fan_out, identity, routes
from hpcproxy.cluster.become import Secrets
from hpcproxy.cluster.outcome import HostOutcome
from hpcproxy.errors import FileError
from tests import ssh_at_hand, sshd
from tests.cluster.host import TOKEN
from tests.sshd import USER, Sshd, make_key
from tests.waiting import until


def _ask(
    server: Sshd, known: Path, *, key: Path | None = None, host: str = "127.0.0.1", by_config: bool = False
) -> HostOutcome:
    user, port = (None, None) if by_config else (USER, server.port)
    login = fan_out.Login(user, port, key, None, known, 20)
    message = f"echo '{TOKEN} done unchanged'; exit\n".encode()
    (reply,) = fan_out.Fleet(login, 1, TOKEN).ask({host: message}).hosts
    return reply


def _word(reply: HostOutcome) -> str:
    return reply.answer.word if reply.answer else reply.cause


@pytest.fixture
def known(tmp_path: Path) -> Path:
    return tmp_path / "known_hosts"


@pytest.fixture
def agent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An ssh-agent of the test's own."""
    socket = Path(os.environ["TMPDIR"], "agent")
    process = subprocess.Popen(["ssh-agent", "-D", "-a", str(socket)], stdout=subprocess.DEVNULL)
    try:
        until(socket.exists, "the agent listens")
        monkeypatch.setenv("SSH_AUTH_SOCK", str(socket))
        yield
    finally:
        process.terminate()
        process.wait()


def _run(*argv: object) -> None:
    subprocess.run([str(word) for word in argv], check=True, capture_output=True, stdin=subprocess.DEVNULL)


@pytest.mark.parametrize(
    "hardened",
    [
        "Ciphers chacha20-poly1305@openssh.com",
        "MACs umac-128-etm@openssh.com\nCiphers aes256-ctr",
        "KexAlgorithms sntrup761x25519-sha512@openssh.com",
        "KexAlgorithms ecdh-sha2-nistp521",
        "KexAlgorithms diffie-hellman-group-exchange-sha256",
    ],
)
def test_an_sshd_that_takes_few_algorithms(tmp_path: Path, known: Path, hardened: str) -> None:
    if "sntrup761x25519" in hardened:
        ssh_at_hand.needs("sntrup761x25519-sha512@openssh.com")
    with sshd.running(tmp_path / "server", hardened) as server:
        known.write_text(server.known_hosts)
        assert _word(_ask(server, known, key=server.identity)) == "unchanged"


def test_a_certificate_in_an_agent(tmp_path: Path, known: Path, agent: None) -> None:
    ca, key = make_key(tmp_path / "ca"), make_key(tmp_path / "admin")
    _run("ssh-keygen", "-q", "-s", ca, "-I", "admin", "-n", USER, f"{key}.pub")
    _run("ssh-add", "-q", key)
    with sshd.running(tmp_path / "server", f"TrustedUserCAKeys {ca}.pub") as server:
        (server.directory / "authorized_keys").write_text("")
        known.write_text(server.known_hosts)
        assert _word(_ask(server, known)) == "unchanged"
        assert _word(_ask(server, known, key=key)) == "unchanged"


def test_an_authority_for_hosts(tmp_path: Path, known: Path) -> None:
    ca, host_key = make_key(tmp_path / "ca"), tmp_path / "server" / "host_key"
    with sshd.running(tmp_path / "server") as server:
        _run("ssh-keygen", "-q", "-s", ca, "-h", "-I", "c1", "-n", "127.0.0.1", f"{host_key}.pub")
        config = server.directory / "config"
        config.write_text(f"{config.read_text()}HostCertificate {host_key}-cert.pub\n")
        server.stop()
        server.start()
        authority = " ".join((tmp_path / "ca.pub").read_text().split()[:2])
        known.write_text(f"@cert-authority [127.0.0.1]:* {authority}\n")
        assert _word(_ask(server, known, key=server.identity)) == "unchanged"
        make_key(tmp_path / "other")
        other = " ".join((tmp_path / "other.pub").read_text().split()[:2])
        known.write_text(f"@cert-authority [127.0.0.1]:* {other}\n")
        assert "host key" in _word(_ask(server, known, key=server.identity))


def test_a_known_key_that_is_revoked(jump_host: Sshd, known: Path) -> None:
    known.write_text(f"{jump_host.known_hosts}@revoked * {jump_host.host_key}\n")
    assert "host key" in _word(_ask(jump_host, known, key=jump_host.identity))


def test_comments_and_kinds_of_keys_that_we_do_not_know_are_in_nobodys_way(jump_host: Sshd, known: Path) -> None:
    strange = b"# Schl\xfcssel\n@cert-authority *.other.example ssh-ed25519 AAAA\n"
    known.write_bytes(strange + jump_host.known_hosts.encode())
    assert _word(_ask(jump_host, known, key=jump_host.identity)) == "unchanged"


def test_a_key_with_a_passphrase_that_an_agent_holds(jump_host: Sshd, tmp_path: Path, known: Path, agent: None) -> None:
    known.write_text(jump_host.known_hosts)
    shut = tmp_path / "shut"
    shutil.copy(jump_host.identity, shut)
    _run("ssh-add", "-q", shut)
    _run("ssh-keygen", "-q", "-p", "-P", "", "-N", "secret", "-f", shut)
    assert _word(_ask(jump_host, known, key=shut)) == "unchanged"
    _run("ssh-add", "-q", "-D")
    with pytest.raises(FileError, match="is protected by a passphrase; load it into an ssh-agent with ssh-add"):
        _ask(jump_host, known, key=shut)


def test_a_passphrase_is_asked_until_it_is_right(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    typed = iter(["wrong", "secret"])
    monkeypatch.setattr(Secrets, "_type", lambda _self, _what: next(typed))
    key = identity.load(make_key(tmp_path / "id", "secret"), Secrets())
    assert key.get_base64() == (tmp_path / "id.pub").read_text().split()[1]  # type: ignore[attr-defined]


def test_what_is_no_key_is_said(tmp_path: Path) -> None:
    (tmp_path / "id").write_text("no key\n")
    with pytest.raises(FileError, match="cannot be used as a private key"):
        identity.load(tmp_path / "id", Secrets())


def test_a_key_that_is_refused(jump_host: Sshd, tmp_path: Path, known: Path) -> None:
    known.write_text(jump_host.known_hosts)
    assert _word(_ask(jump_host, known, key=make_key(tmp_path / "id"))).startswith(f"refuses the login of {USER}")


def test_an_agent_with_more_keys_than_are_taken(jump_host: Sshd, tmp_path: Path, known: Path, agent: None) -> None:
    for number in range(8):
        _run("ssh-add", "-q", make_key(tmp_path / f"id{number}"))
    known.write_text(jump_host.known_hosts)
    assert "it was offered more keys than it takes; name one with identity:" in _word(_ask(jump_host, known))
    assert _word(_ask(jump_host, known, key=jump_host.identity)) == "unchanged"


# ---- ~/.ssh/config


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The test's own ~/.ssh/config, which ssh reads by -F, for it asks the account where its home is."""
    path, script = tmp_path / "config", tmp_path / "bin" / "ssh"
    path.write_text("")
    script.parent.mkdir()
    script.write_text(f'#!/bin/sh\nexec /usr/bin/ssh -F {path} "$@"\n')
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{script.parent}:{os.environ['PATH']}")
    return path


@pytest.mark.parametrize("more", ["", "ProxyCommand bash -c 'exec 3<>/dev/tcp/%h/%p; cat <&3 & cat >&3'\n"])
def test_names_of_the_ssh_configuration(jump_host: Sshd, known: Path, config: Path, more: str) -> None:
    config.write_text(f"Host c1\n HostName 127.0.0.1\n Port {jump_host.port}\n User {USER}\n {more}")
    known.write_text(jump_host.known_hosts)
    assert _word(_ask(jump_host, known, key=jump_host.identity, host="c1", by_config=True)) == "unchanged"
    unknown = _word(_ask(jump_host, known, key=jump_host.identity, host="c2.invalid", by_config=True))
    assert unknown == "its name does not resolve here"


def test_an_identity_of_the_ssh_configuration(jump_host: Sshd, known: Path, config: Path) -> None:
    config.write_text(f"Host *\n IdentityFile {jump_host.identity}\n IdentitiesOnly yes\n")
    known.write_text(jump_host.known_hosts)
    assert _word(_ask(jump_host, known)) == "unchanged"


def test_a_configuration_that_ssh_cannot_read_is_each_hosts_trouble(jump_host: Sshd, known: Path, config: Path) -> None:
    config.write_text("Host c1\n Prot 22\n")
    known.write_text(jump_host.known_hosts)
    trouble = _word(_ask(jump_host, known, key=jump_host.identity))
    assert "Bad configuration option: prot" in trouble


@pytest.mark.parametrize(
    ("text", "calls"),
    [("", 2), ("Host *\n ServerAliveInterval 9\nMatch final all\n", 2), ("Host c1\n", 5), ("Match host c1\n", 5)],
)
def test_ssh_is_asked_once_for_all_hosts_where_they_do_not_differ(
    tmp_path: Path, config: Path, text: str, calls: int
) -> None:
    config.write_text(text)
    ssh, count = tmp_path / "bin" / "ssh", tmp_path / "count"
    ssh.write_text(ssh.read_text().replace("exec", f"echo >>{count}\nexec"))
    found = routes.Routes(None, None, own_identity=False, own_way=False)
    made = [found.of(host) for host in ("c1", "c2", "c3.example", "c4")]
    assert [route.address for route in made] == ["c1", "c2", "c3.example", "c4"]
    assert [route.known_name for route in made] == ["c1", "c2", "c3.example", "c4"]
    assert {route.user for route in made} == {"root"}
    assert len(count.read_text().splitlines()) == calls


def test_a_shut_key_where_openssh_is_missing_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without ssh-keygen nobody can say what kind of file it is."""
    key = make_key(tmp_path / "shut", "secret")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(FileError, match="cannot be used as a private key"):
        identity.load(key, Secrets())

"""`trust` keeps the keys of an inventory's hosts: read as OpenSSH reads them, asked about, and never a revoked one."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from hpcproxy.cli.consent import complaints, told
from hpcproxy.cluster import trust as trusting
from hpcproxy.cluster.run import Request
from hpcproxy.config.model import Jump
from hpcproxy.errors import TunnelError
from hpcproxy.openssh.known_hosts import KnownHosts, lines_for_nodes
from hpcproxy.openssh.recognition import Shown
from tests import servers, sshd
from tests.keys import accept, nobody, refuse
from tests.sshd import Sshd

Trust = Callable[..., list[Shown]]


@pytest.fixture
def known(tmp_path: Path) -> Path:
    return tmp_path / "known_hosts"


@pytest.fixture
def trust(tmp_path: Path, jump_host: Sshd, ssh_config: Any) -> Trust:
    """Its hosts are one sshd by two addresses; the jump host is the same."""
    del ssh_config

    def run(consent: Any = accept, replace_key: bool = False, server: Sshd = jump_host, **more: Any) -> list[Shown]:
        inventory = {"nodes": "127.0.0.[1-2]", "port": server.port, "settings": {"jump": [server.jump]}, **more}
        path = tmp_path / "site.yaml"
        path.write_text(yaml.safe_dump(inventory))
        request = Request(path, timeout_s=5)
        return trusting.trust(request, replace_key=replace_key, consent=consent, on_key=lambda _: None)

    return run


@pytest.fixture(scope="module")
def jump_host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    with sshd.running(tmp_path_factory.mktemp("jump"), "ListenAddress 127.0.0.2") as server:
        yield server


def _other(path: Path) -> str:
    return sshd.make_key(path / "other").with_suffix(".pub").read_text().rsplit(" ", 1)[0]


def _lines(server: Sshd) -> str:
    return "".join(f"[127.0.0.{n}]:{server.port} {server.host_key}\n" for n in (1, 1, 2))


def test_new_keys_are_shown_and_asked_about_at_once(trust: Trust, known: Path, jump_host: Sshd) -> None:
    asked = []
    shown = trust(lambda keys: asked.append(keys) or accept(keys))
    assert [one.news for one in shown] == ["new"] * 3
    assert len(asked) == 1
    assert known.read_text() == _lines(jump_host)
    assert known.stat().st_mode & 0o777 == 0o600
    assert {one.news for one in trust(nobody)} == {"as before"}
    assert known.read_text() == _lines(jump_host)


def test_what_is_not_confirmed_is_not_kept(trust: Trust, known: Path, jump_host: Sshd) -> None:
    shown = trust(refuse)
    port = jump_host.port
    assert complaints(shown) == [f"host-key: {jump_host.jump},127.0.0.[1-2]:{port}: is not confirmed"]
    assert all(one.error for one in shown)
    assert not known.exists()


def test_a_changed_key_is_a_change_in_a_hashed_list_too(
    trust: Trust, known: Path, jump_host: Sshd, tmp_path: Path
) -> None:
    known.write_text(f"[127.0.0.1]:{jump_host.port} {_other(tmp_path)}\n")
    subprocess.run(["ssh-keygen", "-q", "-H", "-f", known], check=True, capture_output=True)
    before = known.read_text()
    shown = trust(accept)
    assert [one.news for one in shown] == ["changed", "changed", "new"]
    assert known.read_text() == f"{before}[127.0.0.2]:{jump_host.port} {jump_host.host_key}\n"
    assert [one.error for one in trust(accept, replace_key=True)] == [None] * 3
    assert "|1|" not in known.read_text()


def test_a_replaced_key_is_not_trusted_under_its_other_names(
    trust: Trust, known: Path, jump_host: Sshd, tmp_path: Path
) -> None:
    names = f"[127.0.0.1]:{jump_host.port},gw,192.0.2.9"
    known.write_text(f"{names} {_other(tmp_path)}\nelse {jump_host.host_key}\n")
    assert [one.error for one in trust(accept, replace_key=True)] == [None] * 3
    found = KnownHosts.read(known)
    assert [found.of(name) for name in ("gw", "192.0.2.9")] == [[], []]
    assert len(found.of("else")) == 1


def test_a_shared_list_keeps_its_mode_and_its_bytes(trust: Trust, known: Path, jump_host: Sshd, tmp_path: Path) -> None:
    text = b"# Schl\xfcssel\n@cert-authority *.other " + _other(tmp_path).encode() + b"\n\n"
    known.write_bytes(text)
    known.chmod(0o644)
    trust(accept)
    assert known.read_bytes() == text + _lines(jump_host).encode()
    assert known.stat().st_mode & 0o777 == 0o644


def test_a_revoked_key_is_refused(trust: Trust, known: Path, jump_host: Sshd) -> None:
    text = f"@revoked * {jump_host.host_key}\n"
    known.write_text(text)
    shown = trust(nobody, replace_key=True)
    assert {one.news for one in shown} == {"revoked"}
    assert known.read_text() == text


def test_hosts_that_an_authority_signs_for_need_no_lines(tmp_path: Path, trust: Trust, known: Path) -> None:
    authority = sshd.make_key(tmp_path / "authority")
    server = sshd.prepare(tmp_path / "jump", "ListenAddress 127.0.0.2")
    key = server.directory / "host_key"
    argv = ["ssh-keygen", "-q", "-s", str(authority), "-I", "c", "-h", "-n", "127.0.0.1,127.0.0.2", f"{key}.pub"]
    subprocess.run(argv, check=True)
    with (server.directory / "config").open("a") as file:
        file.write(f"HostCertificate {key}-cert.pub\n")
    public = authority.with_suffix(".pub").read_text().rsplit(" ", 1)[0]
    known.write_text(f"@cert-authority [127.0.0.*]:* {public}\n")
    server.start()
    try:
        shown = trust(nobody, server=server)
    finally:
        server.stop()
    assert [(one.news, one.error) for one in shown] == [("signed by an authority", None)] * 3
    assert known.read_text() == f"@cert-authority [127.0.0.*]:* {public}\n"
    assert len(told(shown)) == 1


def test_the_admins_own_configuration_is_followed(
    trust: Trust, known: Path, jump_host: Sshd, ssh_config: Any, tmp_path: Path
) -> None:
    ssh_config(f"Host n1\n HostName 127.0.0.1\nHost gate\n HostName 127.0.0.2\nHost *\n Port {jump_host.port}\n")
    path = tmp_path / "site.yaml"
    path.write_text("nodes: n1\nsettings:\n  jump: gate\n")
    request = Request(path, timeout_s=5)
    shown = trusting.trust(request, replace_key=False, consent=accept, on_key=lambda _: None)
    assert [(one.host, one.error) for one in shown] == [("gate", None), ("n1", None)]
    lines = lines_for_nodes(KnownHosts.read(known), [Jump("gate")])
    assert lines == {Jump("gate"): f"gate,[127.0.0.2]:{jump_host.port} {jump_host.host_key}\n"}


def test_hosts_behind_a_gateway_are_asked_by_one_login_there(trust: Trust, known: Path, jump_host: Sshd) -> None:
    log = jump_host.directory / "log"
    before = log.read_text().count("Accepted publickey")
    more = {"gateway": jump_host.jump, "user": sshd.USER, "identity": str(jump_host.identity)}
    shown = trust(accept, **more)
    assert [one.error for one in shown] == [None] * 3
    assert log.read_text().count("Accepted publickey") == before + 1
    assert known.read_text() == _lines(jump_host).split("\n", 1)[1]


def test_a_gateway_behind_a_host_that_nobody_confirmed_is_not_reached(
    trust: Trust, jump_host: Sshd, ssh_config: Any, tmp_path: Path
) -> None:
    log = jump_host.directory / "log"
    before = log.read_text().count("Accepted publickey")
    more = {"gateway": "gate", "user": sshd.USER, "identity": str(jump_host.identity)}
    direct = f"Host gate hop\n HostName 127.0.0.1\n Port {jump_host.port}\n IdentityFile {jump_host.identity}\n"
    ssh_config(direct)
    assert [one.error for one in trust(accept, **more)] == [None] * 4
    after = log.read_text().count("Accepted publickey")
    assert after == before + 1
    rest = f" StrictHostKeyChecking no\n UserKnownHostsFile {tmp_path / 'none'}\nHost gate\n ProxyJump hop\n"
    ssh_config(f"{direct}{rest}")
    assert all(one.error for one in trust(accept, **more)[1:])
    assert log.read_text().count("Accepted publickey") == after


def test_a_gateway_that_is_away_is_said_once(trust: Trust, jump_host: Sshd) -> None:
    gateway = f"127.0.0.1:{servers.free_port()}"
    shown = trust(accept, gateway=gateway, user=sshd.USER)
    _, inside = complaints(shown)
    assert inside.startswith(f"route: 127.0.0.[1-2]:{jump_host.port}: behind the gateway {gateway}: nothing listens")


def test_many_hosts_are_folded() -> None:
    shown = [Shown(f"c{n}", error=TunnelError("route", "is {away}", "ask", f"c{n}")) for n in range(1, 100)]
    assert complaints(shown) == ["route: c[1-99]: is {away}; ask"]

"""Host keys are shown by ssh itself, before any login, and by way of confirmed hosts only."""

from __future__ import annotations

import asyncio
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import asyncssh
import pytest

from hpcproxy.config.model import Jump
from hpcproxy.errors import TunnelError
from hpcproxy.openssh import configuration, hops, host_key
from hpcproxy.openssh.host_key import Way
from hpcproxy.openssh.known_hosts import HostKey
from tests import servers, sshd
from tests.sshd import USER, Sshd

Write = Callable[[Any], Path]


def _fetch(jump: str, timeout_s: float = 10) -> HostKey:
    return host_key.fetch(Way(configuration.ask(Jump.parse(jump))), timeout_s)


def test_the_key_is_the_servers_under_the_name_that_ssh_looks_up(jump_host: Sshd) -> None:
    assert _fetch(jump_host.jump).line == jump_host.known_hosts


def test_no_login_is_tried_to_get_it(jump_host: Sshd) -> None:
    _fetch(jump_host.jump)
    log = (jump_host.directory / "log").read_text()
    assert "Accepted" not in log
    assert "Failed" not in log


def test_no_key_is_offered_to_get_it(ssh_config: Write, jump_host: Sshd) -> None:
    """Not even one that would be taken: who has not been recognised learns of no key of ours, and lets nobody in."""
    ssh_config(f"Host *\n IdentityFile {jump_host.identity}\n IdentitiesOnly yes\n PubkeyAuthentication yes\n")
    log = jump_host.directory / "log"
    before = log.read_text()
    _fetch(jump_host.jump)
    assert "publickey" not in log.read_text().removeprefix(before)
    argv = ["ssh", "-o", "StrictHostKeyChecking=no", "-o", f"UserKnownHostsFile={jump_host.directory}/any"]
    subprocess.run([*argv, "-p", str(jump_host.port), "127.0.0.1", "true"], check=True, capture_output=True)
    assert "Accepted publickey" in log.read_text().removeprefix(before), "by that configuration ssh logs in"


class _Open(asyncssh.SSHServer):
    """A server that wants no proof of anybody, and notes what is asked of it."""

    asked: ClassVar[list[str]] = []

    def begin_auth(self, username: str) -> bool:
        self.asked.append(f"in {username}")
        return False

    def session_requested(self) -> bool:
        self.asked.append("session")
        return True

    def connection_requested(self, dest_host: str, dest_port: int, orig_host: str, orig_port: int) -> bool:
        del orig_host, orig_port
        self.asked.append(f"{dest_host}:{dest_port}")
        return False


def test_a_host_that_lets_everybody_in_gets_no_session() -> None:
    """Nothing holds a login back there; what is asked for then leads nowhere, and runs nothing."""

    async def fetch() -> HostKey:
        key = asyncssh.generate_private_key("ssh-ed25519")
        async with await asyncssh.listen("127.0.0.1", 0, server_factory=_Open, server_host_keys=[key]) as server:
            return await asyncio.to_thread(_fetch, f"u@127.0.0.1:{server.get_port()}")

    assert asyncio.run(fetch()).kind == "ssh-ed25519"
    assert _Open.asked[0] == "in u"
    assert set(_Open.asked[1:]) <= {"127.0.0.1:1"}


def _layer(jump: str, timeout_s: float = 1) -> tuple[str, str]:
    with pytest.raises(TunnelError) as caught:
        _fetch(jump, timeout_s)
    assert caught.value.jump == jump
    return caught.value.layer, str(caught.value.why)


def test_each_way_to_fail_has_its_layer() -> None:
    assert _layer(f"u@127.0.0.1:{servers.free_port()}") == ("route", "nothing listens at its ssh port")
    assert _layer("u@no-such-host.invalid", 10)[0] == "name"
    with servers.black_hole() as port:
        assert _layer(f"127.0.0.1:{port}")[0] == "route"
    with servers.silent() as port:
        assert _layer(f"127.0.0.1:{port}")[0] == "route"
    with servers.hanging_up() as port:
        assert _layer(f"127.0.0.1:{port}")[0] in ("busy", "ssh")


def test_a_kind_that_is_known_is_asked_for(tmp_path: Path) -> None:
    other = sshd.make_key(tmp_path / "ecdsa", kind="ecdsa")
    with sshd.running(tmp_path / "jump", f"HostKey {other}") as server:
        way = Way(configuration.ask(Jump.parse(server.jump)))
        first = host_key.fetch(way, 10).kind  # before OpenSSH 8.5 it is the ecdsa
        for kind in ("ssh-ed25519", "ecdsa-sha2-nistp256"):
            assert host_key.fetch(way, 10, [kind]).kind == kind
        assert host_key.fetch(way, 10, ["ssh-rsa"]).kind == first, "one that it has not is only asked for first"


# ------------------------------------------------------------------------------------------------ hosts on the way


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Sshd]]:
    """Two hops and a target, which all take the same key."""
    first = sshd.prepare(tmp_path_factory.mktemp("sshd"))
    found = [first]
    for _ in range(2):
        server = sshd.prepare(tmp_path_factory.mktemp("sshd"))
        (server.directory / "authorized_keys").write_text(Path(f"{first.identity}.pub").read_text())
        found.append(server)
    for server in found:
        server.start()
    yield found
    for server in found:
        server.stop()


def _logins(server: Sshd) -> int:
    return (server.directory / "log").read_text().count("Accepted publickey")


def _chain(three: list[Sshd], known: Path, more: str = "") -> str:
    hosts = "".join(
        f"Host {name}\n HostName 127.0.0.1\n Port {server.port}\n"
        for name, server in zip(("hop1", "hop2", "jump"), three)
    )
    return (
        f"Host jump\n ProxyJump hop1,hop2\n{hosts}Host *\n User {USER}\n IdentityFile {three[0].identity}\n"
        f" UserKnownHostsFile {known}\n GlobalKnownHostsFile /dev/null\n{more}"
    )


def test_the_key_behind_two_confirmed_hops(ssh_config: Write, three: list[Sshd], tmp_path: Path) -> None:
    known = tmp_path / "known"
    known.write_text(three[0].known_hosts + three[1].known_hosts)
    ssh_config(_chain(three, known))
    assert _fetch("jump").line == three[2].known_hosts
    assert known.read_text() == three[0].known_hosts + three[1].known_hosts


@pytest.mark.parametrize("more", ["", " StrictHostKeyChecking no\n", " StrictHostKeyChecking accept-new\n"])
@pytest.mark.parametrize("changed", [False, True])
def test_a_hop_that_nobody_confirmed_is_never_logged_in_to(
    ssh_config: Write, three: list[Sshd], tmp_path: Path, more: str, changed: bool
) -> None:
    known = tmp_path / "known"
    other = f"[127.0.0.1]:{three[1].port} {three[0].host_key}\n" if changed else ""
    known.write_text(three[0].known_hosts + other)
    ssh_config(_chain(three, known, more))
    before = _logins(three[1])
    with pytest.raises(TunnelError) as caught:
        _fetch("jump")
    assert _logins(three[1]) == before
    assert caught.value.layer == "host-key"
    assert "hop2, on the way to it, is in none of your lists" in caught.value.why.reason
    assert "look at its key with: ssh -J hop1 hop2" in caught.value.why.advice
    assert known.read_text() == three[0].known_hosts + other


def test_a_hop_that_refuses_the_key_is_named(ssh_config: Write, three: list[Sshd], tmp_path: Path) -> None:
    known = tmp_path / "known"
    known.write_text("".join(server.known_hosts for server in three))
    other = sshd.make_key(tmp_path / "other")
    ssh_config(
        f"Host hop1\n IdentityFile {other}\n IdentitiesOnly yes\n"
        + _chain(three, known).replace(str(three[0].identity), str(other))
    )
    with pytest.raises(TunnelError) as caught:
        _fetch("jump")
    assert (caught.value.layer, caught.value.jump) == ("key", "jump")
    assert caught.value.why.reason.startswith("hop1, on the way to it: ")


def test_a_hop_that_is_silent_costs_its_own_time_only(ssh_config: Write, tmp_path: Path) -> None:
    with servers.black_hole() as port:
        ssh_config(
            f"Host jump\n HostName 127.0.0.1\n Port 1\n ProxyJump hop\nHost hop\n HostName 127.0.0.1\n Port {port}\n"
        )
        began = time.monotonic()
        with pytest.raises(TunnelError) as caught:
            _fetch("jump", 1)
    assert time.monotonic() - began < 8
    assert caught.value.layer == "route"
    assert caught.value.why.reason.startswith("hop, on the way to it: ")


@pytest.mark.parametrize(("jump", "hops_before"), [("far", 0), ("jump", 1), ("next", 2)])
def test_what_an_ssh_may_take_in_all_grows_with_the_hops(
    jump: str, hops_before: int, ssh_config: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    ssh_config(
        "Host far jump next hop\n HostName 127.0.0.1\n Port 1\nHost jump\n ProxyJump hop\nHost next\n ProxyJump jump\n"
    )
    asked: list[tuple[list[str], float]] = []
    run = configuration.run

    def bounded(argv: list[str], timeout_s: float) -> subprocess.CompletedProcess[bytes]:
        if "-G" in argv:
            return run(argv, timeout_s)
        asked.append((argv, timeout_s))
        raise subprocess.TimeoutExpired(argv, timeout_s)

    monkeypatch.setattr(configuration, "run", bounded)
    with pytest.raises(TunnelError, match="does not answer within 7 s"):
        _fetch(jump, 7)
    ((argv, total_s),) = asked
    assert total_s == 7 * (hops_before + 2)
    assert f"ConnectTimeout={7 * (hops_before + 1)}" in argv


def test_hops_of_hops_and_circles(ssh_config: Write) -> None:
    ssh_config(
        "Host jump\n ProxyJump b,u@c:33\nHost b\n ProxyJump a\nHost c\n ProxyJump never\n"
        "Host r1\n ProxyJump r2\nHost r2\n ProxyJump r1\n"
    )
    way = hops.of(configuration.ask(Jump("jump")))
    assert [hop.typed for hop in way] == ["ssh a", "ssh -J a b", "ssh -J a,b -p 33 u@c"]
    with pytest.raises(TunnelError, match="circle"):
        hops.of(configuration.ask(Jump("r1")))


def test_a_proxy_command_that_fails_has_its_words_passed_on(ssh_config: Write) -> None:
    ssh_config("Host jump\n HostName 10.0.0.1\n ProxyCommand sh -c 'echo no way there >&2; exit 3'\n")
    layer, reason = _layer("jump", 5)
    assert (layer, reason) == ("ssh", "its ProxyCommand does not get there: no way there; see ~/.ssh/config")

"""The verbs of a shell without Slurm, one after the other as a user would type them, against a real sshd."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from hpcproxy.account import status, tunnels, verbs
from hpcproxy.account.account import Account
from hpcproxy.errors import TunnelError
from tests import servers, sshd
from tests.keys import accept
from tests.shells import shells_url
from tests.sshd import Sshd
from tests.waiting import until

# A tunnel outlives the program that started it; here that program is the test.
pytestmark = pytest.mark.filterwarnings("ignore:subprocess .* is still running:ResourceWarning")


@pytest.fixture
def set_up(account: Account, jump_host: Sshd) -> Iterator[Account]:
    """An account after `init` and `install-bashrc`, on a port of its own; its tunnel ends with the test."""
    flags = {"jump": [jump_host.jump], "identity": str(jump_host.identity), "port": servers.free_port()}
    account.home.directory.mkdir()
    account.home.config.write_text("connect_timeout_s: 3\nretry_max_s: 1\nallow: ['*', 127.0.0.1]\n")
    settings = verbs.settings_of(account, flags)
    assert verbs.init(account, settings, verbs.Trial(login=False), consent=accept, say=_silence).works
    verbs.install_bashrc(account, verbs.settings_of(account, {}), dry_run=False)
    yield account
    verbs.down(account)


def _silence(_text: str) -> None:
    pass


def _with_check_url(account: Account, url: str) -> None:
    with account.home.config.open("a") as file:
        file.write(f"check_url: {url}\n")


def test_up_status_check_down(set_up: Account, jump_host: Sshd) -> None:
    port = verbs.settings_of(set_up).config.port
    tunnel = verbs.up(set_up, _silence)
    assert (tunnel.job, tunnel.ready, tunnel.jump) == ("shell", True, jump_host.jump)
    assert tunnel.url == shells_url(port)
    found, drift = status.here(set_up)
    assert ([(one.pid, one.ready) for one in found], drift) == ([(tunnel.pid, True)], [])
    assert tunnel.as_json()["directory"].startswith(os.environ["TMPDIR"])
    assert os.getsid(tunnel.pid) == tunnel.pid, "what ends our session, as a terminal does, does not end it"
    with servers.internet() as url:
        _with_check_url(set_up, url)
        checked = verbs.check(set_up, 20)
        changed = {**set_up.environ, "HPCPROXY_URL": tunnel.url, "http_proxy": "http://p:1", "https_proxy": tunnel.url}
        (line,) = verbs.check(replace(set_up, environ=changed), 20).others
    assert line.startswith("http_proxy leads elsewhere than to the tunnel")
    assert checked.others == []
    assert (checked.answer.address, checked.jump, checked.url) == ("203.0.113.7", jump_host.jump, tunnel.url)
    assert checked.answer.latency_ms > 0
    assert [ended.pid for ended in verbs.down(set_up)] == [tunnel.pid]
    assert verbs.down(set_up) == []
    assert status.here(set_up) == ([], [])
    assert list(Path(os.environ["TMPDIR"]).iterdir()) == []


def test_up_twice_is_one_tunnel(set_up: Account) -> None:
    assert verbs.up(set_up, _silence).pid == verbs.up(set_up, _silence).pid


def test_uninstall_ends_the_tunnel_first(set_up: Account, home: Path) -> None:
    verbs.up(set_up, _silence)
    verbs.uninstall(set_up)
    assert tunnels.find(set_up.environ) == []
    assert list(home.iterdir()) == []


_BEYOND = [
    ("http://127.0.0.1:1/", "far end"),
    ("http://no-such-host.invalid/", "far end"),
    ("https://PLAIN/ip", "TLS"),
    ("http://PLAIN/404", "answer"),
]


@pytest.mark.parametrize(("url", "layer"), _BEYOND)
def test_check_names_the_layer_behind_the_tunnel(url: str, layer: str, set_up: Account, jump_host: Sshd) -> None:
    verbs.up(set_up, _silence)
    with servers.internet() as plain:
        _with_check_url(set_up, url.replace("PLAIN", plain.split("/")[2]))
        with pytest.raises(TunnelError) as caught:
            verbs.check(set_up, 20)
    assert caught.value.layer == layer
    assert caught.value.jump == jump_host.jump


def test_check_says_that_a_lost_jump_host_is_down(account: Account, tmp_path: Path) -> None:
    with sshd.running(tmp_path / "jump") as server:
        account.home.directory.mkdir()
        account.home.config.write_text("connect_timeout_s: 2\nretry_max_s: 1\n")
        flags = {"jump": [server.jump], "identity": str(server.identity), "port": servers.free_port()}
        verbs.init(account, verbs.settings_of(account, flags), verbs.Trial(login=False), consent=accept, say=_silence)
        verbs.install_bashrc(account, verbs.settings_of(account, {}), dry_run=False)
        tunnel = verbs.up(account, _silence)
        try:
            server.stop()
            until(lambda: not tunnels.find(account.environ, "shell")[0].ready, "the status says down")
            with pytest.raises(TunnelError) as caught:
                verbs.check(account, 5)
        finally:
            os.kill(tunnel.pid, signal.SIGTERM)
            verbs.down(account)
    assert caught.value.layer == "tunnel"
    assert f"is down: {server.jump}: " in str(caught.value), "and why"


def test_check_without_a_tunnel_finds_out_why(set_up: Account) -> None:
    with pytest.raises(
        TunnelError, match=r"none is up here, though .* would let us through; start it with: hpcproxy up"
    ):
        verbs.check(set_up, 20)
    set_up.home.known_hosts.write_text("")
    with pytest.raises(TunnelError, match="is not pinned") as caught:
        verbs.check(set_up, 20)
    assert caught.value.layer == "host-key"


def test_check_and_up_without_a_jump_host_say_what_to_run(account: Account) -> None:
    for verb in (lambda: verbs.check(account, 5), lambda: verbs.up(account, _silence)):
        with pytest.raises(TunnelError, match="run: hpcproxy init --jump"):
            verb()


def test_up_refuses_files_that_are_not_as_the_settings_say(set_up: Account) -> None:
    with set_up.home.config.open("a") as file:
        file.write("agent: false\nscheme: socks5\n")
    assert [path.name for path in status.here(set_up)[1]] == ["tunnel.sh"]
    with pytest.raises(TunnelError, match="run: hpcproxy install-bashrc"):
        verbs.up(set_up, _silence)
    verbs.install_bashrc(set_up, verbs.settings_of(set_up, {}), dry_run=False)
    assert verbs.up(set_up, _silence).url.startswith("socks5://")


def test_up_that_fails_leaves_nothing(set_up: Account) -> None:
    set_up.home.known_hosts.write_text("")
    with pytest.raises(TunnelError, match="is not pinned"):
        verbs.up(set_up, _silence)
    assert list(Path(os.environ["TMPDIR"]).iterdir()) == []

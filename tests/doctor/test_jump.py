"""The jump host, on a real sshd: name, route, server, key, one login, forwarding, and the tunnel through it."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from hpcproxy.account import checks, verbs
from hpcproxy.account.account import Account
from hpcproxy.config import edit
from hpcproxy.doctor.finding import Finding, Mark
from tests import servers, sshd
from tests.doctor.conftest import is_bad, look, looked, set_up
from tests.shells import shells_url
from tests.sshd import Sshd

pytestmark = pytest.mark.filterwarnings("ignore:subprocess .* is still running:ResourceWarning")
_NAMES = ("name", "route", "ssh server", "host key", "login", "forwarding", "tunnel", "agent")


def _change(account: Account, **values: object) -> None:
    path = account.home.config
    path.write_text(edit.change(path.read_text(), values, str(path)))


def _log(server: Sshd) -> str:
    return (server.directory / "log").read_text()


def test_all_is_well_by_a_temporary_tunnel_of_which_nothing_stays(account: Account, tmp_path: Path) -> None:
    with sshd.running(tmp_path / "own", "LogLevel VERBOSE") as own:
        set_up(account, own)
        found = looked(account, *_NAMES)
        logins = _log(own).count("Accepted publickey")
    assert {name: one for name, one in found.items() if one.mark is not Mark.GOOD} == {}
    assert found["tunnel"].words.startswith("none of yours is up; a temporary one came up through ")
    assert logins == 2  # the one on trial, and the temporary tunnel's
    assert list(Path(os.environ["TMPDIR"]).iterdir()) == []


def test_a_tunnel_that_is_up_is_asked_and_nobody_logs_in(account: Account, tmp_path: Path) -> None:
    with sshd.running(tmp_path / "own", "LogLevel VERBOSE") as own:
        set_up(account, own)
        tunnel = verbs.up(account, lambda _text: None)
        before = _log(own).count("Accepted publickey")
        found = looked(account, *_NAMES)
        after = _log(own).count("Accepted publickey")
        verbs.down(account)
    assert found["tunnel"].words == f"up at {tunnel.url} through {own.jump}"
    assert found["login"].words == f"your tunnel is logged in to {own.jump}; no other login was tried"
    assert before == after == 1


def test_a_name_that_nobody_knows(healthy: Account) -> None:
    _change(healthy, jump=["u@no-such-host.invalid"])
    found = looked(healthy, "login")
    is_bad(found["name"], "u@no-such-host.invalid: its name does not resolve here", "with its address")
    assert found["login"].words == "not tried, because “name” failed"


@pytest.mark.parametrize("server", [servers.black_hole, servers.silent])
def test_a_host_that_does_not_answer(server: Callable[[], AbstractContextManager[int]], healthy: Account) -> None:
    with server() as port:
        _change(healthy, jump=[f"u@127.0.0.1:{port}"], connect_timeout_s=1)
        found = looked(healthy, "login")
    is_bad(found["route"], f"u@127.0.0.1:{port}: ", "")
    assert found["host key"].words == "not tried, because “route” failed"


def test_a_port_at_which_nobody_listens(healthy: Account) -> None:
    _change(healthy, jump=[f"u@127.0.0.1:{servers.free_port()}"])
    is_bad(look(healthy, "route"), "nothing listens at its ssh port", "ssh -v u@127.0.0.1")


def test_one_that_hangs_up_before_the_login(healthy: Account) -> None:
    with servers.hanging_up() as port:
        _change(healthy, jump=[f"u@127.0.0.1:{port}"])
        is_bad(look(healthy, "ssh server"), "it has too many logins at once", "ssh -v")


def test_a_key_that_is_not_pinned(healthy: Account, jump_host: Sshd) -> None:
    healthy.home.known_hosts.write_text("")
    found = look(healthy, "host key")
    is_bad(found, "which is not pinned (new)", f"hpcproxy init --jump {jump_host.jump}")


def test_a_key_that_has_changed(healthy: Account, jump_host: Sshd, tmp_path: Path) -> None:
    other = sshd.make_key(tmp_path / "other").with_suffix(".pub").read_text()
    healthy.home.known_hosts.write_text(f"[127.0.0.1]:{jump_host.port} {other}")
    is_bad(look(healthy, "host key"), "shows another key", "hpcproxy init --replace-key")


def test_a_key_that_is_revoked(healthy: Account, jump_host: Sshd) -> None:
    healthy.home.known_hosts.write_text(f"{jump_host.known_hosts}@revoked * {jump_host.host_key}\n")
    is_bad(look(healthy, "host key"), "marks as revoked", "ask its admin")


def test_a_login_that_is_refused_is_tried_once(account: Account, tmp_path: Path) -> None:
    with sshd.running(tmp_path / "own", "LogLevel VERBOSE") as own:
        set_up(account, own)
        (own.directory / "authorized_keys").write_text("")
        found = looked(account, *_NAMES)
        tried = _log(own).count("Failed publickey") or _log(own).count("[preauth]")
    is_bad(
        found["login"], "it refused the key", f"ssh-copy-id -i {own.identity}.pub -p {own.port} {sshd.USER}@127.0.0.1"
    )
    assert found["tunnel"].words == "not tried, because “login” failed"
    assert tried <= 2  # this one, and the connection before that only looks at the host's key


def test_one_that_forbids_forwarding(account: Account, tmp_path: Path) -> None:
    with sshd.running(tmp_path / "own", "AllowTcpForwarding no") as own:
        set_up(account, own)
        found = looked(account, *_NAMES)
    assert found["login"].mark is Mark.GOOD
    is_bad(found["forwarding"], "does not allow forwarding", f"ask the admin of {own.jump}")


def test_a_tunnel_that_does_not_come_up(healthy: Account, monkeypatch: pytest.MonkeyPatch) -> None:
    """The login on trial works, and the one after it does not: the host went away in between."""
    real = checks.probe

    def probe_and_go(*words: object, **more: object) -> list[checks.Probe]:
        found = real(*words, **more)  # type: ignore[arg-type]
        healthy.home.known_hosts.write_text("")
        return found

    monkeypatch.setattr(checks, "probe", probe_and_go)
    is_bad(look(healthy, "tunnel"), "is not pinned", "hpcproxy up")


def test_a_tunnel_that_is_down(account: Account, tmp_path: Path) -> None:
    with sshd.running(tmp_path / "own") as own:
        set_up(account, own, connect_timeout_s=2)
        verbs.up(account, lambda _text: None)
        own.stop()
        found: dict[str, Finding] = {}
        while "is down" not in (found := looked(account, "tunnel"))["tunnel"].words:
            assert found["tunnel"].mark is not Mark.BROKEN
            if found["route"].mark is Mark.BAD:
                break
        verbs.down(account)
    is_bad(found["route"], "nothing listens at its ssh port", "ssh -v")


def test_a_node_without_python(healthy: Account, monkeypatch: pytest.MonkeyPatch) -> None:
    from hpcproxy.doctor.temporary import Temporary  # noqa: PLC0415

    real = Temporary.start

    def without(self: Temporary, config: object, account: Account) -> object:
        return real(self, config.model_copy(update={"agent": False}), account)  # type: ignore[attr-defined]

    monkeypatch.setattr(Temporary, "start", without)
    is_bad(look(healthy, "agent"), "ssh itself listens, and any user can use its port", "python3")


def test_an_agent_that_is_turned_off_is_no_fault(healthy: Account) -> None:
    _change(healthy, agent=False)
    assert look(healthy, "agent").words == "turned off (agent: false); ssh itself listens"


def test_a_port_that_is_free_and_one_that_somebody_has(healthy: Account) -> None:
    port = verbs.settings_of(healthy).config.port
    where = shells_url(port).removeprefix("http://")
    assert look(healthy, "port").words == f"{where} is free"
    with socket.create_server((where.partition(":")[0], port)):
        found = look(healthy, "port")
    is_bad(found, f"{where} is somebody else's here (uid {os.getuid()} has it)", "hpcproxy install-bashrc --port ")

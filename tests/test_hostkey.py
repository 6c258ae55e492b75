"""Host keys: fetched from a real sshd, pinned in our own list, and never replaced in silence."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hpcproxy import hostkey, ops
from hpcproxy.config import Jump
from hpcproxy.errors import WayOutError
from hpcproxy.hostkey import HostKey
from hpcproxy.ops import Account, InitReport
from tests import servers, sshd
from tests.sshd import Sshd

KEY = HostKey("[h]:2222", "ssh-ed25519", "AAAA")


# ------------------------------------------------------------------------------------------------ the list


def test_pinning_keeps_other_lines_and_replaces_its_own() -> None:
    text = "# mine\nh ssh-ed25519 BBBB\n[h]:2222 ssh-rsa CCCC\n[h]:2222 ssh-ed25519 DDDD\n"
    after = hostkey.pin(text, KEY)
    assert after == "# mine\nh ssh-ed25519 BBBB\n[h]:2222 ssh-ed25519 AAAA\n"
    assert hostkey.pin(after, KEY) == after


@pytest.mark.parametrize(
    ("text", "data"),
    [
        ("", None),
        ("[h]:2222 ssh-ed25519 AAAA\n", "AAAA"),
        ("a,[h]:2222,b ssh-ed25519 AAAA comment\n", "AAAA"),
        ("[h]:2222 ssh-rsa AAAA\n", None),
        ("h ssh-ed25519 AAAA\n", None),
        ("# [h]:2222 ssh-ed25519 AAAA\n", None),
        ("[h]:2222 ssh-ed25519\n", None),
        ("@revoked [h]:2222 ssh-ed25519 AAAA\n", None),
    ],
)
def test_looking_up_a_pinned_key(text: str, data: str | None) -> None:
    assert hostkey.pinned(text, KEY.name, KEY.kind) == data


def test_the_list_ends_in_a_newline_even_if_it_did_not() -> None:
    after = hostkey.pin("a ssh-rsa BBBB", KEY)
    assert after == "a ssh-rsa BBBB\n[h]:2222 ssh-ed25519 AAAA\n"


# ------------------------------------------------------------------------------------------------ fetching


def test_the_key_is_the_servers_and_its_fingerprint_is_ssh_keygens(jump_host: Sshd) -> None:
    key = hostkey.fetch(Jump.parse(jump_host.jump), 10)
    assert key.line == jump_host.known_hosts
    argv = ["ssh-keygen", "-l", "-f", str(jump_host.directory / "host_key.pub")]
    assert subprocess.run(argv, capture_output=True, text=True, check=True).stdout.split()[1] == key.fingerprint


def test_no_login_is_tried_to_get_it(jump_host: Sshd) -> None:
    hostkey.fetch(Jump.parse(jump_host.jump), 10)
    log = (jump_host.directory / "log").read_text()
    assert "Accepted" not in log
    assert "Failed" not in log


def test_the_users_ssh_configuration_is_followed(jump_host: Sshd, home: Path) -> None:
    (home / ".ssh").mkdir()
    (home / ".ssh" / "config").write_text(f"Host gate\n  HostName 127.0.0.1\n  Port {jump_host.port}\n")
    key = hostkey.fetch(Jump("gate"), 10)
    assert key.data == jump_host.host_key.split()[1]
    assert key.name == f"[127.0.0.1]:{jump_host.port}"


def _layer(jump: str, timeout_s: int = 1) -> tuple[str, str]:
    with pytest.raises(WayOutError) as caught:
        hostkey.fetch(Jump.parse(jump), timeout_s)
    assert caught.value.jump == jump
    return caught.value.layer, caught.value.reason


def test_each_way_to_fail_has_its_layer() -> None:
    assert _layer(f"u@127.0.0.1:{servers.free_port()}") == ("route", "nothing listens at its ssh port")
    assert _layer("u@no-such-host.invalid", 10) == ("name", "does not resolve here")
    with servers.black_hole() as port:
        assert _layer(f"127.0.0.1:{port}") == ("route", "does not answer")
    with servers.silent() as port:
        assert _layer(f"127.0.0.1:{port}")[0] in ("ssh", "route")
    with servers.hanging_up() as port:
        assert _layer(f"127.0.0.1:{port}")[0] == "ssh"


# ------------------------------------------------------------------------------------------------ init


@pytest.fixture
def init(account: Account, jump_host: Sshd) -> Callable[..., InitReport]:
    def run(**options: Any) -> InitReport:
        flags = {"jump": [jump_host.jump], "identity": str(jump_host.identity)}
        return ops.init(account, flags, **{"try_login": False, "replace_key": False, "say": lambda _: None, **options})

    return run


def _pin_another(account: Account, jump_host: Sshd, path: Path) -> str:
    other = sshd.make_key(path / "other").with_suffix(".pub").read_text().rsplit(" ", 1)[0]
    text = f"# mine\n[127.0.0.1]:{jump_host.port} {other}\n"
    account.home.directory.mkdir(exist_ok=True)
    account.home.known_hosts.write_text(text)
    return text


def test_a_new_key_is_pinned_and_the_second_time_it_is_as_before(
    init: Callable[..., InitReport], account: Account, jump_host: Sshd
) -> None:
    assert [pin.news for pin in init().pinned] == ["new"]
    assert account.home.known_hosts.read_text() == jump_host.known_hosts
    report = init()
    assert [pin.news for pin in report.pinned] == ["as pinned before"]
    assert report.works
    assert account.home.known_hosts.read_text() == jump_host.known_hosts


def test_a_key_that_the_user_knows_already_is_recognised(
    init: Callable[..., InitReport], home: Path, jump_host: Sshd
) -> None:
    (home / ".ssh").mkdir()
    (home / ".ssh" / "known_hosts").write_text(jump_host.known_hosts)
    assert [pin.news for pin in init().pinned] == ["as in ~/.ssh/known_hosts"]


def test_a_changed_key_is_refused_until_it_is_asked_for(
    init: Callable[..., InitReport], account: Account, jump_host: Sshd, tmp_path: Path
) -> None:
    text = _pin_another(account, jump_host, tmp_path)
    report = init(try_login=True)
    (pin,) = report.pinned
    assert not report.works
    assert report.probes == []
    assert pin.error is not None
    assert pin.error.layer == "host-key"
    assert "--replace-key" in str(pin.error)
    assert account.home.known_hosts.read_text() == text
    assert account.home.config.exists()
    assert init(replace_key=True).works
    assert account.home.known_hosts.read_text() == "# mine\n" + jump_host.known_hosts


def test_a_key_of_another_kind_than_the_pinned_one_is_a_changed_key(
    init: Callable[..., InitReport], account: Account, jump_host: Sshd
) -> None:
    text = f"[127.0.0.1]:{jump_host.port} ecdsa-sha2-nistp256 AAAA\n"
    account.home.directory.mkdir()
    account.home.known_hosts.write_text(text)
    assert [pin.news for pin in init().pinned] == ["changed"]
    assert account.home.known_hosts.read_text() == text
    assert [pin.news for pin in init(replace_key=True).pinned] == ["new"]
    assert account.home.known_hosts.read_text() == jump_host.known_hosts


def test_a_list_that_is_not_utf8_keeps_its_bytes(
    init: Callable[..., InitReport], account: Account, jump_host: Sshd
) -> None:
    account.home.directory.mkdir()
    account.home.known_hosts.write_bytes(b"# caf\xe9\n")
    assert init().works
    assert account.home.known_hosts.read_bytes() == b"# caf\xe9\n" + jump_host.known_hosts.encode()


def test_a_key_unlike_the_users_own_list_is_refused_too(
    init: Callable[..., InitReport], account: Account, home: Path, jump_host: Sshd, tmp_path: Path
) -> None:
    text = _pin_another(account, jump_host, tmp_path)
    account.home.known_hosts.unlink()
    (home / ".ssh").mkdir()
    (home / ".ssh" / "known_hosts").write_text(text)
    (pin,) = init().pinned
    assert pin.error is not None
    assert "~/.ssh/known_hosts" in str(pin.error)
    assert not account.home.known_hosts.exists()


def test_one_login_is_tried_and_works(init: Callable[..., InitReport]) -> None:
    (probe,) = init(try_login=True).probes
    assert (probe.layer, probe.reason) == (None, "login and forwarding work")


def test_a_jump_host_that_is_away_leaves_a_valid_configuration(account: Account) -> None:
    jump = f"u@127.0.0.1:{servers.free_port()}"
    report = ops.init(account, {"jump": [jump]}, try_login=True, replace_key=False, say=lambda _: None)
    assert not report.works
    assert [pin.error.layer for pin in report.pinned if pin.error] == ["route"]
    assert str(ops.settings_of(account).jump[0]) == jump
    assert list(Path(os.environ["TMPDIR"]).iterdir()) == []

"""What ssh makes of a name is ssh's own answer, however odd the configuration."""

from __future__ import annotations

import os
import pwd
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hpcproxy.config.model import Jump
from hpcproxy.errors import TunnelError
from hpcproxy.openssh import configuration
from tests import ssh_at_hand

Write = Callable[[Any], Path]

_OF_HOME = Path(pwd.getpwuid(os.getuid()).pw_dir)

# What it is, the configuration, what is asked for, what ssh looks up.
_NAMES = [
    ("nothing", "", Jump("h.example"), "h.example"),
    ("port", "", Jump("h", None, 2222), "[h]:2222"),
    ("upper case", "", Jump("H.Example"), "h.example"),
    ("hostname", "Host gw\n HostName 10.0.0.9\n", Jump("gw"), "10.0.0.9"),
    ("hostname token", "Host gw\n HostName %h.hpc.example\n", Jump("gw"), "gw.hpc.example"),
    ("port of the file", "Host gw\n HostName 10.0.0.9\n Port 2222\n", Jump("gw"), "[10.0.0.9]:2222"),
    ("port of the command line", "Host gw\n Port 2222\n", Jump("gw", None, 22), "gw"),
    ("alias and port", "Host gw\n Port 2222\n HostKeyAlias gw.example\n", Jump("gw"), "gw.example"),
    ("comment", "Host gw # mine\n HostName 10.0.0.9 # since\n Port 2022 # odd\n", Jump("gw"), "[10.0.0.9]:2022"),
    ("equals", "Host=gw\n HostName=10.0.0.9\n", Jump("gw"), "10.0.0.9"),
    ("match final all", "Host gw\n HostName 10.0.0.9\nMatch final all\n Port 23\n", Jump("gw"), "[10.0.0.9]:23"),
    ("match exec", 'Match host gw exec "test x = x"\n HostName 10.0.0.9\n', Jump("gw"), "10.0.0.9"),
    ("match negated", "Match host !other,g*\n HostName 10.0.0.9\n", Jump("gw"), "10.0.0.9"),
    ("not utf-8", b"# caf\xe9\nHost gw\n HostName 10.0.0.9\n", Jump("gw"), "10.0.0.9"),
    ("ipv6", "Host gw\n HostName fd00::10\n", Jump("gw"), "fd00::10"),
    ("ipv6 and port", "", Jump("fd00::10", None, 2222), "[fd00::10]:2222"),
    ("tabs and CRLF", "Host gw\r\n\tHostName\t10.0.0.9\r\n", Jump("gw"), "10.0.0.9"),
    (
        "unknown but ignored",
        "IgnoreUnknown UseKeychain\nUseKeychain yes\nHost gw\n HostName 10.0.0.9\n",
        Jump("gw"),
        "10.0.0.9",
    ),
]


@pytest.mark.parametrize("row", _NAMES, ids=[row[0] for row in _NAMES])
def test_the_name_is_what_ssh_looks_up(ssh_config: Write, row: tuple[str, str | bytes, Jump, str]) -> None:
    what, text, jump, name = row
    if what == "comment":
        ssh_at_hand.needs("a comment behind a value")
    ssh_config(text)
    assert configuration.ask(jump).name == name


def test_an_included_file_counts(ssh_config: Write, tmp_path: Path) -> None:
    (tmp_path / "more.conf").write_text("Host gw\n HostName 10.0.0.9\n")
    ssh_config(f"Include {tmp_path}/*.conf\n")
    assert configuration.ask(Jump("gw")).hostname == "10.0.0.9"


def test_users(ssh_config: Write) -> None:
    ssh_config('Host js\n User alice@node@10.0.0.1\nHost sp\n User "al ice"\n')
    assert configuration.ask(Jump("js")).user == "alice@node@10.0.0.1"
    assert configuration.ask(Jump("sp")).user == "al ice"
    assert configuration.ask(Jump("js", "bob")).user == "bob"
    assert configuration.ask(Jump("other"), user="root").user == "root"


def test_paths_are_expanded_as_ssh_expands_them(ssh_config: Write) -> None:
    ssh_config(
        "Host gw\n HostName 10.0.0.9\n User bob\n Port 2222\n IdentityFile %d/.ssh/key_%r_%h_%p_%n%%\n"
        ' IdentityFile "~/a b"\n CertificateFile ${HOME}/c-cert.pub\n IdentitiesOnly yes\n'
        ' UserKnownHostsFile "~/known hosts" /etc/second\n GlobalKnownHostsFile /dev/null\n'
    )
    found = configuration.ask(Jump("gw"))
    assert found.identity_files == (_OF_HOME / ".ssh/key_bob_10.0.0.9_2222_gw%", _OF_HOME / "a b")
    assert found.certificate_files == (Path(os.environ["HOME"]) / "c-cert.pub",)
    assert found.identities_only
    assert found.known_hosts == (_OF_HOME / "known hosts", Path("/etc/second"), Path("/dev/null"))


def test_hops_and_proxy_commands(ssh_config: Write) -> None:
    ssh_config(
        "Host a\n ProxyJump u@h1:33,[fe80::1]:44\nHost b\n ProxyCommand nc %h %p\nHost c\n ProxyJump none\n"
        "Host d\n ProxyJump x@y@z\n"
    )
    assert configuration.ask(Jump("a")).hops == (Jump("h1", "u", 33), Jump("fe80::1", None, 44))
    assert (configuration.ask(Jump("b")).hops, configuration.ask(Jump("b")).proxy_command) == ((), "nc %h %p")
    assert (configuration.ask(Jump("c")).hops, configuration.ask(Jump("c")).proxy_command) == ((), None)
    assert configuration.ask(Jump("d")).hops == (Jump("z", "x@y", None),)


_BAD = {
    "unknown option": ("Host gw\n Bogus yes\n", "line 2: Bad configuration option: bogus"),
    "Host without a name": ("Host\n User alice\n", "line 1"),
    "Match without an argument": ("Match host\n User alice\n", "line 1"),
    "no number": ("Port many\n", "line 1"),
    "quote left open": ('User "alice\n', "line 1"),
}


@pytest.mark.parametrize("kind", _BAD)
def test_a_line_that_ssh_cannot_take_is_named_in_its_own_words(ssh_config: Write, kind: str) -> None:
    if kind == "Host without a name":
        ssh_at_hand.needs("an error for a Host without a name")
    text, words = _BAD[kind]
    path = ssh_config(text)
    with pytest.raises(TunnelError) as caught:
        configuration.ask(Jump("gw"))
    assert caught.value.layer == "ssh"
    assert f"{path}" in caught.value.why.reason
    assert words in caught.value.why.reason
    assert "terminating" not in caught.value.why.reason


def test_a_match_exec_without_an_end_is_bounded(ssh_config: Write, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    ssh_config(f'Match exec "sleep 2; touch {mark}"\n User x\n')
    with pytest.raises(TunnelError, match="Match exec"):
        configuration.ask(Jump("gw"), timeout_s=0.5)
    assert subprocess.run(["pgrep", "-f", str(mark)], stdout=subprocess.DEVNULL, check=False).returncode == 1


def test_without_ssh_it_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(TunnelError, match="the program ssh cannot be run"):
        configuration.ask(Jump("gw"))


def test_what_is_not_printable_is_not_passed_on() -> None:
    assert (
        configuration.said(b"/x: line 1: Bad \x1b[31m\r\n/x: terminating, 1 bad configuration options\r\n")
        == "/x: line 1: Bad ?[31m"
    )

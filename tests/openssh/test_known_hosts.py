"""Lists of host keys are read as OpenSSH reads them, and every byte that is not ours stays."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from hpcproxy.errors import FileError
from hpcproxy.openssh.known_hosts import CA, REVOKED, HostKey, KnownHosts, only
from tests import sshd


def _public(path: Path) -> str:
    return sshd.make_key(path).with_suffix(".pub").read_text().rsplit(" ", 1)[0]


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Three public keys, as `kind data`."""
    directory = tmp_path_factory.mktemp("keys")
    return [_public(directory / name) for name in "abc"]


def _list(text: str | bytes) -> KnownHosts:
    return KnownHosts(Path("/list"), text.encode() if isinstance(text, str) else text)


def _new(name: str, key: str) -> HostKey:
    return HostKey(name, *key.split())


def _hashed(tmp_path: Path, text: str) -> str:
    path = tmp_path / "hashed"
    path.write_text(text)
    subprocess.run(["ssh-keygen", "-q", "-H", "-f", path], check=True, capture_output=True)
    return path.read_text()


def _plain(known: KnownHosts, name: str) -> list[tuple[int, str]]:
    return [(entry.number, f"{entry.key.kind} {entry.key.data}") for entry in known.of(name) if not entry.marker]


def test_the_lines_of_a_name_are_found_however_they_are_written(tmp_path: Path, keys: list[str]) -> None:
    a, b, c = keys
    text = f"# {a}\n\nx,h,y {a} comment\n[h]:2222\t{b}\n*.lan,!no.lan {c}\n{_hashed(tmp_path, f'secret {b}')}broken\n"
    known = _list(text)
    assert _plain(known, "h") == [(3, a)]
    assert _plain(known, "[h]:2222") == [(4, b)]
    assert _plain(known, "yes.lan") == [(5, c)]
    assert _plain(known, "no.lan") == []
    assert _plain(known, "secret") == [(6, b)]
    assert _plain(known, "H") == [(3, a)]
    assert _plain(known, "other") == []


def test_markers_are_told_apart(keys: list[str]) -> None:
    a, b, _ = keys
    known = _list(f"@revoked * {a}\n@cert-authority *.lan {b}\nh.lan {a}\n")
    assert [(entry.number, entry.marker) for entry in known.of("h.lan")] == [(1, REVOKED), (2, CA), (3, "")]
    assert [entry.key.authority for entry in known.of("h.lan")] == [False, True, False]


def test_what_is_empty_or_not_there_or_no_list_knows_nobody(tmp_path: Path) -> None:
    """As for ssh, which looks at the next one: a pipe would be waited for, /dev/zero read for ever."""
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "none", tmp_path / "pipe", tmp_path, Path("/dev/null"), Path("/dev/zero")):
        assert KnownHosts.read(path).of("h") == []


def test_a_pinned_key_is_the_only_one_of_its_name_and_nothing_else_changes(tmp_path: Path, keys: list[str]) -> None:
    a, b, c = keys
    hashed = _hashed(tmp_path, f"secret {b}")
    kept = f"# caf\udce9\n@revoked h {b}\n@cert-authority h {c}\nother {b}\n\n"
    known = _list((f"{kept}h,10.0.0.1 {a}\n{hashed}h {b}\n").encode(errors="surrogateescape"))
    after = known.pinning(_new("h", c))
    assert after.content == f"{kept}{hashed}h {c}\n".encode(errors="surrogateescape")
    assert after.pinning(_new("h", c)) == after
    assert _plain(after, "10.0.0.1") == [], "the old key is not trusted under its other names"
    assert after.pinning(_new("secret", a)).content.decode(errors="surrogateescape") == f"{kept}h {c}\nsecret {a}\n"


def test_line_ends_are_those_of_the_list(keys: list[str]) -> None:
    a, b, _ = keys
    assert _list(f"x {a}").adding(_new("h", b)).content == f"x {a}\nh {b}\n".encode()
    crlf = _list(f"x {a}\r\nh {a}\r\n")
    assert _plain(crlf, "h") == [(2, a)]
    assert crlf.pinning(_new("h", b)).content == f"x {a}\r\nh {b}\r\n".encode()


def test_a_name_is_never_an_option_or_a_pattern(keys: list[str]) -> None:
    known = _list(f"h {keys[0]}\n")
    assert [known.of(name) for name in ("-R", "*", "h*", "?")] == [[], [], [], []]


def test_the_fingerprint_is_ssh_keygens(tmp_path: Path) -> None:
    key = _new("h", _public(tmp_path / "key"))
    argv = ["ssh-keygen", "-l", "-f", str(tmp_path / "key.pub")]
    assert subprocess.run(argv, capture_output=True, text=True, check=True).stdout.split()[1] == key.fingerprint


def test_what_is_no_key_has_a_fingerprint_like_no_other() -> None:
    assert HostKey("h", "ssh-rsa", "not base64").fingerprint != HostKey("h", "ssh-rsa", "not base65").fingerprint


def test_without_ssh_keygen_it_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(FileError, match="ssh-keygen"):
        _list("h ssh-rsa AAAA\n").of("h")


def test_who_must_read_the_lines_himself_gets_them_with_their_markers() -> None:
    text = b"# gr\xf6\xdfe\n\n  h ssh-ed25519 AAAA\r\n@cert-authority *.lan ssh-rsa BBBB x\n@revoked h ssh-rsa CCCC\n"
    assert _list(text).lines() == [
        ("", "h ssh-ed25519 AAAA"),
        (CA, "@cert-authority *.lan ssh-rsa BBBB x"),
        (REVOKED, "@revoked h ssh-rsa CCCC"),
    ]


def test_one_list_alone_says_whose_key_counts(tmp_path: Path) -> None:
    """Asked of the ssh at hand: a blank does not take the path apart, and what ssh would expand stays as it is."""
    path = tmp_path / "my %h list"
    argv = ["ssh", "-F", "/dev/null", "-G", *only(path), "--", "h"]
    said = subprocess.run(argv, capture_output=True, text=True, check=True).stdout.splitlines()
    assert "stricthostkeychecking true" in said
    assert "globalknownhostsfile /dev/null" in said
    (told,) = (line for line in said if line.startswith("userknownhostsfile "))
    assert told.replace("%%", "%") == f"userknownhostsfile {path}"

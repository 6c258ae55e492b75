"""What can be told of a key and its certificate on this side: without a passphrase, without a login."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from hpcproxy.files.render import TEMPLATES
from hpcproxy.node.upstream.words import Words
from tests import sshd
from tests.sshd import Sshd
from tests.supervisor import Supervisor, write_script

REASON_SH, CERTIFICATE_SH = (TEMPLATES / "lib" / "tunnel" / name for name in ("reason.sh", "certificate.sh"))


@pytest.mark.parametrize("passphrase", ["", "secret"], ids=["plain", "encrypted"])
@pytest.mark.parametrize(
    "kind",
    [("-t", "ed25519"), ("-t", "rsa"), ("-t", "rsa", "-m", "PEM"), ("-t", "rsa", "-m", "PKCS8"), ("-t", "ecdsa")],
    ids=" ".join,
)
def test_a_key_that_needs_a_passphrase_is_known_by_its_first_lines(
    kind: tuple[str, ...], passphrase: str, tmp_path: Path
) -> None:
    key = tmp_path / "key"
    subprocess.run(["ssh-keygen", "-q", *kind, "-N", passphrase, "-f", key], check=True)
    script = 'set -euo pipefail; . "$0"; if needs_passphrase "$1"; then echo encrypted; else echo plain; fi'
    done = subprocess.run(["bash", "-c", script, REASON_SH, key], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("encrypted\n" if passphrase else "plain\n", "")


@pytest.mark.parametrize("process", ["pid=7", "bin=ssh, pid=7", "bin=/opt/a b/ssh, pid=7"])
@pytest.mark.parametrize("level", ["", "debug1: "])
def test_a_line_is_known_behind_what_log_verbose_puts_before_it(process: str, level: str) -> None:
    """From OpenSSH 9.8 on the program's name stands there, too (log.c)."""
    text = "Offering public key: /k ED25519 SHA256:x"
    line = f"{level}sshconnect2.c:userauth_pubkey():2210 ({process}): {text}"
    words = Words()
    words.feed(line)
    assert words.lines == [text]
    script = 'set -euo pipefail; . "$0"; line= last=; plain_line "$1"; printf "%s" "$line"'
    done = subprocess.run(["bash", "-c", script, REASON_SH, line], capture_output=True, text=True, check=True)
    assert done.stdout == text


# ------------------------------------------------------------------------------------------------ certificates

# The clocks of people who are as far ahead and as far behind as there are.
_ZONES = ("UTC", "Pacific/Kiritimati", "Etc/GMT+12")


def _signed(key: Path, authority: Path, *words: str) -> Path:
    argv = ["ssh-keygen", "-q", "-s", str(authority), "-I", "x", *words, f"{key}.pub"]
    subprocess.run(argv, check=True, env={**os.environ, "TZ": "UTC"})
    return Path(f"{key}-cert.pub")


@pytest.mark.parametrize("zone", _ZONES)
@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["-n", "alice", "-V", "-2h:-1h"], "expired at "),
        (["-n", "alice", "-V", "-1h:+1h"], ""),
        (["-n", "bob,alice", "-V", "+1h:+2h"], "is valid from "),
        (["-n", "bob,alice"], ""),
        ([], ""),
        (
            ["-n", "bob,mail@site", "-V", "always:+1h"],
            "is for bob, mail@site; does it take that for the account alice?",
        ),
    ],
    ids=["expired", "valid", "early", "for ever", "for all", "for others"],
)
def test_what_is_wrong_with_a_certificate_is_told_in_every_time_zone(
    words: list[str], reason: str, zone: str, tmp_path: Path
) -> None:
    path = _signed(sshd.make_key(tmp_path / "id"), sshd.make_key(tmp_path / "ca"), *words)
    script = 'set -euo pipefail; . "$0"; . "$1"; reason=; certificate_fails "$2" alice || :; printf "%s" "$reason"'
    argv = ["bash", "-c", script, REASON_SH, CERTIFICATE_SH, path]
    done = subprocess.run(argv, capture_output=True, text=True, check=True, env={**os.environ, "TZ": zone})
    assert done.stderr == ""
    assert done.stdout.startswith(f"the certificate {path} {reason}") if reason else done.stdout == ""


@pytest.fixture
def certified(tmp_path: Path) -> Iterator[Sshd]:
    """A jump host that takes a certificate which ends in an hour."""
    with sshd.running(tmp_path / "own") as own:
        authority = sshd.make_key(tmp_path / "ca")
        _signed(own.identity, authority, "-n", sshd.USER, "-V", "-1d:+1h")
        (own.directory / "authorized_keys").write_text(f"cert-authority {authority.with_suffix('.pub').read_text()}")
        yield own


@pytest.mark.parametrize("agent", [True, False], ids=["agent", "ssh"])
@pytest.mark.parametrize(("hours", "told"), [(2, True), (0.5, False)])
def test_a_certificate_that_ends_before_the_job_is_told_when_the_job_begins(
    hours: float, told: bool, agent: bool, certified: Sshd, tmp_path: Path
) -> None:
    script = write_script(tmp_path / "home", **certified.settings, agent=agent)
    supervisor = Supervisor(script, environ={**os.environ, "SLURM_JOB_END_TIME": str(int(time.time() + hours * 3600))})
    try:
        line = supervisor.line("note", "ready")
        words = f" credentials the certificate {certified.identity}-cert.pub ends at "
        assert (words in line and "before the time limit of this job" in line) is told
        if told:
            supervisor.line("ready")
    finally:
        supervisor.end()


def test_init_tells_of_a_certificate_that_ends_soon(certified: Sshd, tmp_path: Path) -> None:
    script = write_script(tmp_path / "home", **certified.settings)
    done = subprocess.run(["/bin/bash", "-p", script, "probe"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith(f"ok {certified.jump} the certificate {certified.identity}-cert.pub ends at ")

"""Our scripts and the agent with what the ssh of EL 7, 8 and 9 says: read in their sources, none of them runs here."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from hpcproxy import floors
from hpcproxy.files.render import TEMPLATES
from hpcproxy.node.state.settings import Failure
from hpcproxy.node.upstream.words import Words, verdict
from hpcproxy.openssh import command, option_list, reasons
from tests.contract.openssh import RELEASES, Release, program
from tests.supervisor import write_script

LOGS = [(name, situation) for name, release in RELEASES.items() for situation in release.logs]
_TABLE = tuple(
    Failure(re.compile(row.pattern), row.why.layer, str(row.why), row.why.permanent, row.phase, row.more)
    for row in reasons.FAILURES
)
_WORDS = {"a refused key": "it refused the key", "no keys taken": "no keys at all, only password,keyboard-interactive,"}
_LEARN = """
via=ssh uses_ssh=1 held='' heeded=TERM death=HUP first_cipher=$1 login_option=$2 least_ssh=$3 jump_destinations=(h)
source "$0/lib/any/bounded.sh"
source "$0/lib/tunnel/ssh.sh"
learn
printf '%s\\n' "${cipher[*]}" "${log_verbose[*]}" "$old_ssh"
"""


def _functions(script: Path) -> str:
    """All of tunnel.sh but its last act."""
    return script.read_text().rpartition("\ncase ${1-} in\n")[0]


@pytest.mark.parametrize(("name", "situation"), LOGS, ids=str)
def test_what_it_writes_means_what_it_means_to_a_newer_one(name: str, situation: str, tmp_path: Path) -> None:
    text, layer = RELEASES[name].logs[situation]
    words = Words()
    for line in text.split("\n"):
        words.feed(line)
    found = verdict(_TABLE, words.lines)
    assert found is not None
    assert found.layer == layer
    assert _WORDS.get(situation, "") in found.reason
    # The scripts read it from ssh's own file, whose lines end as ssh ends them.
    (tmp_path / "log").write_text(text.replace("\n", "\r\n") + "\r\n")
    (tmp_path / "talk").touch()
    script = tmp_path / "read.sh"
    read = 'read_reason "$1" "no such words" "$2"; printf "%s %s %s" "$layer" "$permanent" "$reason"'
    script.write_text(f"{_functions(write_script(tmp_path / 'home', jump='u@h'))}\nssh_says=''\n{read}\n")
    argv = ["/bin/bash", "-p", script, tmp_path / "log", tmp_path / "talk"]
    done = subprocess.run(argv, capture_output=True, text=True, check=True, timeout=60)
    said_layer, permanent, _reason = done.stdout.split(" ", 2)
    assert (said_layer, permanent == "1") == (found.layer, found.permanent), done.stdout


def _fake(directory: Path, release: Release) -> None:
    (directory / "ssh").write_text(program(release, [option.name for option in option_list.SET]))
    (directory / "ssh").chmod(0o755)


@pytest.mark.parametrize("name", RELEASES)
def test_it_takes_our_options_and_is_told_what_it_knows(name: str, tmp_path: Path) -> None:
    release = RELEASES[name]
    _fake(tmp_path, release)
    options = option_list.words(
        {"known_hosts": "/k", "connect_timeout_s": 1, "alive_interval_s": 1, "alive_questions": 1}
    )
    environ = {"PATH": f"{tmp_path}:/usr/bin:/bin"}
    asked = ["ssh", "-G", "-T", "-x", "-a", *options, "--", "h"]
    assert subprocess.run(asked, env=environ, capture_output=True, check=True).stderr == b""
    without = [word for word in asked if word != "IgnoreUnknown=*"]
    without.remove("-o")
    refused = subprocess.run(without, env=environ, capture_output=True, check=False, text=True)
    assert "Bad configuration option" in refused.stderr
    argv = ["bash", "-euc", _LEARN, TEMPLATES, command.FIRST_CIPHER, command.LOGIN_OPTION, str(floors.OPENSSH.number)]
    learned = subprocess.run(argv, env=environ, capture_output=True, text=True, check=True).stdout.splitlines()
    gcm_first = "-o Ciphers=aes128-gcm@openssh.com,chacha20-poly1305@openssh.com,aes128-ctr"
    verbose = f"-o {command.LOGIN_OPTION}" if release.number >= (8, 5) else ""
    assert learned == [gcm_first, verbose, ""]


@pytest.mark.parametrize("name", RELEASES)
def test_none_of_them_is_too_old(name: str) -> None:
    assert floors.OPENSSH.too_old(RELEASES[name].says) == ""


def test_one_that_is_too_old_is_said_to_be(tmp_path: Path) -> None:
    """EL 6's: it has no -G."""
    (tmp_path / "ssh").write_text(
        '#!/bin/sh\nif [ "$*" = -V ]; then echo "OpenSSH_5.3p1, OpenSSL 1.0.1e-fips 11 Feb 2013" >&2; exit; fi\n'
        'echo "unknown option -- G" >&2; exit 255\n'
    )
    (tmp_path / "ssh").chmod(0o755)
    words = "OpenSSH_5.3 is too old on this node, 7.4 is needed"
    script = write_script(tmp_path / "home", jump="u@h")
    environ = {"PATH": f"{tmp_path}:/usr/bin:/bin", "TMPDIR": str(tmp_path), "SLURMD_NODENAME": "c1"}
    for arguments, said in ((["probe"], f"failed ssh {words}\n"), (["hold", "7", "0"], f"gave-up c1 ssh {words}\n")):
        argv = ["/bin/bash", "-p", script, *arguments]
        done = subprocess.run(argv, env=environ, capture_output=True, text=True, check=True, timeout=60)
        assert done.stdout.endswith(said)
        assert done.stderr == ""

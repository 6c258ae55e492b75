"""A new key is kept if a person at the terminal says so, or the command line; else it is refused, with what to say."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from hpcproxy.account import verbs
from hpcproxy.account.account import Account
from hpcproxy.account.verbs import Trial
from hpcproxy.cli.consent import Count, Flags
from hpcproxy.errors import UsageError
from hpcproxy.openssh.known_hosts import HostKey, KnownHosts
from hpcproxy.openssh.recognition import Shown
from tests.keys import accept
from tests.sshd import Sshd

KEY = HostKey("h", "ssh-ed25519", "AAAA")
OTHER = HostKey("g", "ssh-ed25519", "BBBB")
_INIT = [sys.executable, "-m", "hpcproxy", "init", "--no-probe", "--jump"]


def _key(server: Sshd) -> HostKey:
    return HostKey("h", *server.host_key.split())


def _kept(account: Account) -> str:
    return KnownHosts.read(account.home.known_hosts).content.decode()


def test_a_script_says_so_on_the_command_line(account: Account, jump_host: Sshd) -> None:
    said = ["--fingerprint", "SHA256:x", "--fingerprint", _key(jump_host).fingerprint]
    argv = [*_INIT, jump_host.jump, *said]
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert f"host key      {jump_host.jump}  {_key(jump_host)}  (new)" in done.stdout
    assert _kept(account) == jump_host.known_hosts


def test_another_fingerprint_is_refused_with_the_one_that_is_there() -> None:
    keys = [Shown("h", KEY, "new"), Shown("g", OTHER, "new")]
    assert Flags.of(yes=True, fingerprints=[]).ask(keys) == ["", ""]
    answers = Flags.of(yes=False, fingerprints=[KEY.fingerprint]).ask(keys)
    assert answers == ["", f"has not the fingerprint that was given: {OTHER}"]


def test_without_a_terminal_and_a_word_it_is_refused(account: Account, jump_host: Sshd) -> None:
    done = subprocess.run(
        [*_INIT, jump_host.jump], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert f"{jump_host.jump} shows {_key(jump_host)}, for the first time" in done.stderr
    assert "no terminal to ask on; compare it, then say --fingerprint or --yes" in done.stderr
    assert _kept(account) == ""


_ANSWERS = [
    ("yes\n", True),
    (f"{KEY.fingerprint}\n", True),
    ("y\n", False),
    ("\n", False),
    (f"{OTHER.fingerprint}\n", False),
    ("\x04", False),
]


@pytest.mark.parametrize(("typed", "kept"), _ANSWERS)
def test_a_person_answers_at_the_terminal(monkeypatch: pytest.MonkeyPatch, typed: str, kept: bool) -> None:
    ours, theirs = pty.openpty()
    os.write(ours, typed.encode())
    with os.fdopen(theirs, closefd=False) as stdin, os.fdopen(theirs, "w") as stderr:
        monkeypatch.setattr(sys, "stdin", stdin)
        monkeypatch.setattr(sys, "stderr", stderr)
        (answer,) = Flags.of(yes=False, fingerprints=[]).ask([Shown("h", KEY, "changed", "~/.ssh/known_hosts")])
        shown = ""
        while "fingerprint: " not in shown:  # what is typed comes back first
            shown += os.read(ours, 4096).decode()
    os.close(ours)
    assert (answer == "") is kept
    assert f"h shows {KEY}, another than in ~/.ssh/known_hosts" in shown
    assert "Is it right? Type yes, or its fingerprint: " in shown


def test_flags_that_contradict_each_other() -> None:
    with pytest.raises(UsageError, match="exclude each other"):
        Flags.of(yes=True, fingerprints=["SHA256:x"])
    with pytest.raises(UsageError, match="is no fingerprint"):
        Flags.of(yes=False, fingerprints=["MD5:00:11"])


def test_the_trial_from_a_node_is_one_srun_of_the_same_script(
    account: Account, jump_host: Sshd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "bin" / "srun"
    program.parent.mkdir()
    asked = f'[[ $* != --version ]] || exit 1\necho "$@" >>{tmp_path}/asked'
    program.write_text(f'#!/bin/bash\n{asked}\nwhile [[ $1 == -* ]]; do shift; done\nexec "$@"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    flags = {"jump": [jump_host.jump], "identity": str(jump_host.identity)}
    account = Account.of(os.environ)
    settings = verbs.settings_of(account, flags)
    report = verbs.init(account, settings, Trial(on_node=True), consent=accept, say=lambda _: None)
    assert report.works, report.probes
    (said,) = (tmp_path / "asked").read_text().splitlines()
    assert said.startswith("--nodes=1 --ntasks=1 ")
    assert said.endswith(" /bin/bash -p -s probe")


class _Display:
    """As rich's, and what became of it."""

    def __init__(self) -> None:
        self.said: list[object] = []

    def add_task(self, title: str, total: int) -> int:
        self.said.append((title, total))
        return 7

    def advance(self, bar: int) -> None:
        self.said.append(bar)

    def stop(self) -> None:
        self.said.append("stopped")


def test_a_display_counts_hosts_and_is_gone_before_anybody_is_asked() -> None:
    display = _Display()
    count = Count("keys", display)
    count(2)
    count(Shown("h", KEY))
    assert display.said == [("keys", 2), 7]
    assert count.aside(lambda keys: [*map(str, display.said[-1:]), str(len(keys))])([]) == ["stopped", "0"]


def test_where_there_is_no_display_nothing_is_counted_and_all_is_asked() -> None:
    count = Count("keys", None)
    count(2)
    count(Shown("h", KEY))
    assert count.aside(lambda _keys: ["yes"])([]) == ["yes"]

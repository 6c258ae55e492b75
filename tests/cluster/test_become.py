"""A login that becomes root by sudo: the message goes to a shell of root's alone, the password to sudo alone."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hpcproxy.cluster import fan_out, routes
from hpcproxy.cluster.become import NotRootError, Secrets, SudoDialogue
from hpcproxy.cluster.outcome import HostOutcome
from tests import sshd
from tests.cluster.host import TOKEN
from tests.sshd import USER, Sshd

# Speaks as sudo does (the real one is asked below): its prompt on stderr, a line from stdin, three times at most.
SUDO = """#!/bin/bash
[[ $1 == -S && $2 == -p && $4 == -- ]] || exit 1
[[ $(<{directory}/mode) != stranger ]] || {{ echo 'alice is not in the sudoers file.' >&2; exit 1; }}
for ((try = 0; try < 3; try++)); do
    [[ $(<{directory}/mode) == ask ]] || break
    printf '%s' "$3" >&2
    IFS= read -r word || exit 1
    echo "$word" >>{directory}/heard
    [[ $word != right ]] || break
    echo 'Sorry, try again.' >&2
done
((try < 3)) || exit 1
shift 4
"$@"
"""
Ask = Callable[..., HostOutcome]


@pytest.fixture(params=["paramiko", "ssh"])
def server(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Sshd]:
    """An sshd whose sessions have that sudo, spoken to in either way."""
    stub = tmp_path / "bin" / "sudo"
    stub.parent.mkdir()
    stub.write_text(SUDO.format(directory=tmp_path))
    stub.chmod(0o755)
    if request.param == "ssh":
        monkeypatch.setattr(routes.Routes, "_is_plain", lambda _self, _found: False)
    with sshd.running(tmp_path / "server", f"SetEnv PATH={stub.parent}:/usr/bin:/bin") as found:
        yield found


@pytest.fixture
def ask(server: Sshd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Ask:
    """ask(mode, typed): what sudo does there, and what a person types; two hosts are asked."""

    def answer(mode: str, typed: str | None = None) -> HostOutcome:
        (tmp_path / "mode").write_text(mode)
        (tmp_path / "known_hosts").write_text(server.known_hosts + server.known_hosts.replace("127.0.0.1", "localhost"))
        questions: list[str] = []

        def type_it(_self: Secrets, what: str) -> str | None:
            questions.append(what)
            return typed

        monkeypatch.setattr(Secrets, "_type", type_it)
        login = fan_out.Login(USER, server.port, server.identity, None, tmp_path / "known_hosts", 20, "sudo")
        message = f"echo '{TOKEN} done unchanged'; exit\n".encode()
        replies = fan_out.Fleet(login, 2, TOKEN).ask(dict.fromkeys(("127.0.0.1", "localhost"), message)).hosts
        assert len(questions) <= 1, "asked once for all hosts"
        assert (replies[0].answer, replies[0].cause) == (replies[1].answer, replies[1].cause)
        return replies[0]

    return answer


def test_a_sudo_without_a_password(ask: Ask, tmp_path: Path) -> None:
    reply = ask("free", "right")
    assert reply.answer is not None, reply.cause
    assert reply.answer.word == "unchanged"
    assert not (tmp_path / "heard").exists()


def test_a_password_goes_to_sudo_and_nowhere_else(ask: Ask, tmp_path: Path) -> None:
    reply = ask("ask", "right")
    assert reply.answer is not None, reply.cause
    assert (tmp_path / "heard").read_text() == "right\nright\n"


def test_a_wrong_password_is_tried_once(ask: Ask, tmp_path: Path) -> None:
    assert ask("ask", "wrong").cause == f"sudo there takes another password of {USER}"
    assert (tmp_path / "heard").read_text() == "wrong\nwrong\n"


def test_a_password_that_nobody_is_there_to_type(ask: Ask, tmp_path: Path) -> None:
    trouble = ask("ask", None).cause
    assert trouble == f"sudo there asks for the password of {USER}; start this on a terminal"
    assert not (tmp_path / "heard").exists()


def test_who_may_not_become_root(ask: Ask) -> None:
    assert ask("stranger").cause == f"{USER} cannot become root there by sudo: alice is not in the sudoers file."


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("sudo"), reason="needs root, and sudo")
def test_the_real_sudo(jump_host: Sshd, tmp_path: Path) -> None:
    (tmp_path / "known_hosts").write_text(jump_host.known_hosts)
    login = fan_out.Login(USER, jump_host.port, jump_host.identity, None, tmp_path / "known_hosts", 20, "sudo")
    message = f'((EUID == 0)) && [[ -n $SUDO_USER ]] && echo "{TOKEN} done unchanged"; exit\n'.encode()
    (reply,) = fan_out.Fleet(login, 1, TOKEN).ask({"127.0.0.1": message}).hosts
    assert reply.answer is not None, reply.cause


def test_whoever_talks_on_at_the_prompt_is_left() -> None:
    dialogue = SudoDialogue("token", "u", Secrets())
    assert dialogue.hear(b"x" * 60_000) == b""
    with pytest.raises(NotRootError, match="talks on and does not become root"):
        dialogue.hear(b"x" * 70_000)

"""What `deploy --enable` refuses: before anything is done what the inventory lacks, after it what Slurm has already."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import pytest

from hpcproxy import inventory, rollout
from hpcproxy.deploy import Fleet, OnReply, Reply
from hpcproxy.errors import UsageError
from hpcproxy.report import console, table
from hpcproxy.run import Request, start
from hpcproxy.switch import Switch
from hpcproxy.wire import Answer
from tests.sshd import make_key

TOLD = "nodes: c[1-4]\nsettings: {jump: j}\n"


class _Answers:
    """Every host says of Slurm's running configuration what `output` says; without it Slurm is not there."""

    def __init__(self, output: bytes | None) -> None:
        self.output = output

    def ask(self, messages: dict[str, bytes], _token: str, _fanout: int, _on_reply: OnReply) -> list[Reply]:
        if self.output is None:
            return [Reply(host, Answer("failed", "scontrol: not found")) for host in messages]
        return [Reply(host, Answer("unchanged", contents={"output": self.output})) for host in messages]


@pytest.mark.parametrize(
    ("output", "cause"),
    [
        (None, "nothing was enabled: it does not answer `scontrol show config`"),
        (b"Prolog = /site/prolog\n", "nothing was enabled: Prolog is /site/prolog already"),
    ],
)
def test_what_is_in_the_way_of_enable_is_one_hosts_failure(output: bytes | None, cause: str) -> None:
    """So that the table still tells what became of all the others."""
    told = inventory.parse("case", f"{TOLD}controllers: ctl\n")
    outcomes = Switch(cast("Fleet", _Answers(output)), told, "token", 4).on(["c1", "c2"])
    (row,) = outcomes.rows()
    assert (row.word, row.hosts) == ("failed", "ctl")
    assert row.cause.startswith(cause)


def test_enable_without_a_controller_is_said_before_any_connection(tmp_path: Path) -> None:
    told = f"identity: {make_key(tmp_path / 'id')}\nknown_hosts: {tmp_path}/known\n"
    (tmp_path / "site.yaml").write_text(TOLD + told)
    (tmp_path / "known").write_text("j ssh-ed25519 AAAA\n")
    run = start(Request(tmp_path / "site.yaml"))
    with pytest.raises(UsageError, match="controllers:"):
        rollout.check_enable(run)


@pytest.mark.parametrize("said", ["[/]", "[/x] gone", "[root@c1 ~]# ", "[bold]", ":warning: full"])
def test_what_a_host_said_is_shown_as_it_is(said: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Brackets and colons are no markup: a prompt would vanish, a closing tag end the program after its work."""
    shown = table("outcome", "cause")
    shown.add_row("failed", said)
    console().print(shown)
    assert f"failed   {said}" in capsys.readouterr().out

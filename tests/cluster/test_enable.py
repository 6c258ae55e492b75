"""What `deploy --enable` refuses: before anything is done what the inventory lacks, after it what Slurm has already."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest

from hpcproxy.cli.output import console, table
from hpcproxy.cluster import verbs
from hpcproxy.cluster.fan_out import Fleet
from hpcproxy.cluster.outcome import OnHost, Outcomes, judge, unheard
from hpcproxy.cluster.protocol import Answer
from hpcproxy.cluster.run import Request, Run, start
from hpcproxy.errors import ConfigError, UsageError
from tests.cluster.host import TOKEN
from tests.sshd import make_key

TOLD = "nodes: c[1-4]\nsettings: {jump: j}\n"


class _Answers:
    """Every host says of Slurm's running configuration what `output` says; without it Slurm is not there."""

    def __init__(self, output: bytes | None) -> None:
        self.output = output
        self.token = TOKEN

    def ask(self, messages: dict[str, bytes], on_host: OnHost = unheard) -> Outcomes:
        del on_host
        if self.output is None:
            return Outcomes(tuple(judge(host, Answer("failed", "no answer within 10 s")) for host in messages))
        answer = Answer("unchanged", contents={"output": self.output})
        return Outcomes(tuple(judge(host, answer) for host in messages))


@pytest.mark.parametrize(
    ("output", "cause"),
    [
        (None, "nothing was enabled: how Slurm runs cannot be known: no answer within 10 s"),
        (b"Prolog = /site/prolog\n", "nothing was enabled: Prolog is /site/prolog already"),
        (b"SLURM_VERSION = 20.02.7\n", "nothing was enabled: Slurm 20.02.7 is too old, 20.11 is needed: "),
        (b"SLURM_CONF = /srv/x.conf\n", "nothing was enabled: slurmctld reads /srv/x.conf, not /etc/slurm/slurm.conf"),
        (b"NodeName=c1 State=IDLE\nNodeName=c9 State=DOWN\n", "nothing was enabled: this slurm.conf is c9's too"),
        (b"SlurmctldHost[0] = ctl\nSlurmctldHost[1] = ctl2\n", "nothing was enabled: slurmctld may run on ctl2 too"),
    ],
)
def test_what_is_in_the_way_of_enable_is_one_hosts_failure(tmp_path: Path, output: bytes | None, cause: str) -> None:
    """So that the table still tells what became of all the others."""
    run = replace(_run(tmp_path, "controllers: ctl\n"), fleet=cast("Fleet", _Answers(output)))
    outcomes = verbs.enable(run, lambda _outcome: None)
    (row,) = outcomes.rows()
    assert (row.word, row.hosts) == ("failed", "ctl")
    assert row.cause.startswith(cause)


def test_what_enable_cannot_do_is_said_before_any_connection(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="controllers:"):
        verbs.check_enable(_run(tmp_path))


def test_a_task_prolog_that_is_ours_cannot_be_the_sites(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="would run itself without end"):
        _run(tmp_path, "site_task_prolog: /usr/libexec/hpcproxy/taskprolog\n")


def test_enable_is_for_every_node_that_slurm_conf_governs(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="leave --limit out"):
        verbs.check_enable(_run(tmp_path, "controllers: ctl\n", limit="c1"))


def test_what_the_sites_own_lines_would_run_at_once_is_not_put_there(tmp_path: Path) -> None:
    """A plain deploy would be an --enable that nobody asked for."""
    run = replace(_run(tmp_path), fleet=cast("Fleet", _Answers(b"Prolog = /etc/slurm/prolog.d/[0-9]*\n")))
    with pytest.raises(UsageError, match=r"Prolog=/etc/slurm/prolog.d/\[0-9\]\* would run ours as soon as it is there"):
        verbs.check_before(run)


def test_neither_is_what_a_script_of_the_sites_would_run(tmp_path: Path) -> None:
    class Answers(_Answers):
        def ask(self, messages: dict[str, bytes], on_host: OnHost = unheard) -> Outcomes:
            replies = super().ask(messages, on_host).hosts
            text = {"/etc/slurm/prolog.sh": b"run-parts /etc/slurm/prolog.d"}
            assert isinstance(replies[0].answer, Answer)
            answer = replace(replies[0].answer, contents={**replies[0].answer.contents, **text})
            return Outcomes(tuple(replace(reply, answer=answer) for reply in replies))

    run = replace(_run(tmp_path), fleet=cast("Fleet", Answers(b"Prolog = /etc/slurm/prolog.sh\n")))
    with pytest.raises(UsageError, match=r"Prolog=/etc/slurm/prolog.sh would run ours as soon as it is there"):
        verbs.check_before(run)


HOOK = "/etc/slurm/epilog.d/50-hpcproxy"
BUILT = b"hpcproxy-spank-built-for:0x160508;"


@pytest.mark.parametrize(
    ("shown", "hooked", "said"),
    [
        ("Epilog = /etc/slurm/epilog.d/50-hpcproxy", True, "says Epilog=/etc/slurm/epilog.d/50-hpcproxy; take that"),
        ("Epilog = /etc/slurm/epilog.d/50-hpcproxy", False, "says Epilog=/etc/slurm/epilog.d/50-hpcproxy; take that"),
        # With the only file that it matches gone it drains the node.
        ("Epilog = /etc/slurm/epilog.d/*", True, r"says Epilog=/etc/slurm/epilog.d/\*; take that"),
        ("Epilog = /etc/slurm/epilog.d/*", False, ""),
        ("Epilog = /site/epilog", True, ""),
        (None, True, r"the hooks on c\[1-4\] cannot be known, so they stay"),
        (None, False, ""),
        # NixOS/nixpkgs#447698: somewhere else than beside slurm.conf.
        ("PlugStackConfig = /nix/store/x/plugstack.conf", False, "PlugStackConfig=/nix/store/x/plugstack.conf, and"),
        ("SLURM_VERSION = 23.02.1", False, "the SPANK plugin: it is built for Slurm 22.05.8, and 23.02.1 runs"),
    ],
)
def test_the_plugin_takes_no_hook_away_that_slurm_would_miss(
    shown: str | None, hooked: bool, said: str, tmp_path: Path
) -> None:
    class Answers(_Answers):
        def ask(self, messages: dict[str, bytes], on_host: OnHost = unheard) -> Outcomes:
            replies = super().ask(messages, on_host)
            if not hooked or all(HOOK.encode() not in message for message in messages.values()):
                for reply in replies.hosts:
                    on_host(reply)
                return replies
            answer = Answer("unchanged", contents={HOOK: b"ours"})
            return Outcomes(tuple(judge(host, answer) for host in messages))

    (tmp_path / "plugin.so").write_bytes(BUILT)
    run = _run(tmp_path, f"via: spank\nspank_plugin: {tmp_path}/plugin.so\n")
    output = None if shown is None else f"SLURM_VERSION = 22.05.8\n{shown}\n".encode()
    if shown is not None and shown.startswith("SLURM_VERSION"):
        output = shown.encode()
    run = replace(run, fleet=cast("Fleet", Answers(output)))
    if said:
        with pytest.raises(UsageError, match=said):
            verbs.check_before(run)
    else:
        done = verbs.roll_out(run, verbs.check_before(run), lambda _outcome: None)
        assert [host.host for host in done.hosts] == ["c1", "c2", "c3", "c4"]


@pytest.mark.parametrize(("limit", "asked"), [(None, {"c1", "c2", "c3", "c4", "ctl"}), ("c2", {"c2"})])
def test_a_limited_undeploy_leaves_the_controllers_line(limit: str | None, asked: set[str], tmp_path: Path) -> None:
    """Nodes without a slurm.conf of their own have their plugstack.conf from there."""
    heard: set[str] = set()

    class Answers(_Answers):
        def ask(self, messages: dict[str, bytes], on_host: OnHost = unheard) -> Outcomes:
            heard.update(messages)
            replies = super().ask(messages, on_host)
            for reply in replies.hosts:
                on_host(reply)
            return replies

    (tmp_path / "plugin.so").write_bytes(BUILT)
    run = _run(tmp_path, f"controllers: ctl\nvia: spank\nspank_plugin: {tmp_path}/plugin.so\n", limit)
    verbs.undeploy(replace(run, fleet=cast("Fleet", Answers(b""))), lambda _outcome: None)
    assert heard == asked


def _run(directory: Path, more: str = "", limit: str | None = None) -> Run:
    identity = make_key(directory / "id")
    told = f"identity: {identity}\nknown_hosts: {directory}/known\n"
    (directory / "site.yaml").write_text(TOLD + told + more)
    (directory / "known").write_text(f"j {identity.with_suffix('.pub').read_text()}")
    return start(Request(directory / "site.yaml", limit))


@pytest.mark.parametrize("said", ["[/]", "[/x] gone", "[root@c1 ~]# ", "[bold]", ":warning: full"])
def test_what_a_host_said_is_shown_as_it_is(said: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Brackets and colons are no markup: a prompt would vanish, a closing tag end the program after its work."""
    shown = table("outcome", "cause")
    shown.add_row("failed", said)
    console().print(shown)
    assert f"failed   {said}" in capsys.readouterr().out

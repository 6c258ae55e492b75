"""The admin's verbs as wholes, against a fleet that only answers: what is asked, how often, and what is said when."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest

from hpcproxy.cluster import verbs
from hpcproxy.cluster.fan_out import Fleet
from hpcproxy.cluster.outcome import OnHost, Outcomes, judge, unheard
from hpcproxy.cluster.protocol import Answer, Change
from hpcproxy.cluster.run import Request, Run, read_site
from hpcproxy.errors import Reason
from tests.cluster.host import TOKEN

RUNNING = b"Prolog = /site/prolog\nSLURM_VERSION = 22.05.8\nSlurmctldHost[0] = c1\n"


class Answering:
    """A fleet of which `away` is away and all others answer `word`; `asked` has what each message was about.

    How Slurm runs is what they say, but for those in `mute`.
    """

    def __init__(self, word: str = "would", away: str = "c2", mute: str = "") -> None:
        self.token, self.word, self.away, self.mute = TOKEN, word, away, mute
        self.asked: list[str] = []
        self.shows: list[bool] = []  # of each message about our files, whether their content is asked for

    def ask(self, messages: dict[str, bytes], on_host: OnHost = unheard) -> Outcomes:
        self.asked += [_about(message) for message in messages.values()]
        said = [re.search(rb"^want_content=(.*)$", message, re.MULTILINE) for message in messages.values()]
        self.shows += [line[1] not in (b"", b"''") for line in said if line]
        outcomes = Outcomes(
            tuple(
                judge(host, None if host == self.away else self._answer(host), Reason("route", "no route to host"))
                for host in messages
            )
        )
        for outcome in outcomes.hosts:
            on_host(outcome)
        return outcomes

    def _answer(self, host: str) -> Answer:
        contents = {} if host == self.mute else {"output": RUNNING}
        return Answer(self.word, "", (Change("create", "/etc/hpcproxy/known_hosts"),), contents=contents)


def _about(message: bytes) -> str:
    if re.search(rb"^action=apply$", message, re.MULTILINE):
        return "apply"
    if re.search(rb"\bshow\s+config\b", message):
        return "show config"
    return "contract" if b"controllers_own" in message else "other"


class Spoken:
    """A screen that keeps what is shown, in order."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def watch(self, title: str, body: verbs.Body) -> Outcomes:
        self.lines.append(f"[{title}]")
        return body(unheard)

    def differences(self, outcomes: Outcomes) -> None:
        self.lines.append(f"differences of {len(outcomes.hosts)}")

    def findings(self, outcomes: Outcomes) -> None:
        self.lines.append(f"findings of {len(outcomes.hosts)}")

    def say(self, line: str) -> None:
        self.lines.append(line)


def _run(directory: Path, fleet: Answering) -> Run:
    (directory / "site.yaml").write_text("nodes: c[1-2]\ncontrollers: c1\nsettings: {jump: j}\n")
    (directory / "known_hosts").write_text("j ssh-ed25519 AAAA\n")
    request = Request(directory / "site.yaml")
    return Run(read_site(request), request, cast("Fleet", fleet))


@pytest.mark.parametrize("with_contract", [False, True])
def test_verify_asks_once_how_slurm_runs(tmp_path: Path, with_contract: bool) -> None:
    fleet, screen = Answering(), Spoken()
    outcomes = verbs.verify(_run(tmp_path, fleet), screen, with_contract=with_contract)
    assert not outcomes.as_wanted
    assert fleet.asked.count("show config") == 1
    assert any(line.startswith("c2: cannot be reached") for line in screen.lines)  # one of those who need to know
    assert fleet.asked.count("contract") == with_contract


def test_a_dry_run_with_diff_only_looks(tmp_path: Path) -> None:
    fleet, screen = Answering(), Spoken()
    seen = verbs.deploy(_run(tmp_path, fleet), verbs.Wish(dry_run=True, diff=True), screen)
    assert [host.word for host in seen.hosts] == ["would", "unreached"]
    assert screen.lines == ["[look]", "differences of 2"]
    assert fleet.asked == ["other", "other"]


def test_what_is_in_files_is_asked_for_where_differences_are_to_be_shown_and_nowhere_else(tmp_path: Path) -> None:
    for wish, shown in (
        (verbs.Wish(), [False] * 2),
        (verbs.Wish(dry_run=True), [False] * 2),
        (verbs.Wish(diff=True), [True] * 2 + [False] * 2),
    ):
        fleet = Answering()
        verbs.deploy(_run(tmp_path, fleet), wish, Spoken())
        assert fleet.shows == shown
    fleet = Answering()
    verbs.verify(_run(tmp_path, fleet), Spoken())
    assert fleet.shows == [False] * 2


def test_nothing_is_enabled_where_a_host_is_not_right(tmp_path: Path) -> None:
    fleet, screen = Answering(), Spoken()
    verbs.deploy(_run(tmp_path, fleet), verbs.Wish(enable=True), screen)
    assert "[enable]" not in screen.lines


@pytest.mark.parametrize("word", ["changed", "unchanged"])
def test_enable_says_what_this_slurm_cannot_do(word: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """P6: nobody would ever have a tunnel; and what else is to be known, once."""
    running = b"SLURM_VERSION = 20.11.4\nSlurmctldHost[0] = c1\nPrologFlags = RunInJob\n"
    monkeypatch.setattr(f"{__name__}.RUNNING", running)
    monkeypatch.setattr(verbs, "check_enable", lambda _: None)
    monkeypatch.setattr(verbs, "enable", lambda run, hear: run.act("look", run.site.hosts, hear))
    fleet, screen = Answering(word, away=""), Spoken()
    run = _run(tmp_path, fleet)
    policy = run.site.inventory.policy.model_copy(update={"comment": True})
    told = run.site.inventory.model_copy(update={"policy": policy})
    verbs.deploy(replace(run, site=replace(run.site, inventory=told)), verbs.Wish(enable=True), screen)
    behind = screen.lines[screen.lines.index("[enable]") :]
    assert any(line.startswith("policy: comment gives no job a tunnel") for line in behind)
    assert any(line.startswith("PrologFlags has RunInJob") for line in behind) is (word == "changed")


def _deployed(directory: Path, fleet: Answering) -> list[str]:
    """The lines that slurm.conf lacks, as a deploy without --enable says them."""
    screen = Spoken()
    assert verbs.deploy(_run(directory, fleet), verbs.Wish(), screen).good
    return [line for line in screen.lines if line.startswith(("slurm.conf", "how Slurm", "    "))]


def test_deploy_asks_once_how_slurm_runs(tmp_path: Path) -> None:
    fleet = Answering("changed", away="")
    told = _deployed(tmp_path, fleet)
    assert fleet.asked.count("show config") == 1
    assert told[0].startswith("slurm.conf lacks these lines")


def test_deploy_asks_the_controller_where_the_first_host_does_not_know(tmp_path: Path) -> None:
    fleet = Answering("changed", away="", mute="c1")
    (tmp_path / "here").mkdir()
    told = _deployed(tmp_path / "here", fleet)
    assert fleet.asked.count("show config") == 2
    assert told[0].startswith("how Slurm runs cannot be known")
    fleet = Answering("changed", away="", mute="c1")
    run = _run(tmp_path, fleet)
    told_of = run.site.inventory.model_copy(update={"controllers": "ctl"})
    screen = Spoken()
    verbs.deploy(replace(run, site=replace(run.site, inventory=told_of)), verbs.Wish(), screen)
    assert fleet.asked.count("show config") == 2
    assert any(line.startswith("slurm.conf lacks these lines") for line in screen.lines)

"""What an admin's verbs make of what hosts answered, without hosts: when they go on, whom they ask, what they say."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from hpcproxy.cluster import enable, slurm_conf, verbs
from hpcproxy.cluster.outcome import HostOutcome, Outcomes
from hpcproxy.cluster.protocol import Answer, Change
from hpcproxy.cluster.run import Request, Run, enablement_of, read_site

IN_FORCE = "slurmctld does not say"


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """On four nodes; nobody is there to be asked."""
    (tmp_path / "site.yaml").write_text("nodes: c[1-4]\ncontrollers: ctl\nsettings: {jump: j}\n")
    (tmp_path / "known_hosts").write_text("j ssh-ed25519 AAAA\n")
    request = Request(tmp_path / "site.yaml")
    return Run(read_site(request), request, cast("Any", None))


def _outcomes(**words: str) -> Outcomes:
    return Outcomes(tuple(HostOutcome(host, word, "why") for host, word in words.items()))


def _silent(_outcome: HostOutcome) -> None:
    return None


def _ask(run: Run) -> verbs.Ask:
    return lambda: enablement_of(run).running(run.asked)


@pytest.mark.parametrize(
    ("applied", "looked", "goes_on"),
    [
        ("changed", "unchanged", True),
        ("unchanged", "unchanged", True),
        ("failed", "unchanged", False),
        ("unreached", "unchanged", False),
        ("changed", "would", False),
        ("changed", "failed", False),
    ],
)
def test_the_rest_follows_only_first_hosts_that_are_right(
    applied: str, looked: str, goes_on: bool, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, str]] = []

    def act(_run: Run, action: str, hosts: tuple[str, ...], _hear: object, **_told: object) -> Outcomes:
        asked.append((action, ",".join(hosts)))
        return _outcomes(**dict.fromkeys(hosts, looked if action == "look" else applied))

    monkeypatch.setattr(Run, "act", act)
    done = verbs.roll_out(run, verbs.Before(), _silent, canary=1)
    assert asked == [("apply", "c1"), ("look", "c1"), *([("apply", "c2,c3,c4")] if goes_on else [])]
    rest = {host.word for host in done.hosts if host.host != "c1"}
    assert rest == ({applied} if goes_on else {"skipped"})


@pytest.fixture
def running(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Slurm's configuration, whoever asks; who asked is written down."""
    asked: list[str] = []

    def running(_switch: object, host: str) -> str:
        asked.append(host)
        return IN_FORCE

    (kind,) = [each for each in vars(enable).values() if isinstance(each, type) and hasattr(each, "about_to_run")]
    monkeypatch.setattr(kind, "running", running)
    return asked


def test_what_becomes_of_the_next_job_is_asked_only_where_a_host_is_not_right(run: Run, running: list[str]) -> None:
    assert verbs.prospects(run, _outcomes(c1="unchanged", c2="failed"), _ask(run)) == []
    assert running == []
    lacks = HostOutcome("c3", "would", "", Answer("would", "", (Change("create", "/x"),), {}, {"conf": "own"}))
    (line,) = verbs.prospects(run, Outcomes((HostOutcome("c1", "unchanged"), lacks)), _ask(run))
    assert line.startswith("c3: ")
    assert IN_FORCE in line
    assert verbs.prospects(run, _outcomes(c4="unreached"), _ask(run)) != []
    assert len(running) == 2


def test_the_contract_is_tried_where_our_files_are(
    run: Run, running: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def ask(*told: Any, **_more: Any) -> Outcomes:
        (hosts,) = [each for each in told if isinstance(each, tuple) and all(isinstance(one, str) for one in each)]
        asked.extend(hosts)
        return _outcomes(**dict.fromkeys(hosts, "unchanged"))

    monkeypatch.setattr(verbs, "_contract", ask)
    seen = _outcomes(c1="unchanged", c2="would", c3="failed", c4="unreached")
    verbs.check_contract(run, seen, _silent, _ask(run))
    assert asked == ["c1", "c2"]


def test_what_this_slurm_cannot_do_is_told_where_somebody_can_be_asked(
    run: Run, monkeypatch: pytest.MonkeyPatch, running: list[str]
) -> None:
    assert verbs.limits(run, _ask(run)) == [], "nobody can say"
    told = slurm_conf.parse("SLURM_VERSION = 20.11.9\n")
    (kind,) = [each for each in vars(enable).values() if isinstance(each, type) and hasattr(each, "about_to_run")]
    monkeypatch.setattr(kind, "running", lambda _switch, _host: told)
    monkeypatch.setattr(slurm_conf, "limits", lambda found, _inventory: [f"asked of {found is told}"])
    assert verbs.limits(run, _ask(run)) == ["asked of True"]
    site = replace(run.site, inventory=run.site.inventory.model_copy(update={"controllers": None}))
    assert verbs.limits(replace(run, site=site), _ask(run)) == []

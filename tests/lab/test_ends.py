"""However a job ends, its processes were out until then, and nothing of ours outlives it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from hpcproxy.lab import Lab

from . import mixed, soak
from .ending_acts import SLEEP
from .ending_cases import CASES
from .endings import (
    AT_ONCE,
    BY_AGENT,
    KILL_WAIT_S,
    PLAIN,
    SSH,
    Case,
    Run,
    Runs,
    Way,
    add_partitions,
    hold_to_page,
    play_all,
    spec,
    wanted,
)
from .researcher import FETCH, Researcher, until
from .watch import Watch

pytestmark = pytest.mark.lab
PAIRS = [(case, way) for case in CASES for way in case.ways if way in (BY_AGENT, SSH)]
IDS = [f"{case.name}, {way.name}" for case, way in PAIRS]


@pytest.fixture(scope="module")
def ends(lab_host: None) -> Iterator[Lab]:
    """A lab for jobs that end; alice has the agent, bob has `agent: false`. Afterwards nothing is left on any node."""
    described = spec("ends")
    try:
        lab = Lab.up(described)
        add_partitions(lab)
        users = {way: Researcher(lab, way.user) for way in (BY_AGENT, SSH)}
        for way, user in users.items():
            user.agent = way.agent
            user.set_up(ready_timeout_s=120)  # many jobs begin at once, on few cores
        yield lab
        for user in users.values():
            until(lambda user=user: not user.traces(), f"nothing is left: {user.traces()}")
            assert not [line for _, name, line in lab.processes("login") if name == user.user]
        assert lab.drained() == []
    finally:
        Lab.remove(described.name)


@pytest.fixture(scope="module")
def watch(ends: Lab) -> Iterator[Watch]:
    with Watch(ends) as watch:
        yield watch


@pytest.fixture(scope="module")
def runs(ends: Lab, watch: Watch, request: pytest.FixtureRequest) -> Iterator[Runs]:
    """All cases that were asked for, played at the same time."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        yield play_all(wanted(request, PAIRS), ends, watch, pool)


@pytest.mark.parametrize("pair", PAIRS, ids=IDS)
def test_it_ends(pair: tuple[Case, Way], runs: Runs) -> None:
    # What was wrong in it is raised here; what it looked like is shown where that is.
    print(" | ".join(runs[pair[0].name, pair[1].name].result().row()))


@pytest.mark.parametrize(
    "pair", [PAIRS[IDS.index(f"scancel, {way.name}")] for way in (BY_AGENT, SSH)], ids=["agent", "ssh"]
)
def test_alone_it_does_not_lengthen_the_end(pair: tuple[Case, Way], runs: Runs, ends: Lab, watch: Watch) -> None:
    run = runs[pair[0].name, pair[1].name].result()
    plain = Run(replace(pair[0], body=SLEEP.replace(FETCH, "true"), output=("up", "up")), PLAIN, ends, watch)
    plain.play()
    longer_s = watch.of(run.job).completing_s - watch.of(plain.job).completing_s
    assert longer_s < (KILL_WAIT_S - 2) / 2, "it has not stayed until KillWait is nearly over"


def test_the_page_has_the_table(runs: Runs) -> None:
    hold_to_page("hook", PAIRS, runs)


def test_jobs_whose_fate_is_chance(ends: Lab, watch: Watch) -> None:
    seed = mixed.seed()
    played = mixed.play(ends, watch, seed, float(os.environ.get("MIXED_SECONDS", "25")))
    print(f"seed {seed}: {played}")
    assert sum(played.kinds.values()) > 0, "no job was played at all"


def test_a_dozen_jobs_in_a_row_leave_nothing(ends: Lab, watch: Watch) -> None:
    soak.run(ends, 4)
    before = soak.look(ends)
    soak.run(ends, 12)
    until(lambda: not soak.difference(before, soak.look(ends)), f"left: {soak.difference(before, soak.look(ends))}")

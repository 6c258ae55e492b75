"""However a job ends, its processes were out until then, and nothing of ours outlives it."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from hpcproxy.lab import Lab

from .ending_cases import CASES
from .endings import GATE, SSH, Case, Run, Way, add_partitions, spec
from .researcher import Researcher
from .watch import Watch

pytestmark = pytest.mark.lab
AT_ONCE = 8
PAIRS = [(case, way) for case in CASES for way in case.ways if way in (GATE, SSH)]


@pytest.fixture(scope="module")
def ends(lab_host: None) -> Iterator[Lab]:
    """A lab for jobs that end; alice has the gate, bob has `gate: false`."""
    described = spec("ends")
    try:
        lab = Lab.up(described)
        add_partitions(lab)
        for way in (GATE, SSH):
            user = Researcher(lab, way.user)
            user.gate = way.gate
            user.set_up()
        yield lab
    finally:
        Lab.remove(described.name)


@pytest.fixture(scope="module")
def runs(ends: Lab, request: pytest.FixtureRequest) -> Iterator[dict[tuple[str, str], Future[Run]]]:
    """All cases that were asked for, played at the same time."""
    wanted = [
        item.callspec.params["pair"]
        for item in request.session.items
        if item.path == request.path and hasattr(item, "callspec")
    ]
    with Watch(ends) as watch, ThreadPoolExecutor(AT_ONCE) as pool:
        yield {(case.name, way.name): pool.submit(play, Run(case, way, ends, watch)) for case, way in wanted}


def play(run: Run) -> Run:
    run.play()
    return run


@pytest.mark.parametrize("pair", PAIRS, ids=[f"{case.name}, {way.name}" for case, way in PAIRS])
def test_it_ends(pair: tuple[Case, Way], runs: dict[tuple[str, str], Future[Run]]) -> None:
    case, way = pair
    run = runs[case.name, way.name].result()
    for job in run.jobs:
        sight = run.watch.of(job)
        again = "" if run.again_s is None else f", again {run.again_s:.2f}, failed {run.failed_requests}"
        print(f"job {job}: gone {sight.gone_s:.1f}, completing {sight.completing_s:.1f}{again}")

"""However a job ends on a cluster where the admin has deployed: the same, with nothing in the job script."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from hpcproxy.lab import Lab

from .admin import Admin
from .ending_cases import CASES
from .endings import AT_ONCE, SITE, Case, Runs, Way, add_partitions, hold_to_page, play_all, spec, wanted
from .researcher import until
from .watch import Watch

pytestmark = pytest.mark.lab
PAIRS = [(case, SITE) for case in CASES if SITE in case.ways]


@pytest.fixture(scope="module")
def ends(lab_host: None) -> Iterator[Lab]:
    """A lab on which it is deployed. Afterwards nothing is left on any node."""
    described = spec("ends-site")
    try:
        lab = Lab.up(described)
        admin = Admin(lab)
        admin.describe(task_wait_s=30)  # many jobs begin at once, on few cores
        assert admin.words("deploy", "--enable") == {"changed"}
        add_partitions(lab)  # reading slurm.conf anew forgets them
        yield lab
        until(lambda: not admin.traces(), f"nothing is left: {admin.traces()}")
        assert lab.drained() == []
    finally:
        Lab.remove(described.name)


@pytest.fixture(scope="module")
def runs(ends: Lab, request: pytest.FixtureRequest) -> Iterator[Runs]:
    """All cases that were asked for, played at the same time."""
    with Watch(ends) as watch, ThreadPoolExecutor(AT_ONCE) as pool:
        yield play_all(wanted(request, PAIRS), ends, watch, pool)


@pytest.mark.parametrize("pair", PAIRS, ids=[case.name for case, _ in PAIRS])
def test_it_ends(pair: tuple[Case, Way], runs: Runs) -> None:
    # What was wrong in it is raised here; what it looked like is shown where that is.
    print(" | ".join(runs[pair[0].name, pair[1].name].result().row()))


def test_the_page_has_the_table(runs: Runs) -> None:
    hold_to_page("site", PAIRS, runs)

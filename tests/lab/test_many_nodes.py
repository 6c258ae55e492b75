"""A job of many nodes: one of them logs in first, with a real srun that tells the others."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from hpcproxy.lab import Lab, LabSpec
from hpcproxy.lab.sshd import LOG

from .conftest import lab_name
from .researcher import FETCH, OUTER1, Researcher

pytestmark = pytest.mark.lab
OPTIONS = "#SBATCH -N6 --ntasks-per-node=1"


@pytest.fixture
def six(lab_host: None) -> Iterator[Researcher]:
    """Alice on a cluster of six nodes."""
    name = lab_name("six")
    try:
        researcher = Researcher(Lab.up(LabSpec(name=name, nodes=6, expose=(Path(__file__).parents[2],))))
        researcher.set_up(ready_timeout_s=120)
        yield researcher
    finally:
        Lab.remove(name)


def test_a_refused_key_is_refused_once(six: Researcher) -> None:
    """P7: six refusals at once would shut the cluster's address out for 30 s, for everybody (PerSourcePenalties)."""
    lab = six.lab
    body = f'echo "${{http_proxy-none}}"\nsrun {FETCH}\n'
    assert six.job(body, OPTIONS).output.splitlines()[1:] == [OUTER1] * 6
    keys, log = lab.path_on("jump1", "/home/alice/.ssh/authorized_keys"), lab.path_on("jump1", LOG)
    keys.write_text("")
    before = len(log.read_text())
    result = six.job('echo "${http_proxy-none}"\n', OPTIONS)
    said, none = result.output.splitlines()
    assert none == "none"
    assert said.startswith("hpcproxy: no tunnel: c1: key: ")
    refused = [line for line in log.read_text()[before:].splitlines() if "authenticating user alice" in line]
    assert len(refused) == 1

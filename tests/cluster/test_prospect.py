"""`verify` says of hosts that are not as they shall be which is which, and what becomes of their next job."""

from __future__ import annotations

import pytest

from hpcproxy.cluster import prospect, slurm_conf
from hpcproxy.cluster.inventory import parse
from hpcproxy.cluster.outcome import HostOutcome, Outcomes, judge
from hpcproxy.cluster.protocol import Answer, Change
from hpcproxy.files.render import render
from hpcproxy.openssh import reasons
from tests.cluster.cases import plan

TOLD = parse("case", "nodes: c[1-4]\nsettings: {jump: j}\n")
PATHS = [str(file.artifact.path) for file in render(plan()).files]
IN_FORCE = slurm_conf.parse("\n".join(slurm_conf.lines(TOLD)))


def empty(host: str, conf: str, paths: list[str] | None = None) -> HostOutcome:
    changes = tuple(Change("create", path) for path in (PATHS if paths is None else paths))
    return HostOutcome(host, "would", "", Answer("would", "", changes, {}, {"conf": conf}))


def test_a_stateless_node_a_reinstalled_one_and_one_that_is_down() -> None:
    outcomes = Outcomes(
        (
            HostOutcome("c1", "unchanged"),
            empty("c2", "none"),
            empty("c3", "own"),
            HostOutcome("c4", "unreached", "no answer within 30 s"),
            judge("c5", None, reasons.ANOTHER_KEY),
        )
    )
    stateless, again, down, stranger = prospect.tell(outcomes, IN_FORCE, TOLD)
    assert stateless.startswith(
        "c2: has none of the files, and its slurm.conf from the controller: its image lacks them"
    )
    assert stateless.endswith("its next job drains it and is requeued: Prolog=/etc/slurm/prolog.d/50-hpcproxy")
    assert again.startswith("c3: has none of the files, and a slurm.conf of its own")
    assert down.startswith("c4: cannot be reached: it is down")
    assert stranger.startswith("c5: has been installed anew, or is another machine")


@pytest.mark.parametrize(
    ("running", "fate"),
    [
        ("Prolog = (null)\n", "its next job runs without a tunnel"),
        ("TaskProlog = /usr/libexec/hpcproxy/taskprolog\n", "its next job fails: TaskProlog="),
        ("Epilog = /etc/slurm/epilog.d/50-hpcproxy\n", "its next job drains it when it ends: Epilog="),
        ("Prolog = /etc/slurm/prolog.d/*\n", "its next job drains it and is requeued if nothing else is there for"),
    ],
)
def test_what_becomes_of_the_next_job_depends_on_what_slurm_runs(running: str, fate: str) -> None:
    (line,) = prospect.tell(Outcomes((empty("c1", "own"),)), slurm_conf.parse(running), TOLD)
    assert fate in line


def test_where_slurm_does_not_say_nothing_is_claimed() -> None:
    (line,) = prospect.tell(Outcomes((empty("c1", "own"),)), "no answer within 10 s", TOLD)
    assert line.endswith("what its next job does is not known: no answer within 10 s")


def test_a_host_that_lacks_a_file_that_slurm_does_not_run() -> None:
    (line,) = prospect.tell(Outcomes((empty("c1", "own", ["/etc/profile.d/hpcproxy.sh"]),)), IN_FORCE, TOLD)
    assert line == "c1: lacks some of the files; its next job does not need them"

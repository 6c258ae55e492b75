"""Outages, each done for real to a job of its own: what the job saw, how soon it worked again, and that nothing stays.

All of them run at the same time, each on a node of its own, so that the file takes as long as the longest of them; what
concerns a whole jump host comes first, on the second one. The table of docs/outages.md is what this file saw.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import pytest

from hpcproxy.lab import Lab, LabSpec
from tests.waiting import until

from .conftest import REPOSITORY, lab_name
from .outages import (
    CUT,
    FILL_STATE,
    KILL_SSH,
    STOP_SSH,
    Fault,
    Story,
    Witnessed,
    in_the_manual,
    left_behind,
    play,
    restart_sshd,
)
from .researcher import FETCH, JUMP1, JUMP2, OUTER1, OUTER2, Researcher

pytestmark = pytest.mark.lab
# With the defaults a connection that hangs is given up after 15 s; until we read it in status.json a moment passes.
FOUND_S = 16.0
GIGABYTE = 1 << 30


@dataclass(frozen=True)
class Case:
    """A fault for so many seconds (None: for good), to a job with these jump hosts."""

    fault: Fault
    seconds: float | None = None
    jumps: tuple[str, ...] = (JUMP1,)
    agent: bool = True

    @property
    def name(self) -> str:
        """A row's name."""
        words = self.fault.name
        if self.fault is CUT:
            words += " for good, a second one there" if self.seconds is None else f" for {self.seconds:.0f} s"
        return words if self.agent else f"{words}, `agent: false`"


CASES = (
    Case(CUT, 5),
    Case(CUT, 30),
    Case(CUT, 120),
    Case(CUT, None, (JUMP1, JUMP2)),
    Case(KILL_SSH),
    Case(STOP_SSH),
    Case(FILL_STATE),
    Case(CUT, 30, agent=False),
    Case(CUT, None, (JUMP1, JUMP2), agent=False),
    Case(STOP_SSH, agent=False),
)
UPLOAD_NODE = f"c{len(CASES) + 1}"
RESTARTED = "the jump host started again (away for 3 s)"
STARTUPS = f"MaxStartups 1, {len(CASES) + 1} nodes at once"
PENALISED = "PerSourcePenalties for 10 s (a stand-in that says its words)"
UPLOADED = "1 GB uploaded while the jump host changes"
SMALL = "/tmp/small"


@pytest.fixture(scope="module")
def stage(lab_host: None) -> Iterator[Lab]:
    """A lab with a node for each case, whose jobs break nothing of one another's."""
    name = lab_name("outages")
    try:
        yield Lab.up(LabSpec(name=name, nodes=len(CASES) + 1, expose=(REPOSITORY,)))
    finally:
        Lab.remove(name)


@pytest.fixture(scope="module")
def alices(stage: Lab) -> dict[tuple[tuple[str, ...], bool], Researcher]:
    """alice, by jump hosts and agent: an installation of its own for each that is needed."""
    found: dict[tuple[tuple[str, ...], bool], Researcher] = {}
    for jumps, agent in [*((case.jumps, case.agent) for case in CASES), ((JUMP2,), True), ((JUMP2,), False)]:
        if (jumps, agent) not in found:
            alice = Researcher(stage, home=f".hpcproxy-{len(found)}")
            alice.agent = agent
            alice.set_up(*jumps, ready_timeout_s=120)
            found[jumps, agent] = alice
    return found


# ---- a whole jump host: the second, before anything else uses it


@pytest.mark.parametrize("agent", [True, False], ids=["agent", "no-agent"])
def test_the_jump_hosts_sshd_is_restarted(
    agent: bool, stage: Lab, alices: dict[tuple[tuple[str, ...], bool], Researcher], rows: dict[str, tuple[str, ...]]
) -> None:
    """With all its sessions, as when the machine is started again, and away for three seconds."""
    witnessed = Witnessed(alices[(JUMP2,), agent], "c1")
    story = play(witnessed, Fault("the jump host's sshd restarted", lambda _: restart_sshd(stage, "jump2")), 3)
    check(story, stage, "c1")
    if agent:  # held, all of them
        assert all(ask.good or ask.saw.startswith("curl 5") for ask in story.during), story.in_words
    rows[RESTARTED if agent else f"{RESTARTED}, `agent: false`"] = row(story)


def check(story: Story, lab: Lab, node: str) -> None:
    """The job ended well after it had answers again, and nothing of it stays."""
    assert story.result.state == "COMPLETED", story.result.output
    assert story.worked_again is not None
    until(lambda: not left_behind(lab, node), f"nothing is left: {left_behind(lab, node)}")
    assert lab.drained() == []


def row(story: Story) -> tuple[str, str, str]:
    found = "" if story.found_s is None else f"{story.found_s:.1f} s"
    return story.in_words, found, f"{story.again_s:.1f} s"


@pytest.fixture(scope="module")
def rows() -> dict[str, tuple[str, ...]]:
    """The table, as far as it is known: by name what was seen, when it was found, when it worked again."""
    return {}


def test_max_startups_of_one(
    stage: Lab, alices: dict[tuple[tuple[str, ...], bool], Researcher], rows: dict[str, tuple[str, ...]]
) -> None:
    """Every node of a job comes up through an sshd that bears one login at a time."""
    stage.sshd("jump2", {"MaxStartups": "1"})
    log = stage.path_on("jump2", "/var/log/sshd.log")
    before = log.read_text()
    count = len(CASES) + 1
    try:
        alice = alices[(JUMP2,), True]
        begun = time.monotonic()
        home = f"--export=ALL,HPCPROXY_HOME={alice.home}"
        result = alice.job(f"srun {FETCH}\n", f"#SBATCH -N{count} --ntasks-per-node=1 {home}")
        took = time.monotonic() - begun
    finally:
        stage.sshd("jump2")
    assert result.output.split() == [OUTER2] * count, result.output
    logged = log.read_text().removeprefix(before)
    refused = logged.count("past MaxStartups")
    seen = logged.count("Connection from ") + refused
    rows[STARTUPS] = (f"{seen} connections, {refused} refused", "", f"{took:.1f} s")


PENALTY = r"""
import socket, sys, time
server = socket.create_server(("0.0.0.0", 22))
server.settimeout(0.1)
count, end = 0, time.monotonic() + float(sys.argv[1])
while time.monotonic() < end:
    try:
        client, _ = server.accept()
    except socket.timeout:
        continue
    count += 1
    client.sendall(b"Not allowed at this time\r\n")
    client.close()
print(count)
"""


def test_a_penalty_is_met_with_patience(
    stage: Lab, alices: dict[tuple[tuple[str, ...], bool], Researcher], rows: dict[str, tuple[str, ...]]
) -> None:
    """What PerSourcePenalties says (OpenSSH 9.8, srclimit.c) to a running job's ssh; this machine's sshd has none."""
    witnessed = Witnessed(alices[(JUMP2,), True], "c1")
    said: list[str] = []

    def begin(_: object) -> object:
        stage.sshd_stop("jump2")
        command = ["python3", "-c", PENALTY, "10"]
        server = stage.popen("jump2", command, stdout=subprocess.PIPE)

        def end() -> None:
            said.append(server.communicate(timeout=60)[0])
            stage.sshd("jump2")

        return end

    story = play(witnessed, Fault("a penalty", begin), 10)  # type: ignore[arg-type]
    check(story, stage, "c1")
    rows[PENALISED] = (
        f"{story.in_words}; {said[0].strip()} connections",
        *row(story)[1:],
    )
    assert int(said[0]) <= 10, "it hammers"


# ---- one job at a time, all at the same time


@dataclass(frozen=True)
class Plays:
    """The cases under way."""

    stories: dict[str, Future[Story]]
    upload: Future[tuple[Story, list[str]]]


@pytest.fixture(scope="module")
def plays(stage: Lab, alices: dict[tuple[tuple[str, ...], bool], Researcher]) -> Iterator[Plays]:
    with ThreadPoolExecutor(len(CASES) + 1) as pool:
        stories = {}
        for number, case in enumerate(CASES, 1):
            settings = ""
            if case.fault is FILL_STATE:
                stage.run(f"c{number}", ["mkdir", "-m", "1777", SMALL], check=True)
                options = ["-t", "tmpfs", "-o", "size=64k,mode=1777", "none", SMALL]
                stage.run(f"c{number}", ["mount", *options], check=True)
                settings = f"TMPDIR={SMALL}"
            witnessed = Witnessed(alices[case.jumps, case.agent], f"c{number}", settings=settings)
            stories[case.name] = pool.submit(play, witnessed, case.fault, case.seconds)
        upload = pool.submit(upload_while_the_jump_host_changes, alices[(JUMP1, JUMP2), True])
        yield Plays(stories, upload)


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_an_outage(case: Case, plays: Plays, stage: Lab, rows: dict[str, tuple[str, ...]]) -> None:
    story = plays.stories[case.name].result()
    rows[case.name] = row(story)
    check(story, stage, f"c{CASES.index(case) + 1}")
    if case.seconds != 5 and case.fault in (CUT, STOP_SSH):
        assert story.found_s is not None
        assert story.found_s <= FOUND_S, "a connection that hangs is found in time"
    if case.jumps == (JUMP1, JUMP2):
        assert story.worked_again is not None
        before = next(ask.saw for ask in story.asks if ask.good)
        assert {before, story.worked_again.saw} == {OUTER1, OUTER2}
    if case.agent and case.fault in (KILL_SSH, FILL_STATE):
        # Held; only what the dying ssh had in its hands is cut off.
        assert {ask.saw for ask in story.during if not ask.good} <= {"curl 52", "curl 56"}, story.in_words


UPLOAD = f"""truncate -s {GIGABYTE} ~/upload
for number in 1 2; do
    touch ~/upload-$number
    curl -sS -T ~/upload http://internet.test/sink; echo "exit $?"
done
rm ~/upload*
"""


def upload_while_the_jump_host_changes(alice: Researcher) -> tuple[Story, list[str]]:
    """A job uploads a gigabyte, loses its jump host for good in the middle, and uploads another."""
    witnessed = Witnessed(alice, UPLOAD_NODE, body=UPLOAD)
    lab = alice.lab

    def under_way() -> bool:
        """The node has sent an eighth of the file."""
        if not lab.path_on("login", "/home/alice/upload-1").exists():
            return False
        devices = lab.run(UPLOAD_NODE, ["cat", "/proc/net/dev"]).stdout.splitlines()
        sent = next(line.split()[9] for line in devices if "eth0:" in line)
        return int(sent) > GIGABYTE // 8

    until(under_way, "the upload is under way", 60)
    story = play(witnessed, CUT, None)
    return story, [line for line in story.result.output.splitlines() if line]


def test_an_upload_while_the_jump_host_changes(plays: Plays, stage: Lab, rows: dict[str, tuple[str, ...]]) -> None:
    story, said = plays.upload.result()
    assert said[-2:] == [str(GIGABYTE), "exit 0"], story.result.output
    first = "it was served" if said[:2] == [str(GIGABYTE), "exit 0"] else f"curl {said[-3]}"
    rows[UPLOADED] = (f"{first}; the next gigabyte got there", *row(story)[1:])
    check(story, stage, UPLOAD_NODE)


def test_the_manual_has_the_table(rows: dict[str, tuple[str, ...]]) -> None:
    """With each of these tests in it, in whichever order they ran, and if only some of them were chosen."""
    head = ("what broke", "what the job's processes saw", "found after", "worked again after")
    names = [RESTARTED, f"{RESTARTED}, `agent: false`", STARTUPS, PENALISED, *(case.name for case in CASES), UPLOADED]
    assert set(rows) <= set(names)
    assert in_the_manual("outages", head, [(name, *rows.get(name, ("not run", "", ""))) for name in names])

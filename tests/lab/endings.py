"""How jobs end: a case is data, a run of it is watched from its first process to the last trace."""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass, field
from typing import Any

import pytest

from hpcproxy.lab import JobResult, Lab, LabSpec

from .conftest import REPOSITORY, lab_name
from .researcher import FETCH, OUTER1, Researcher
from .watch import Sight, Watch

Row = tuple[str, ...]
HEAD = ("case", "tunnel", "what had a tunnel until its end", "works again after", "gone after, s", "COMPLETING, s")
PAGE = REPOSITORY / "docs" / "endings.md"
WRITE = bool(os.environ.get("ENDINGS_TABLE"))  # set by `invoke endings-table`
Runs = dict[tuple[str, str], "Future[Run]"]
GONE_S = 5.0
AT_ONCE = 3 if WRITE else 8  # what is measured for the page is not to wait for other cases
KILL_WAIT_S = 8
CRED_EXPIRE_S = 5
MAIN = "main Nodes=ALL Default=YES MaxTime=INFINITE State=UP OverSubscribe=NO PriorityTier=20"
# Of Slurm's own voice in a job's output: what it says when it ends something.
# slurmstepd's too where it names itself by the moment (from 26.05 on).
SLURMS_VOICE = re.compile(r"(slurmstepd\S*|srun|salloc): |\[[-0-9]+T[0-9:.]+\] error: ")
# Slurm asks for the end of a job with time limit each 30 s, whatever the limit is.
TWO_NODES = "-N2 --ntasks-per-node=1 --exclude=c4"
UP = "echo up\n"
WAIT = "until [ -e ~/go.$SLURM_JOB_ID ]; do sleep 0.1; done\n"
# On every node: one request after the other, each with its beginning and its answer, for as long as the test wants.
REQUESTS = f"""cat >~/ask.$SLURM_JOB_ID <<'SCRIPT'
until [ -e ~/go.$SLURM_JOB_ID ]; do
    began=$(date +%s.%N)
    answer=$({FETCH} 2>&1 | tr '\\n' ' ')
    echo "$began $(date +%s.%N) $answer" >>~/seen.$SLURM_JOB_ID.$SLURMD_NODENAME
    sleep 0.05
done
{FETCH}
SCRIPT
{UP}srun bash ~/ask.$SLURM_JOB_ID
"""


def spec(purpose: str, **slurm_conf: str) -> LabSpec:
    """Four nodes with room for many jobs; c4 is for cases that break a node's own services."""
    conf = {
        "KillWait": str(KILL_WAIT_S),
        "AuthInfo": f"cred_expire={CRED_EXPIRE_S}",  # a requeued job waits that long, by default two minutes
        "SchedulerParameters": "batch_sched_delay=0,sched_interval=2,bf_interval=2",
        "PreemptType": "preempt/partition_prio",
        "PreemptMode": "REQUEUE",
        "JobAcctGatherType": "jobacct_gather/linux",
        "JobAcctGatherFrequency": "task=1",
        "JobAcctGatherParams": "OverMemoryKill",
        "SlurmdDebug": "debug",  # says when it comes to an Epilog
        "PartitionName": MAIN,
        **slurm_conf,
    }
    return LabSpec(
        name=lab_name(purpose),
        nodes=4,
        cpus=64,
        memory_mb=64000,
        node_sshd=True,
        expose=(REPOSITORY,),
        slurm_conf=conf,
    )


def add_partitions(lab: Lab) -> None:
    """A job in `urgent` takes what one in `low` has, and nothing of those in the partition that all others use."""
    low = ["PartitionName=low", "Nodes=ALL", "PriorityTier=1", "PreemptMode=REQUEUE", "State=UP"]
    lab.run("ctl", ["scontrol", "create", *low], check=True)
    lab.run("ctl", ["scontrol", "create", "PartitionName=urgent", "Nodes=ALL", "PriorityTier=10"], check=True)


@dataclass(frozen=True)
class Way:
    """How jobs get their tunnel: by the hook of `user`, with the agent or not, or from the Prolog."""

    name: str
    user: str
    agent: bool = True
    hook: bool = True


BY_AGENT = Way("agent", "alice")
SSH = Way("ssh", "bob", agent=False)
SITE = Way("site", "alice", hook=False)
PLAIN = Way("plain", "alice", hook=False)  # without any tunnel, to compare with


WORDS = {BY_AGENT: "agent", SSH: "ssh alone", SITE: "by the Prolog"}


@dataclass(frozen=True)
class Case:
    """A way to end. `act` is done to the job when it has said that it is up; `play` replaces the whole story."""

    name: str
    saw: str
    body: str = ""
    options: str = TWO_NODES
    act: Callable[[Run], None] | None = None
    state: str = "COMPLETED"
    exit_code: int | None = 0  # None: which one is chance, for the shell and its srun are signalled at once
    output: tuple[str, ...] = ()
    play: Callable[[Run], None] | None = None
    ways: tuple[Way, ...] = (BY_AGENT, SSH)
    ups: int = 1  # how many processes say that they are up
    gone_s: float = GONE_S


@dataclass
class Run:
    """One case in one way, as it goes; afterwards what is to be said of it."""

    case: Case
    way: Way
    lab: Lab
    watch: Watch
    job: int = 0
    jobs: list[int] = field(default_factory=list)  # all that the case has had
    again_s: float | None = None
    failed_requests: int = 0
    result: JobResult | None = None

    def play(self) -> None:
        """The case has been played, and what was seen is as it says."""
        (self.case.play or Run.ordinary)(self)

    def ordinary(self) -> None:
        """A job is submitted, something is done to it, it ends."""
        self.submit(self.case.body, self.case.options)
        self.up()
        if self.case.act is not None:
            self.case.act(self)
        self.over()
        self.check()

    def row(self) -> Row:
        """What is to be said of it."""
        sights = [self.watch.of(job) for job in self.jobs]
        gone_s, completing_s = max(sight.gone_s for sight in sights), max(sight.completing_s for sight in sights)
        again = "" if self.again_s is None else f"{self.again_s:.1f} s, {self.failed_requests} requests failed"
        return (self.case.name, WORDS[self.way], self.case.saw, again, f"{gone_s:.1f}", f"{completing_s:.1f}")

    # ---- the job

    def submit(self, body: str, options: str, way: Way | None = None) -> int:
        """A job of the run's way is queued."""
        way = way or self.way
        lines = "".join(f"#SBATCH {line}\n" for line in options.splitlines())
        if way.hook:
            job = Researcher(self.lab, way.user).submit(body, lines.rstrip("\n"))
        else:
            job = self.lab.submit(f"#!/bin/bash\n{lines}{body}", way.user)
        self.job = job
        self.jobs.append(job)
        return job

    def output(self, job: int = 0) -> str:
        """What the job has written so far."""
        path = self.lab.path_on("login", f"/home/{self.way.user}/slurm-{job or self.job}.out")
        return path.read_text(errors="replace") if path.exists() else ""

    def up(self, job: int = 0) -> None:
        """The job has said `up`."""
        job = job or self.job
        self.watch.until(
            lambda: self.output(job).splitlines().count("up") >= self.case.ups,
            lambda: f"job {job} is up; it said {self.output(job)!r}",
            60,
        )

    def over(self, files_may_stay: bool = False) -> Sight:
        """The job has ended, nothing is left of it (or nothing but files), and what it and the test said is gone."""
        sight = self.watch.until_over(self.job, files_may_stay)
        self.result = self.lab.wait_job(self.job)
        self.forget()
        return sight

    def forget(self) -> None:
        """The files that talk between job and test are gone."""
        names = [f"{name}.{job}" for job in self.jobs for name in ("go", "ask")]
        seen = [f"seen.{job}.{node}" for job in self.jobs for node in self.lab.nodes]
        self.lab.run("login", ["rm", "-f", *names, *seen], self.way.user, check=True)

    def check(self) -> None:
        """State, exit code and output are those of the case, nothing of ours is in the output, and it went in time."""
        result = self.result
        assert result is not None
        assert result.state == self.case.state, f"{result.state} {result.exit_code}: {result.output}"
        assert self.case.exit_code in (None, result.exit_code), f"{result.exit_code}: {result.output}"
        own = [line for line in result.output.splitlines() if not SLURMS_VOICE.match(line)]
        assert sorted(own) == sorted(self.case.output), result.output
        self.check_silence(result)
        self.check_gone()

    def check_silence(self, result: JobResult) -> None:
        """Nothing of ours is in the output, nor what Slurm says of a step of ours."""
        assert "hpcproxy" not in result.output
        if self.way.hook:
            assert f" {result.job_id}.0 " not in result.output, "Slurm speaks of our step"

    def check_gone(self, *jobs: int) -> None:
        """Everything of ours was gone in time."""
        assert any(self.watch.of(job).ever for job in self.jobs) or self.way is PLAIN, "there was a tunnel at all"
        for job in jobs or self.jobs:
            outlived_s = self.watch.outlived_s(job)
            said = f"job {job}: {outlived_s:.1f} s; {sorted(self.watch.of(job).outlived)}"
            assert outlived_s <= self.case.gone_s, said

    def abandon(self) -> None:
        """After a failure: no job of the case is left."""
        for job in {*self.jobs, self.job} - {0}:
            self.lab.run("ctl", ["scancel", str(job)])
        self.forget()

    # ---- what is done to it

    def ctl(self, *argv: str) -> None:
        """Root on the controller has run `argv`."""
        self.lab.run("ctl", argv, check=True)

    def scancel(self, *options: str) -> None:
        """The job's user has run scancel."""
        self.lab.run("login", ["scancel", *options, str(self.job)], self.way.user, check=True)

    def go(self, job: int = 0) -> None:
        """The job may go on."""
        self.lab.run("login", ["touch", f"go.{job or self.job}"], self.way.user, check=True)

    def our_pids(self, pattern: str, node: str) -> list[int]:
        """Processes of ours on `node`, pids inside."""
        found = [re.match(rf"{node}: process (\d+) (.*)", text) for text in self.watch.of(self.job).ours]
        return [int(match[1]) for match in found if match is not None and re.search(pattern, match[2])]

    def kill(self, pids: list[int], node: str) -> None:
        """SIGKILL has been sent to each."""
        assert pids, "there is something to kill"
        self.lab.run(node, ["kill", f"-{signal.SIGKILL.value}", *map(str, pids)])

    # ---- what its processes saw

    def cancel_our_step(self) -> None:
        """The user has cancelled the step of the job's supervisors."""
        (step,) = self.watch.until(self._our_steps, "its supervisors have a step")
        # Its exit code says nothing: it ends the step on the nodes, and slurmctld may then know of none by that number.
        self.lab.run("login", ["scancel", step], self.way.user)
        self.watch.until(lambda: step not in self._our_steps(), f"{step} is over")

    def _our_steps(self) -> list[str]:
        """As Slurm calls it; a second one, if the first could not be made on a busy machine."""
        argv = ["squeue", "-s", "-h", "-j", str(self.job), "-o", "%i %j"]
        lines = self.lab.run("login", argv, self.way.user, check=True).stdout.splitlines()
        return [line.split()[0] for line in lines if line.endswith(" hpcproxy")]

    def lines(self, node: str) -> list[str]:
        """What was written down of each request on `node`."""
        path = self.lab.path_on("login", f"/home/{self.way.user}/seen.{self.job}.{node}")
        return [line.rstrip() for line in path.read_text().splitlines()] if path.exists() else []

    def seen(self, node: str) -> list[tuple[float, float, bool]]:
        """When each request on `node` began and ended, and whether it was answered."""
        rows = [line.split() for line in self.lines(node)]
        return [(float(row[0]), float(row[1]), row[2:] == [OUTER1]) for row in rows if len(row) > 1]

    def answered(self, node: str) -> bool:
        """A request on `node` was answered."""
        return any(good for _, _, good in self.seen(node))

    def await_again(self, node: str, since: float, deadline_s: float = 60) -> None:
        """A request on `node` that began after `since` (time.time()) was answered; how long that took is kept."""

        def first() -> float:
            return next((ended for began, ended, good in self.seen(node) if good and began > since), 0.0)

        ended = self.watch.until(first, lambda: f"a request works again: {self.seen(node)[-3:]}", deadline_s)
        self.failed_requests = [good for began, _, good in self.seen(node) if began > since].count(False)
        self.again_s = max(self.again_s or 0.0, ended - since)

    def node(self, number: int) -> str:
        """The name of a node of the job's."""
        nodes = self.lab.run("ctl", ["scontrol", "show", "hostnames", self.lab.job_fields(self.job)["NodeList"]])
        return nodes.stdout.split()[number]


def play_all(wanted: Iterable[tuple[Case, Way]], lab: Lab, watch: Watch, pool: Executor) -> Runs:
    """All of `wanted` are played, as many at once as the pool has threads."""

    def play(case: Case, way: Way) -> Run:
        run = Run(case, way, lab, watch)
        try:
            run.play()
        except BaseException:
            run.abandon()
            raise
        return run

    return {(case.name, way.name): pool.submit(play, case, way) for case, way in wanted}


def hold_to_page(name: str, pairs: Sequence[tuple[Case, Way]], runs: Runs) -> None:
    """The page's table `name` has the cases that were played, in order; with WRITE it is made of what was seen."""
    before, begin, rest = PAGE.read_text().partition(f"<!-- {name}: written by `invoke endings-table` -->\n")
    table, end, after = rest.partition(f"<!-- {name}: end -->")
    assert begin, f"{PAGE} has no table {name}"
    assert end, f"{PAGE}: the table {name} has no end"
    if WRITE:
        lines = [HEAD, ("---",) * len(HEAD), *(_row(runs, case, way) for case, way in pairs)]
        text = "".join(f"| {' | '.join(row)} |\n" for row in lines)
        PAGE.write_text(f"{before}{begin}{text}{end}{after}")
        return
    shown = [tuple(cell.strip() for cell in line.split("|")[1:3]) for line in table.splitlines()[2:]]
    assert shown == [(case.name, WORDS[way]) for case, way in pairs]


def _row(runs: Runs, case: Case, way: Way) -> Row:
    run = runs[case.name, way.name]
    return run.result().row() if run.exception() is None else (case.name, WORDS[way], "fails", "", "", "")


def wanted(request: pytest.FixtureRequest, pairs: Sequence[tuple[Case, Way]]) -> Sequence[tuple[Case, Way]]:
    """Of `pairs` those that this run of pytest was asked for; all if it was asked for the page's table."""
    items = [item for item in request.session.items if item.path == request.path and isinstance(item, pytest.Function)]
    if any(item.name == "test_the_page_has_the_table" for item in items):
        return pairs
    chosen = [item.callspec.params.get("pair") for item in items if hasattr(item, "callspec")]
    return [pair for pair in pairs if pair in chosen]


def broken(pattern: str, children_only: bool = False) -> Callable[[Run], None]:
    """On the job's second node SIGKILL ends what of ours matches, or of that only those whose parent matches, too;
    requests work again, then the job may go on."""

    def parent(node: str, pid: int, run: Run) -> int:
        return int(run.lab.run(node, ["ps", "-o", "ppid=", "-p", str(pid)], check=True).stdout)

    def act(run: Run) -> None:
        node = run.node(1)
        run.watch.until(lambda: run.answered(node), "requests are answered")

        def found() -> list[int]:
            pids = run.our_pids(pattern, node)
            return [pid for pid in pids if not children_only or parent(node, pid, run) in pids]

        pids: Any = run.watch.until(found, f"there is a {pattern} on {node}")
        since = time.time()
        run.kill(pids, node)
        run.await_again(node, since)
        run.go()

    return act

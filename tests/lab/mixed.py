"""A randomised run: many jobs of both users at once, each with a fate that a seed has chosen, for a bounded time."""

from __future__ import annotations

import os
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from hpcproxy.lab import Lab

from .ending_acts import AGENT, SSH_PROCESS
from .endings import GATE, REQUESTS, SSH, Case, Run, Way
from .researcher import OUTER1
from .watch import Watch

AT_ONCE = 4
NODES = ("c1", "c2", "c3")


@dataclass(frozen=True)
class Fate:
    """What becomes of one job; `after_s` is when, `where` on which of its nodes."""

    number: int
    way: Way
    nodes: int
    kind: str
    after_s: float
    where: int

    def __str__(self) -> str:
        place = f"{self.nodes} nodes, {self.way.name}"
        return f"job {self.number} ({place}): {self.kind} after {self.after_s:.2f} s on node {self.where}"


def fates(seed: int, kinds: Sequence[str]) -> Iterator[Fate]:
    """One after the other, the same for the same seed."""
    chance = random.Random(seed)  # noqa: S311  chance, no secret
    number = 0
    while True:
        number += 1
        nodes = chance.randint(1, len(NODES))
        way, kind = chance.choice((GATE, SSH)), chance.choice(kinds)
        yield Fate(number, way, nodes, kind, chance.uniform(0, 2), chance.randrange(nodes))


def seed() -> int:
    """MIXED_SEED, or in CI always the same, or chance."""
    return int(os.environ.get("MIXED_SEED") or (1 if "CI" in os.environ else int.from_bytes(os.urandom(4), "big")))


def _pass(run: Run, seconds: float) -> None:
    """So much time has gone by: what comes next comes at a moment that nothing of the job's has chosen."""
    end = time.monotonic() + seconds
    run.watch.until(lambda: time.monotonic() >= end, "time passes")


def _end(run: Run, fate: Fate) -> None:
    run.up()
    run.go()


def _cancel(run: Run, fate: Fate) -> None:
    _pass(run, fate.after_s)
    run.scancel()


def _find(run: Run, fate: Fate, pattern: str) -> tuple[str, list[int]]:
    """The node of its fate, and what of ours is there when its time has come."""
    run.up()
    _pass(run, fate.after_s)
    node = run.node(fate.where)
    return node, run.watch.until(lambda: run.our_pids(pattern, node), f"there is a {pattern} on {node}")


def _kill(pattern: str) -> Callable[[Run, Fate], None]:
    def act(run: Run, fate: Fate) -> None:
        node, pids = _find(run, fate, pattern)
        since = time.time()
        run.kill(pids, node)
        run.await_again(node, since)
        run.go()

    return act


def _kill_for_good(pattern: str) -> Callable[[Run, Fate], None]:
    """Whether that comes back is for other tests: here only the job's end counts, and what is left."""

    def act(run: Run, fate: Fate) -> None:
        node, pids = _find(run, fate, pattern)
        run.kill(pids, node)
        run.go()

    return act


def _stop_ssh(run: Run, fate: Fate) -> None:
    """It stands still, up to ten seconds, as one behind a dead network does: it goes on, or another takes its place."""
    node, pids = _find(run, fate, SSH_PROCESS)
    since = time.time()
    run.lab.run(node, ["kill", "-STOP", *map(str, pids)])
    _pass(run, fate.after_s * 5)
    run.lab.run(node, ["kill", "-CONT", *map(str, pids)])  # those that are there still
    run.await_again(node, since)
    run.go()


def _cancel_our_step(run: Run, fate: Fate) -> None:
    run.up()
    _pass(run, fate.after_s)
    run.lab.run("login", ["scancel", f"{run.job}.0"], run.way.user, check=True)
    run.go()


KINDS: dict[str, Callable[[Run, Fate], None]] = {
    "ends": _end,
    "fails": _end,
    "is cancelled": _cancel,
    "ssh is killed": _kill(SSH_PROCESS),
    "ssh is stopped": _stop_ssh,
    "the agent is killed": _kill_for_good(AGENT),
    "the holder's step is killed": _cancel_our_step,
}
LEAVE_FILES = ("the agent is killed", "the holder's step is killed")  # until the next job of the user on that node


def _play(run: Run, fate: Fate, act: Callable[[Run, Fate], None]) -> None:
    code = 7 if fate.kind == "fails" else 0
    run.submit(f"{REQUESTS}exit {code}\n", f"-N{fate.nodes} --ntasks-per-node=1 --exclude=c4")
    act(run, fate)
    run.over(files_may_stay=fate.kind in LEAVE_FILES)
    result = run.result
    assert result is not None
    if fate.kind in LEAVE_FILES:
        assert result.state in ("COMPLETED", "FAILED"), f"{result.state}: {result.output}"
        return
    state = {"fails": "FAILED", "is cancelled": "CANCELLED"}.get(fate.kind, "COMPLETED")
    assert result.state == state, f"{result.state}: {result.output}"
    if state != "CANCELLED":
        assert sorted(result.output.split()) == [*[OUTER1] * fate.nodes, "up"], result.output
        run.check_silence(result)
    if run.watch.of(run.job).ever:  # it may have been cancelled before it had one
        run.check_gone()


def _tidy_up(lab: Lab, watch: Watch, jobs: Sequence[int]) -> None:
    """Each user has had one more job on each node, and nothing is left of `jobs`."""
    for way in (GATE, SSH):
        for node in NODES:
            run = Run(Case("ends", ""), way, lab, watch)
            run.submit("true\n", f"-n1 -w {node}")
            run.over()
    for job in jobs:
        sight = watch.of(job)
        watch.until(lambda sight=sight: sight.nothing_left, f"the next job has tidied up: {sorted(sight.ours)}", 30)


def play(lab: Lab, watch: Watch, seed: int, seconds: float) -> tuple[Counter[str], float]:
    """Jobs have been run for so long; returns how many of each kind, and the longest that anything of ours stayed.

    AssertionError names the seed and the job, with all that were played until then.
    """
    source, lock, end = fates(seed, tuple(KINDS)), threading.Lock(), time.monotonic() + seconds
    played: list[str] = []
    kinds: Counter[str] = Counter()
    gone, untidy = [0.0], list[int]()
    failed = threading.Event()

    def work() -> None:
        while time.monotonic() < end and not failed.is_set():
            with lock:
                fate = next(source)
                played.append(str(fate))
            run = Run(Case(fate.kind, ""), fate.way, lab, watch)
            try:
                _play(run, fate, KINDS[fate.kind])
            except Exception as error:
                failed.set()
                run.abandon()
                text = "\n".join(played)
                raise AssertionError(f"seed {seed}, {fate}, Slurm's {run.job}: {error}\nplayed:\n{text}") from error
            with lock:
                kinds[fate.kind] += 1
                if fate.kind in LEAVE_FILES:
                    untidy.append(run.job)
                else:
                    gone.append(watch.of(run.job).gone_s)

    with ThreadPoolExecutor(AT_ONCE) as pool:
        for future in [pool.submit(work) for _ in range(AT_ONCE)]:
            future.result()
    _tidy_up(lab, watch, untidy)
    return kinds, max(gone)

"""A randomised run: many jobs of both users at once, each with a fate that a seed has chosen, in changing weather."""

from __future__ import annotations

import os
import random
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from hpcproxy.lab import JobResult, Lab

from .ending_acts import AGENT, SSH_PROCESS, kill_all_on_a_node, requeue, suspend
from .endings import BY_AGENT, GONE_S, REQUESTS, SLURMS_VOICE, SSH, Case, Run, Way
from .researcher import OUTER1
from .watch import Watch
from .weather import Weather

AT_ONCE = 6
CI_SEED = 13808  # one whose first jobs are of all kinds, a few seconds being all that CI has
NODES = ("c1", "c2", "c3")
# What a request may say while the jump host is away or has just been: cut off, in the agent's own words (a status for
# CONNECT), or not in time; where ssh itself listens also refused, or no answer from SOCKS.
CURLS = {BY_AGENT: {28, 35, 52, 55, 56}, SSH: {7, 28, 35, 52, 55, 56, 97}}
CURL = re.compile(r"curl: \((\d+)\) ")
# Of the shells whose programs a signal has ended.
SHELLS_VOICE = re.compile(r"\S+: line \d+: +\d+ (Terminated|Killed) ")


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
        way, kind = chance.choice((BY_AGENT, SSH)), chance.choice(kinds)
        yield Fate(number, way, nodes, kind, chance.uniform(0, 2), chance.randrange(nodes))


def seed() -> int:
    """MIXED_SEED, or in CI always the same, or chance."""
    chance = CI_SEED if "CI" in os.environ else int.from_bytes(os.urandom(4), "big")
    return int(os.environ.get("MIXED_SEED") or chance)


def _pass(run: Run, seconds: float) -> None:
    """So much time has gone by: what comes next comes at a moment that nothing of the job's has chosen."""
    end = time.monotonic() + seconds
    run.watch.until(lambda: time.monotonic() >= end, "time passes")


Act = Callable[[Run, Fate, Weather], None]


def _end(run: Run, fate: Fate, weather: Weather) -> None:
    run.up()
    run.go()


def _cancel(run: Run, fate: Fate, weather: Weather) -> None:
    _pass(run, fate.after_s)
    run.scancel()


def _out(run: Run, fate: Fate, weather: Weather, since: float = 0.0) -> None:
    """On each of its nodes a request works that has begun since, and after the last spell."""

    def answered() -> bool:
        calm_since = weather.calm_since
        last = since if calm_since is None else max(since, calm_since)
        nodes = [run.node(number) for number in range(fate.nodes)]
        return calm_since is not None and all(
            any(good and began > last for began, _, good in run.seen(node)) for node in nodes
        )

    run.watch.until(answered, lambda: f"requests work again: {[run.seen(node)[-3:] for node in NODES]}", 90)


def _live_through_a_spell(run: Run, fate: Fate, weather: Weather) -> None:
    run.up()
    before = len(weather.spells)
    run.watch.until(lambda: len(weather.spells) > before or weather.over, "a spell comes")
    _out(run, fate, weather)
    run.go()


def _requeue(run: Run, fate: Fate, weather: Weather) -> None:
    """At any moment of its beginning; nothing of the first run is there when the second begins."""
    sight = run.watch.of(run.job)
    run.watch.until(lambda: sight.state == "RUNNING", "it has begun")
    _pass(run, fate.after_s)
    since = time.time()
    requeue(run)
    run.watch.until(lambda: sight.state == "PENDING", "it is queued again")
    run.watch.until(lambda: sight.nothing_left, lambda: f"nothing of its first run is left: {sight.ours}", GONE_S)
    run.watch.until(lambda: sight.state == "RUNNING", "it has begun again")
    _out(run, fate, weather, since)
    run.go()


def _suspend(run: Run, fate: Fate, weather: Weather) -> None:
    run.up()
    suspend(run, fate.where)


def _terminate(*options: str) -> Act:
    def act(run: Run, fate: Fate, weather: Weather) -> None:
        run.up()
        _pass(run, fate.after_s)
        run.scancel("--signal=TERM", *options)
        run.go()

    return act


def _kill_a_node(run: Run, fate: Fate, weather: Weather) -> None:
    run.up()
    _pass(run, fate.after_s)
    kill_all_on_a_node(run, fate.where)
    run.go()


def _find(run: Run, fate: Fate, pattern: str) -> tuple[str, list[int]]:
    """The node of its fate, and what of ours is there when its time has come."""
    run.up()
    _pass(run, fate.after_s)
    node = run.node(fate.where)
    return node, run.watch.until(lambda: run.our_pids(pattern, node), f"there is a {pattern} on {node}")


def _kill(pattern: str) -> Act:
    def act(run: Run, fate: Fate, weather: Weather) -> None:
        node, pids = _find(run, fate, pattern)
        since = time.time()
        run.kill(pids, node)
        run.await_again(node, since)
        run.go()

    return act


def _kill_for_good(pattern: str) -> Act:
    """Whether that comes back is for other tests: here only the job's end counts, and what is left."""

    def act(run: Run, fate: Fate, weather: Weather) -> None:
        node, pids = _find(run, fate, pattern)
        run.kill(pids, node)
        run.go()

    return act


def _stop_ssh(run: Run, fate: Fate, weather: Weather) -> None:
    """It stands still, up to ten seconds, as one behind a dead network does: it goes on, or another takes its place."""
    node, pids = _find(run, fate, SSH_PROCESS)
    since = time.time()
    run.lab.run(node, ["kill", "-STOP", *map(str, pids)])
    _pass(run, fate.after_s * 5)
    run.lab.run(node, ["kill", "-CONT", *map(str, pids)])  # those that are there still
    run.await_again(node, since)
    run.go()


def _cancel_our_step(run: Run, fate: Fate, weather: Weather) -> None:
    run.up()
    _pass(run, fate.after_s)
    run.cancel_our_step()
    run.go()


KINDS: dict[str, Act] = {
    "ends": _end,
    "fails": _end,
    "is cancelled": _cancel,
    "lives through a spell": _live_through_a_spell,
    "is requeued": _requeue,
    "is suspended": _suspend,
    "has its steps told to end": _terminate(),
    "has all told to end": _terminate("--full"),
    "ssh is killed": _kill(SSH_PROCESS),
    "ssh is stopped": _stop_ssh,
    "the agent is killed": _kill_for_good(AGENT),
    "the supervisor's step is killed": _cancel_our_step,
    "all of a node is killed": _kill_a_node,
}
# Until the next job of the user on that node.
LEAVE_FILES = ("the agent is killed", "the supervisor's step is killed", "all of a node is killed")
# Nothing is done to it that a request could fail for.
GENTLE = ("ends", "fails", "lives through a spell")
# With these its programs do not come to their end.
CUT_SHORT = ("is cancelled", "has its steps told to end", "has all told to end")
STATES = {
    "fails": ("FAILED",),
    "is cancelled": ("CANCELLED",),
    "has all told to end": ("FAILED", "CANCELLED"),
    **dict.fromkeys(LEAVE_FILES, ("COMPLETED", "FAILED")),
}


def _play(run: Run, fate: Fate, weather: Weather) -> list[str]:
    """One job, from its beginning to its end, and what is to be said of it; returns the spells that it saw."""
    code, begun = (7 if fate.kind == "fails" else 0), time.time()
    run.submit(f"{REQUESTS}exit {code}\n", f"-N{fate.nodes} --ntasks-per-node=1 --exclude=c4")
    KINDS[fate.kind](run, fate, weather)
    run.watch.until_over(run.job, files_may_stay=fate.kind in LEAVE_FILES)
    failed = [line for node in NODES for line in run.lines(node) if not line.endswith(f" {OUTER1}")]
    run.over(files_may_stay=fate.kind in LEAVE_FILES)
    spells = weather.between(begun, time.time())
    result = run.result
    assert result is not None
    assert result.state in STATES.get(fate.kind, ("COMPLETED",)), f"{result.state}: {result.output}"
    if fate.kind in LEAVE_FILES:
        return spells
    _check_output(run, fate, result, bool(spells))
    if fate.kind in GENTLE:
        assert spells or not failed, f"no request fails in calm weather: {failed}"
        assert all(_of_a_spell(run, line) for line in failed), f"each has a reason of the weather: {failed}"
    if run.watch.of(run.job).ever:  # it may have been cancelled before it had one
        run.check_gone()
    return spells


def _check_output(run: Run, fate: Fate, result: JobResult, touched: bool) -> None:
    """What the job would have said without us, but for the last request of each node if a spell was there."""
    own = [line for line in result.output.splitlines() if not SLURMS_VOICE.match(line)]
    if fate.kind in CUT_SHORT:
        own = [line for line in own if not SHELLS_VOICE.match(line)]
        assert all(line in ("up", OUTER1) or CURL.match(line) for line in own), result.output
    elif touched:
        last = [line for line in own if line != "up"]
        assert len(last) == fate.nodes, result.output
        assert all(line == OUTER1 or _of_a_spell(run, line) for line in last), result.output
    else:
        assert sorted(own) == [*[OUTER1] * fate.nodes, "up"], result.output
    run.check_silence(result)


def _of_a_spell(run: Run, line: str) -> bool:
    found = CURL.search(line)
    return found is not None and int(found[1]) in CURLS[run.way]


def _tidy_up(lab: Lab, watch: Watch, jobs: Sequence[int]) -> None:
    """Each user has had one more job on each node, and nothing is left of `jobs`."""
    for way in (BY_AGENT, SSH):
        for node in NODES:
            run = Run(Case("ends", ""), way, lab, watch)
            run.submit("true\n", f"-n1 -w {node}")
            run.over()
    for job in jobs:
        sight = watch.of(job)
        watch.until(lambda sight=sight: sight.nothing_left, f"the next job has tidied up: {sorted(sight.ours)}", 30)


@dataclass
class Played:
    """How many of each kind, how many of them saw a spell, and the longest that anything of ours stayed."""

    kinds: Counter[str]
    spells: Counter[str]
    touched: int = 0
    gone_s: float = 0.0

    def __str__(self) -> str:
        jobs = f"{sum(self.kinds.values())} jobs, {dict(self.kinds)}; {dict(self.spells)}, seen by {self.touched} jobs"
        return f"{jobs}; nothing left after {self.gone_s:.1f} s"


def play(lab: Lab, watch: Watch, seed: int, seconds: float) -> Played:
    """Jobs have been run for so long, and all of them have ended.

    AssertionError names the seed and the job, with all that were played until then.
    """
    source, lock, end = fates(seed, tuple(KINDS)), threading.Lock(), time.monotonic() + seconds
    story: list[str] = []
    played, untidy = Played(Counter(), Counter()), list[int]()
    failed = threading.Event()

    def work(weather: Weather) -> None:
        while time.monotonic() < end and not failed.is_set():
            with lock:
                fate = next(source)
                story.append(str(fate))
            run = Run(Case(fate.kind, ""), fate.way, lab, watch)
            begun = time.time()
            try:
                spells = _play(run, fate, weather)
            except Exception as error:
                failed.set()
                run.abandon()
                text = "\n".join(story)
                here = f"seed {seed}, {fate}, Slurm's {run.job}, weather {weather.between(begun, time.time())}"
                raise AssertionError(f"{here}: {error}\nplayed:\n{text}") from error
            with lock:
                played.kinds[fate.kind] += 1
                played.touched += bool(spells)
                if fate.kind in LEAVE_FILES:
                    untidy.append(run.job)
                else:
                    played.gone_s = max(played.gone_s, watch.of(run.job).gone_s)

    with Weather(lab, seed) as weather, ThreadPoolExecutor(AT_ONCE) as pool:
        workers = [pool.submit(work, weather) for _ in range(AT_ONCE)]
        failed.wait(max(0.0, end - time.monotonic()))
        weather.end()
        for worker in workers:
            worker.result()
    played.spells.update(spell.name for spell in weather.spells)
    _tidy_up(lab, watch, untidy)
    return played

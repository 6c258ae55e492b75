"""Many nodes, one jump host: who begins when, and where."""

import collections
from types import SimpleNamespace

import pytest

from hpcproxy.node.state.settings import Way
from hpcproxy.node.upstream import candidate as tried
from hpcproxy.node.upstream.candidate import BUSY, Candidate, Spread, Verdict
from tests.node.harness import FAILURES, jump_of
from tests.sshd import prepare
from tests.waiting import until

JUMPS = (Way("a", ("ssh",)), Way("b", ("ssh",)), Way("c", ("ssh",)))


@pytest.fixture(autouse=True)
def its_clock_stands(monkeypatch):
    """A pause is what it is, and not less by what this machine was busy with meanwhile."""
    monkeypatch.setattr(tried, "time", SimpleNamespace(monotonic=lambda: 0.0))


def spreads(nodes, jumps=1, per_s=32.0, job="17"):
    return [Spread(job, "c{}".format(number), nodes, jumps, per_s) for number in range(nodes)]


@pytest.mark.parametrize("nodes", [1, 2, 8])
def test_a_small_job_begins_at_once(nodes):
    assert {spread.delay_s for spread in spreads(nodes)} == {0}


@pytest.mark.parametrize(
    ("nodes", "jumps", "per_s", "spread_s"),
    [(9, 1, 32, 0.28125), (512, 1, 32, 16), (512, 2, 32, 8), (10000, 1, 1, 120)],
)
def test_the_nodes_of_a_large_job_are_spread_evenly_and_not_for_ever(nodes, jumps, per_s, spread_s):
    delays = sorted(spread.delay_s for spread in spreads(nodes, jumps, per_s))
    assert delays[-1] < spread_s == spreads(1, 1)[0].spread_s + spreads(nodes, jumps, per_s)[0].spread_s
    if nodes > 9:
        # No tenth of the time has more than twice its share.
        crowd = collections.Counter(int(delay / spread_s * 10) for delay in delays)
        assert set(crowd) == set(range(10))
        assert max(crowd.values()) < nodes / 5


def test_the_same_node_of_the_same_job_has_always_the_same_place_and_another_job_another():
    one, again, other = spreads(64), spreads(64), spreads(64, job="18")
    assert [spread.delay_s for spread in one] == [spread.delay_s for spread in again]
    assert [spread.delay_s for spread in one] != [spread.delay_s for spread in other]


def test_the_nodes_share_the_jump_hosts_out_and_each_falls_back_on_the_others():
    orders = [spread.order(JUMPS) for spread in spreads(300)]
    assert all(set(order) == set(JUMPS) for order in orders)
    firsts = collections.Counter(order[0].name for order in orders)
    assert min(firsts.values()) > 60
    assert [jump.name for jump in Spread("", "c1", 1, 3, 32).order(JUMPS)] == ["a", "b", "c"]


def waits(spread_s, count):
    candidate = Candidate(JUMPS[0], 30, spread_s)
    found = []
    for _ in range(count):
        candidate.failed(Verdict(BUSY, "reason", False))
        found.append(candidate.next_try)
    return found


def test_a_busy_jump_host_is_met_with_patience():
    assert all(0.3 < waits(0, 1)[0] <= 4 for _ in range(50))
    assert max(waits(16, 1)[0] for _ in range(50)) > 8
    assert all(2.9 < waits(0, 6)[-1] <= 30 for _ in range(50))
    assert len({round(wait, 2) for wait in (waits(0, 1)[0] for _ in range(50))}) > 20


def refused(nodes, count):
    """Seconds until each of `count` tries of a key that is refused."""
    candidate = Candidate(JUMPS[0], 30, 0, nodes)
    found = []
    for _ in range(count):
        candidate.failed(Verdict("key", "reason", True))
        found.append(candidate.next_try)
    return found


def test_a_key_that_is_refused_is_tried_ever_more_seldom_and_by_many_nodes_more_seldom_still():
    assert all(59 < refused(1, 1)[0] <= 120 for _ in range(20))
    assert all(899 < refused(1, 5)[-1] <= 1920 for _ in range(20))
    assert all(1799 < refused(1, 40)[-1] <= 3600 for _ in range(20))
    # sshd is patient for 5 s for each: less than a third of that time is used up by a job of any size.
    assert all(7.5 * nodes - 1 < refused(nodes, 1)[0] for nodes in (24, 120, 1000) for _ in range(20))


def windows(tries):
    """The shortest and the longest wait of each of several tries, of many candidates each."""
    return [(min(waited), max(waited)) for waited in zip(*(tries() for _ in range(60)))]


def test_after_a_failure_that_may_pass_the_pauses_grow_to_a_bound():
    def tries():
        candidate = Candidate(JUMPS[0], 4)
        for _ in range(6):
            candidate.failed(Verdict("route", "reason", False))
            yield candidate.next_try

    for (least, most), whole in zip(windows(tries), (0.5, 1, 2, 4, 4, 4)):
        assert 0.5 * whole <= least < 0.75 * whole < most <= whole


def test_what_never_lives_for_long_comes_back_ever_more_slowly():
    def tries(lived_s):
        candidate = Candidate(JUMPS[0], 2)
        for _ in range(5):
            candidate.lost(lived_s)
            yield candidate.next_try

    for (least, most), whole in zip(windows(lambda: tries(1)), (0.25, 0.5, 1, 2, 2)):
        assert 0.5 * whole <= least < 0.75 * whole < most <= whole
    for least, most in windows(lambda: tries(10)):
        assert 0.125 <= least < 0.2 < most <= 0.25


def test_one_that_came_up_is_no_longer_put_off():
    candidate = Candidate(JUMPS[0], 30)
    for _ in range(5):
        candidate.failed(Verdict("key", "reason", True))
    candidate.lost(100)
    candidate.failed(Verdict("key", "reason", True))
    assert 59 < candidate.next_try <= 120


def test_all_of_a_crowd_come_up_where_one_may_log_in_at_a_time(start_agent, tmp_path):
    sshd = prepare(tmp_path / "narrow")
    config = sshd.directory / "config"
    config.write_text(config.read_text().replace("MaxStartups 100", "MaxStartups 1"))
    sshd.start()
    try:
        busy = dict(FAILURES[-1], pattern="^Connection (closed|reset) by", layer=BUSY, reason="it is busy")
        agents = [start_agent([jump_of(sshd, "j")], wait=False, failures=[busy]) for _ in range(6)]
        for agent in agents:
            agent.ready(90)
    finally:
        sshd.stop()
    assert sum("it is busy" in agent.log() for agent in agents) > 0


def test_an_agent_waits_for_its_place(start_agent, jump_host):
    agent = start_agent(wait=False, words=["--nodes=2000", "--job=424242"], logins_per_s=1000)
    until(lambda: "its first login comes in" in agent.log(), "it says so")
    agent.ready()

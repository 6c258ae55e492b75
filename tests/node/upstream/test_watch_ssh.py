"""When an ssh that the agent holds is taken for dead, by what it answers and how long that may take."""

import time

import pytest

from hpcproxy.node.io.loop import Loop, Signal
from hpcproxy.node.upstream.candidate import Verdict
from hpcproxy.node.upstream.ssh import Ssh
from hpcproxy.node.upstream.upstream import Unusable

INTERVAL_S = 0.05


class Transport:
    """Answers as often as it is told; `ended` once somebody has ended it."""

    def __init__(self, loop, answers):
        self.gone, self.left = Signal(loop), answers
        self.dead, self.ended, self.patience = False, False, []

    async def answers(self, deadline):
        self.patience.append((deadline, time.monotonic()))
        self.left -= 1
        self.dead = len(self.patience) > 20  # nobody has ended it
        return self.left >= 0

    def stop(self, number):
        self.dead = self.ended = True


class Settings:
    def __init__(self, alive_count):
        self.alive_interval_s, self.alive_count = INTERVAL_S, alive_count


class Record:
    def __init__(self):
        self.lines = []

    def log(self, line):
        self.lines.append(line)


class Watched(Ssh):
    """One whose far end is asked here, and whose last proof was `ago` seconds ago."""

    def __init__(self, loop, alive_count, answers, ago=0.0, far_end=True):
        self.loop, self.settings, self.record = loop, Settings(alive_count), Record()
        self.transport = Transport(loop, answers)
        self.proved_at, self.far_end, self.asked = time.monotonic() - ago, far_end, []

    async def _check_forwarding(self, seconds):
        self.asked.append(seconds)
        if not self.far_end:
            raise Unusable(Verdict("probe", "silence", False))
        self.transport.left = 0  # so that it comes to an end


def watched(loop_of, **how):
    loop = Loop(lambda error: how.update(error=error))
    found = Watched(loop, *loop_of, **how)

    async def watch():
        await found.watch()
        loop.stopping = True

    loop.spawn(watch())
    begun = time.monotonic()
    loop.run()
    loop.close()
    assert "error" not in how
    return found, begun


@pytest.mark.parametrize("alive_count, patience_s", [(1, 1), (2, 1), (3, 2), (1000, 999)])
def test_it_has_the_time_that_a_silent_jump_host_has(alive_count, patience_s):
    found, begun = watched((alive_count, 0))
    ((deadline, then),) = found.transport.patience
    assert begun + INTERVAL_S + patience_s * INTERVAL_S <= deadline <= then + patience_s * INTERVAL_S
    assert found.transport.ended
    assert found.asked == []


def test_one_that_answers_is_left():
    found, _begun = watched((3, 4))
    assert len(found.transport.patience) == 5
    assert found.record.lines == ["ssh does not answer on its control socket, or its far end does not; ended"]


@pytest.mark.parametrize("far_end", [True, False])
def test_after_a_pause_of_ours_the_far_end_is_asked(far_end):
    found, _begun = watched((3, 9), ago=7.0, far_end=far_end)
    assert found.record.lines[0].startswith("this node or job stood still for ")
    assert found.asked == [INTERVAL_S]
    # Who answered is looked at as ever from then on.
    assert len(found.transport.patience) == int(far_end)
    assert found.transport.ended

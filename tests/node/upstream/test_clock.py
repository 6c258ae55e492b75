"""A wall clock that jumps: it is printed and nothing else. What the agent waits for goes by the clock that does not."""

import os
import signal
import time

from tests.node.harness import Agent, echo, jump_of
from tests.waiting import until

# The agent in a process whose time.time() is days off, and another way at every look.
JUMPING = """
import random, runpy, sys, time
real = time.time
time.time = lambda: real() + random.choice([-1, 1]) * random.uniform(1, 100) * 86400
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def test_ssh_is_watched_replaced_and_waited_for_as_ever(jump_host, far_end, tmp_path):
    server = far_end(echo)
    settings = {"alive_interval_s": 0.2, "alive_count": 2, "hold_s": 20, "retry_max_s": 1}
    agent = Agent(tmp_path / "a", [jump_of(jump_host)], flags=("-I", "-c", JUMPING), **settings)
    try:
        agent.start().ready()
        days = {line.split("T")[0] for line in agent.log().splitlines()}
        assert days
        assert time.strftime("%Y-%m-%d") not in days, "the clock does not jump, and this proves nothing"
        for count, number in enumerate((signal.SIGKILL, signal.SIGSTOP, signal.SIGKILL), 1):
            os.kill(until(agent.ssh_pid, "an ssh"), number)
            until(lambda count=count: agent.status().get("reconnects") == count, "it is up again")
            sock, head = agent.tunnel(server.target)
            with sock:
                assert head.startswith(b"HTTP/1.1 200 ")
        assert agent.status()["refused"] == 0
    finally:
        assert agent.stop() == 0

"""Short jobs while an admin rolls out, changes, takes back and removes; `bench/churn.py` runs 600."""

from __future__ import annotations

import time
from collections.abc import Callable

from hpcproxy.lab import Lab

from .admin import Admin
from .researcher import until

_END_S = 600
# Two tasks of a job each, so that TaskProlog runs for the batch step and for one of srun's.
_JOB = """#!/bin/bash
#SBATCH -N1 -n1 --array=1-{jobs}%{at_once} -o /dev/null
out=~/churn.$SLURM_ARRAY_JOB_ID.$SLURM_ARRAY_TASK_ID
srun -n1 sleep 0.3 && echo "$SLURM_ARRAY_TASK_ID ${{SLURM_RESTART_COUNT:-0}}" >>$out
"""


def churn(admin: Admin, jobs: int, say: Callable[[str], None] = lambda _: None) -> list[str]:
    """So many jobs have run during one round of the admin's; returns in words what went wrong."""
    lab, port = admin.lab, 2100
    wrong = []
    array = lab.submit(_JOB.format(jobs=jobs, at_once=len(lab.nodes)))
    until(lambda: _done(lab, array), "jobs run")
    for verb in (("deploy", "--enable"), ("deploy",), ("rollback",), ("undeploy",)):
        before = len(_done(lab, array))
        if verb == ("deploy",):
            admin.set(port=port)
        words = admin.words(*verb)
        if not words <= {"changed", "unchanged"}:
            wrong.append(f"{' '.join(verb)}: {words}: {admin.said}")
        say(f"{' '.join(verb)}: {len(_done(lab, array)) - before} jobs meanwhile")
    deadline = time.monotonic() + _END_S
    while left := _waiting(lab, array):
        assert time.monotonic() < deadline, f"all have ended: {left[:5]}"
        time.sleep(0.5)  # a process each
    done = _done(lab, array)
    again = [line for line in done if not line.endswith(" 0")]
    wrong += [f"{jobs - len(done)} of {jobs} jobs failed"] if len(done) != jobs else []
    wrong += [f"{len(again)} jobs were begun anew"] if again else []
    wrong += [f"drained: {lab.drained()}"] if lab.drained() else []
    lab.run("login", ["sh", "-c", f"rm -f ~/churn.{array}.*"], "alice", check=True)
    return wrong


def _done(lab: Lab, array: int) -> list[str]:
    return lab.run("login", ["sh", "-c", f"cat ~/churn.{array}.* 2>/dev/null"], "alice").stdout.splitlines()


def _waiting(lab: Lab, array: int) -> list[str]:
    """The jobs that Slurm still has, with why; one that is held waits for ever."""
    said = lab.run("ctl", ["squeue", "-h", "-j", str(array), "-o", "%T %r"]).stdout.splitlines()
    held = [line for line in said if "held" in line]
    assert not held, held
    return said

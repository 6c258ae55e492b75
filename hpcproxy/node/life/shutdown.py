"""When the agent goes: at once when it is told to, after SIGTERM of a job as soon as nobody is left who may need it.

Slurm sends SIGTERM to every process of a job that ends, KillWait seconds before SIGKILL: ranks write their last metrics
in between. It also sends it as a warning only (preemption with a grace time, `--signal=TERM@60`), and the job goes on.
"""

import os
import re
import signal
import time
from typing import Optional

from ..io.child import Child, heard
from ..io.loop import Loop, Task
from ..state.status import Record
from .job_processes import JobProcesses

KILL_WAIT_S = 30.0  # Slurm's default (slurm.conf(5))
RESERVE_S = 2.0  # of it, to end ssh and remove the state
POLL_S = 0.2
ANSWER_S = 2.0
CONFIGURATIONS = ("/etc/slurm/slurm.conf", "/run/slurm/conf/slurm.conf", "/etc/slurm-llnl/slurm.conf")
SETTING = re.compile(rb"^[ \t]*killwait[ \t]*=[ \t]*(\d{1,5})\b", re.IGNORECASE | re.MULTILINE)
LONGEST_FILE = 1 << 20
# Held back from before the agent is started until it can heed them (tunnel.sh, build.py).
HEEDED = (signal.SIGTERM, signal.SIGURG, signal.SIGINT, signal.SIGUSR1)


class Ending:
    """Signals and what follows from them. `job` is empty where none is concerned: then all of HEEDED end the agent.

    In a job SIGURG ends it, which the kernel and Slurm send nobody unasked; SIGINT and SIGUSR1 do nothing, because a
    user sends them to his job's steps (`--signal=USR1@90`, `scancel --signal=INT`), of which ours is one.
    """

    def __init__(self, loop: Loop, record: Record, job: str, grace_s: Optional[float]) -> None:
        self.loop, self.record, self.job = loop, record, job
        self.grace_s = grace_s
        self.task: Optional[Task] = None

    def signalled(self, number: int) -> None:
        """What the handler of the signal calls."""
        if not self.job or number == signal.SIGURG:
            self.loop.stopping = True
        elif number == signal.SIGTERM and (self.task is None or self.task.done):
            self.task = self.loop.spawn(self._grace())

    async def _grace(self) -> None:
        """Stay while others of the job are there, at most as long as Slurm lets them live."""
        others = JobProcesses(self.job, os.getuid())
        grace_s = kill_wait_s() - RESERVE_S if self.grace_s is None else self.grace_s
        end = time.monotonic() + grace_s
        last_look = end - min(ANSWER_S, grace_s / 2)
        told = asked = False
        while others.is_there():
            now = time.monotonic()
            if not asked and now >= last_look:
                asked = True
                if grace_s > 0 and await goes_on(self.loop, self.job, end):
                    self.record.log("the job goes on, and so does its tunnel")
                    return
            if now >= end:
                break
            if not told:
                self.record.log("told to end; stays at most {:.0f} s for the job's other processes".format(grace_s))
                told = True
            await self.loop.sleep(POLL_S)
        self.loop.stopping = True


def kill_wait_s() -> float:
    """KillWait of slurm.conf, if that lies here (asking slurmctld would be a question from every node at once)."""
    for path in (os.environ.get("SLURM_CONF") or CONFIGURATIONS[0],) + CONFIGURATIONS:
        try:
            with open(path, "rb") as file:
                found = SETTING.findall(file.read(LONGEST_FILE))
        except OSError:
            continue
        return max(RESERVE_S, float(found[-1])) if found else KILL_WAIT_S
    return KILL_WAIT_S


async def goes_on(loop: Loop, job: str, deadline: float) -> bool:
    """Slurm says that `job` is running: SIGTERM was a warning. Asked only by who is not alone for that long; in doubt
    the job is at its end, for a tunnel that stays would keep the node from the next one."""
    child = Child(["squeue", "--noheader", "--jobs=" + job, "--format=%A %T"])
    try:
        said, whole = await heard(loop, child, deadline)
    finally:
        child.signal(signal.SIGKILL)
        child.close()
    while child.reap() is None:
        await loop.sleep(POLL_S / 10)
    states = ("{} RUNNING".format(job), "{} SUSPENDED".format(job))
    return whole and any(line.strip() in states for line in said.decode("ascii", "replace").splitlines())

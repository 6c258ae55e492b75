"""The other processes of the job on this node, seen in /proc: while one lives, the tunnel may still be needed."""

import os
from typing import Tuple

# In the environment of every process of ours, from the step's srun to ssh and what ssh starts.
MARK = b"HPCPROXY_HOLDER="
STEP = "/step_"
LOGINS = "/step_extern"  # of whoever logged in to the node; a shell that sits there does not need the tunnel


class JobProcesses:
    """The processes of user `uid` that belong to `job` and are not ours.

    One that cannot be read counts as not there: a tunnel that leaves too early costs the job's last words, one that
    stays too long keeps the node from the next job.
    """

    def __init__(self, job: str, uid: int) -> None:
        self.uid, self.ours = uid, (os.getpid(), os.getppid())
        # A process that writes its title, or was given an empty environment, is known by its cgroup only.
        self.variable = "SLURM_JOB_ID={}".format(job).encode()
        self.steps = step_places(read("/proc/self/cgroup").decode("utf-8", "replace"))

    def is_there(self) -> bool:
        """At least one of them lives."""
        return any(self._belongs(pid) for pid in os.listdir("/proc") if pid.isdigit())

    def _belongs(self, pid: str) -> bool:
        place = "/proc/" + pid
        try:
            if os.stat(place).st_uid != self.uid or int(pid) in self.ours:
                return False
            variables = read(place + "/environ").split(b"\0")
            if any(each.startswith(MARK) for each in variables):
                return False
            if self.variable not in variables:
                group = read(place + "/cgroup").decode("utf-8", "replace")
                if LOGINS in group or not any(line.startswith(self.steps) for line in group.splitlines()):
                    return False
            return read(place + "/stat").rpartition(b") ")[2][:1] not in (b"Z", b"X")
        except OSError:
            return False  # it ended meanwhile, or is not ours to read


def step_places(cgroup: str) -> Tuple[str, ...]:
    """How lines of /proc/PID/cgroup begin for the steps of a job, by those of a process in one of its steps.

    What Slurm calls the directories above differs: `job_7` up to 25.11, from 26.05 on the job's SLUID.
    """
    return tuple(line[: line.index(STEP) + len(STEP)] for line in cgroup.splitlines() if STEP in line)


def read(path: str) -> bytes:
    """What the kernel says there; OSError."""
    with open(path, "rb") as file:
        return file.read()

"""The jobs of this account that run, or are to run, and the nodes of each, as squeue says. Runs processes."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from hpcproxy import heard
from hpcproxy.account import job_status
from hpcproxy.errors import TunnelError

_FIELDS = 4  # three while it has no nodes
_OVER = ("COMPLETING", "COMPLETED", "CANCELLED", "FAILED", "TIMEOUT", "NODE_FAIL", "PREEMPTED", "OUT_OF_MEMORY")
_UNKNOWN = "Invalid job id"  # squeue's word for one that ended some minutes ago


@dataclass(frozen=True)
class Place:
    """A node of a job; where that has components, `job` is the number of the whole, as its tunnels have it."""

    job: str
    node: str

    def __str__(self) -> str:
        return f"{self.node} (job {self.job})"


@dataclass(frozen=True)
class Jobs:
    """The jobs that are not over, and the nodes of those that run."""

    numbers: frozenset[str]
    places: frozenset[Place]


def jobs(wanted: Sequence[str], environ: Mapping[str, str]) -> Jobs:
    """Return those of `wanted`, or all of this account's; raises TunnelError."""
    which = f"--jobs={','.join(map(job_status.number, wanted))}" if wanted else f"--user={os.geteuid()}"
    try:
        said = job_status.asked(["squeue", "--noheader", which, "--format=%A %i %T %N"], environ)
    except TunnelError as error:
        if _UNKNOWN not in str(error):
            raise
        said = ""
    rows = [heard.line(line, len(line) + 1).split() for line in said.splitlines()]
    rows = [row for row in rows if len(row) in (_FIELDS - 1, _FIELDS) and row[2] not in _OVER]
    places = {
        Place(_whole(row), node) for row in rows if row[2] == "RUNNING" for node in _nodes(row[_FIELDS - 1], environ)
    }
    return Jobs(frozenset(map(_whole, rows)), frozenset(places))


def _whole(row: Sequence[str]) -> str:
    """Return the job's own number; of a component, which squeue calls 7+1, that of the first."""
    return row[1].partition("+")[0] if "+" in row[1] else row[0]


def _nodes(names: str, environ: Mapping[str, str]) -> list[str]:
    """Return the node names that Slurm's `names`, c[1-3], stands for."""
    if "[" not in names:
        return names.split(",")
    return job_status.asked(["scontrol", "show", "hostnames", names], environ).split()

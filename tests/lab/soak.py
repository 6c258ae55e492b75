"""Many jobs in a row on a few nodes, and what of them is left: `bench/soak.py` runs 200, a test a few."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from hpcproxy.lab import Lab

from .researcher import FETCH, OUTER1, Researcher

# A lane is a row of jobs, one after the other, on these nodes: each node has one of its own and all share a third.
LANES = (("c1",), ("c2",), ("c3",), ("c1", "c2", "c3"))
_PLACES = ("/tmp", "/dev/shm", "/var/tmp", "/run", "/var/spool/slurmd")


@dataclass(frozen=True)
class Look:
    """What there is on the nodes at one moment, nothing of it of a job that runs."""

    slurmd_kib: dict[str, int]  # resident memory
    slurmd_files: dict[str, int]  # open files
    processes: frozenset[str]
    sockets: frozenset[str]
    files: frozenset[str]
    logins: int  # sessions on the jump host
    drained: tuple[str, ...]


def look(lab: Lab) -> Look:
    """What there is now."""
    memory, opened = {}, {}
    processes, sockets, files = set(), set(), set()
    for node in lab.nodes:
        first = lab.machine(node).pid
        for pid, user, line in lab.processes(node):
            processes.add(f"{node}: {user} {line}")
            if line.split()[0].endswith("slurmd"):
                inside = Path(f"/proc/{first}/root/proc/{pid}")
                memory[node] = int(re.findall(r"VmRSS:\s+(\d+)", (inside / "status").read_text())[0])
                opened[node] = len(list((inside / "fd").iterdir()))
        sockets |= {f"{node}: {address}:{port}" for address, port, _ in lab.listeners(node)}
        unix = Path(f"/proc/{first}/net/unix").read_text().splitlines()[1:]
        sockets |= {f"{node}: {line.split()[7]}" for line in unix if len(line.split()) > 7}
        listed = lab.run(node, ["find", *_PLACES, "-mindepth", "1", "!", "-path", "/run/munge*"]).stdout.split("\n")
        files |= {f"{node}: {path}" for path in listed if path}
    logins = sum(line.startswith("sshd: alice") for _, _, line in lab.processes("jump1"))
    processes |= {f"login: {line}" for _, user, line in lab.processes("login") if user == "alice"}
    return Look(
        memory, opened, frozenset(processes), frozenset(sockets), frozenset(files), logins, tuple(lab.drained())
    )


def difference(before: Look, after: Look) -> list[str]:
    """What is there afterwards and was not before; memory aside."""
    found = [f"process {text}" for text in sorted(after.processes - before.processes)]
    found += [f"socket {text}" for text in sorted(after.sockets - before.sockets)]
    found += [f"file {text}" for text in sorted(after.files - before.files)]
    found += [f"drained {node}" for node in after.drained]
    if after.logins:
        found.append(f"{after.logins} sessions on the jump host")
    more = {node: after.slurmd_files[node] - before.slurmd_files[node] for node in before.slurmd_files}
    return found + [f"{count} more open files of slurmd on {node}" for node, count in more.items() if count > 0]


def run(lab: Lab, jobs: int, hook: bool = True, on_job: Callable[[int], None] = lambda _: None) -> float:
    """So many jobs of alice's have run in all lanes, and each got out from all its nodes; returns the seconds."""
    alice = Researcher(lab)
    lock = threading.Lock()
    left = jobs
    began = time.monotonic()

    def lane(nodes: tuple[str, ...]) -> None:
        nonlocal left
        options = f"#SBATCH -N{len(nodes)} --ntasks-per-node=1 -w {','.join(nodes)}"
        while True:
            with lock:
                if left == 0:
                    return
                left -= 1
                on_job(left)
            if hook:
                result = alice.job(f"srun {FETCH}\n", options)
                assert result.output.split() == [OUTER1] * len(nodes), f"job {result.job_id}: {result.output}"
            else:
                result = lab.wait_job(lab.submit(f"#!/bin/bash\n{options}\nsrun true\n"))
            assert result.state == "COMPLETED", f"job {result.job_id}: {result.state}: {result.output}"
            lab.path_on("login", f"/home/alice/slurm-{result.job_id}.out").unlink()

    with ThreadPoolExecutor(len(LANES)) as pool:
        for future in [pool.submit(lane, nodes) for nodes in LANES]:
            future.result()
    return time.monotonic() - began

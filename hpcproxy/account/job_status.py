"""The tunnels of one job, from all of its nodes: asked for by a step of that job. Runs processes."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from hpcproxy import heard, process
from hpcproxy.account.tunnels import Tunnel, told
from hpcproxy.errors import TunnelError
from hpcproxy.shell_lines import shell_line

_ASK_TIMEOUT_S = 60


def collect(job: str, scripts: Sequence[Path], environ: Mapping[str, str]) -> list[Tunnel | str]:
    """Return the tunnel of `job` on each of its nodes, or the node's name where there is none; raises TunnelError."""
    nodes = _node_count(job, environ)
    ask = ("/bin/bash", "-p", "-c", shell_line("status"), "bash", *map(str, scripts))
    said = asked([*step(job, nodes, "hpcproxy-status"), *ask], environ)
    found = [_parse(heard.fields(line)) for line in said.split("\n") if line.startswith("status\t")]
    if not found:
        raise TunnelError("job", f"no node of job {job} answered", "is hpcproxy installed in this account?")
    return sorted(found, key=lambda one: one if isinstance(one, str) else one.node)


def step(job: str, nodes: int, name: str) -> tuple[str, ...]:
    """Return the words that run a program once on each of so many nodes of `job`, beside what runs there."""
    size = (f"--nodes={nodes}", f"--ntasks={nodes}", "--ntasks-per-node=1", "--cpus-per-task=1")
    beside = ("--overlap", "--mem=0", "--gres=none", "--cpu-bind=none", "--mpi=none", "--quiet", "--chdir=/")
    return ("srun", f"--jobid={job}", *size, *beside, f"--job-name={name}")


def outside(environ: Mapping[str, str]) -> dict[str, str]:
    """Return `environ` without the options for steps of its own: they are none of another job's business."""
    clean = {name: value for name, value in environ.items() if not name.startswith(("SLURM_", "SRUN_"))}
    return {**clean, **{name: environ[name] for name in ("SLURM_CONF",) if name in environ}}


def end_of(job: str, environ: Mapping[str, str]) -> str:
    """Return when `job` ends at the latest, as squeue says it (2026-11-30T21:00:00, local time); raises TunnelError."""
    return asked(["squeue", "--noheader", f"--jobs={number(job)}", "--format=%e"], environ).strip()


def number(job: str) -> str:
    """Return `job`, if it is the number of one; raises TunnelError."""
    if not job.isascii() or not job.isdecimal():
        raise TunnelError("job", f"{job!r} is not the number of a job")
    return job


def _node_count(job: str, environ: Mapping[str, str]) -> int:
    for line in asked(["squeue", "--noheader", f"--jobs={number(job)}", "--format=%A %D %T"], environ).splitlines():
        found, count, state = line.split()
        if found == job and state in ("RUNNING", "COMPLETING"):
            return int(count)
        if found == job:
            raise TunnelError("job", f"job {job} is {state.lower()}")
    raise TunnelError("job", f"there is no job {job}")


def asked(argv: list[str], environ: Mapping[str, str]) -> str:
    """Return what a program of Slurm's says; raises TunnelError."""
    try:
        done = process.run(argv, timeout_s=_ASK_TIMEOUT_S, environ=outside(environ))
    except FileNotFoundError:
        raise TunnelError("job", f"{argv[0]} is not on PATH here") from None
    except process.TooMuchError:
        raise TunnelError("job", f"{argv[0]} says more than any answer holds") from None
    except subprocess.TimeoutExpired:
        raise TunnelError("job", f"{argv[0]} has not answered for {_ASK_TIMEOUT_S} s") from None
    if done.returncode and not done.stdout:
        words = heard.last_line(done.stderr) or f"exit code {done.returncode}"
        raise TunnelError("job", f"{argv[0]}: {words}")
    return done.stdout.decode(errors="replace")


def _parse(line: str) -> Tunnel | str:
    """Return what one node says in `line`; its name if it has no tunnel or says what cannot be understood."""
    _, node, *rest = line.split("\t")
    try:
        key, pid, directory, url, status = rest
        job, _, restart = key.partition(".")
        values = json.loads(status)
        return told(key=(job, int(restart)), directory=Path(directory), pid=int(pid), url=url, status=values, node=node)
    except (ValueError, AttributeError):
        return node

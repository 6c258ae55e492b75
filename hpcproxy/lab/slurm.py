"""The lab's Slurm: real slurmctld, slurmd and munged, their configuration, and jobs."""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Iterable, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass

from hpcproxy.errors import LabError
from hpcproxy.lab import cgroup, release
from hpcproxy.lab.accounts import ids
from hpcproxy.lab.command import tail
from hpcproxy.lab.machine import Machine
from hpcproxy.lab.spec import CONTROLLER, LabSpec

CONTROLLER_LOG = "/var/log/slurm/slurmctld.log"
NODE_LOG = "/var/log/slurm/slurmd.log"
CONTROLLER_PORT = 6817
MUNGE_KEY = "/etc/munge/munge.key"
# Named, so that slurmd does not probe the machine: on one with cgroup v2 alone it does not start then (22.05). The
# lab's usual way of tracking processes needs no cgroup, and none is made.
_CGROUP_CONFS = (((23, 11), "CgroupPlugin=disabled\n"), ((21, 8), "CgroupPlugin=cgroup/v1\n"), ((0,), "\n"))
RUNNING_STATES = ("PENDING", "RUNNING", "CONFIGURING", "COMPLETING", "SUSPENDED", "REQUEUED", "STOPPED", "RESIZING")
# `planned`: the backfill scheduler means it for a job, for 30 s after that has gone too. sinfo(1), NODE STATE CODES.
_BUSY_OR_IDLE = ("idle", "mixed", "allocated", "completing", "planned")
_UNKNOWN_S = 5.0  # from 24.11 on a node is `unknown` for a moment after `scontrol reconfigure`


@dataclass(frozen=True)
class JobResult:
    """How a job ended. `fields` is all that `scontrol show job` says; `output` is its stdout file."""

    job_id: int
    state: str
    exit_code: int
    exit_signal: int
    derived_exit_code: int
    output: str
    fields: Mapping[str, str]


def slurm_conf(spec: LabSpec) -> str:
    """slurm.conf: the lab's lines, with those of `spec.slurm_conf` in their place or after them."""
    nodes = f"c[1-{spec.nodes}]" if spec.nodes > 1 else "c1"
    gres = f" Gres=gpu:{spec.gpus}" if spec.gpus else ""
    lines = {
        "ClusterName": "lab",
        "SlurmctldHost": CONTROLLER,
        "SlurmUser": "slurm",
        "AuthType": "auth/munge",
        "MpiDefault": "none",
        "ProctrackType": f"proctrack/{spec.proctrack}",
        "TaskPlugin": "task/none",
        "SelectType": "select/cons_tres",
        "SelectTypeParameters": "CR_Core_Memory",
        "DefMemPerCPU": str(max(1, spec.memory_mb // spec.cpus)),
        "SchedulerParameters": "batch_sched_delay=0",  # 3 s otherwise
        "ReturnToService": "2",
        "SlurmdParameters": "config_overrides",
        "MinJobAge": "86400",
        "SlurmctldPort": str(CONTROLLER_PORT),
        "StateSaveLocation": "/var/spool/slurmctld",
        "SlurmdSpoolDir": "/var/spool/slurmd",
        "SlurmctldPidFile": "/run/slurmctld.pid",
        "SlurmdPidFile": "/run/slurmd.pid",
        "SlurmctldLogFile": CONTROLLER_LOG,
        "SlurmdLogFile": NODE_LOG,
        **({"GresTypes": "gpu"} if spec.gpus else {}),
        "NodeName": f"{nodes} CPUs={spec.cpus} RealMemory={spec.memory_mb}{gres}",
        "PartitionName": f"main Nodes={nodes} Default=YES MaxTime=INFINITE State=UP OverSubscribe=NO",
    }
    own_names = {key.lower(): key for key in lines}
    for key, value in spec.slurm_conf.items():
        lines[own_names.get(key.lower(), key)] = value
    return "".join(f"{key}={value}\n" for key, value in lines.items())


def configure(machines: Iterable[Machine], spec: LabSpec) -> None:
    """Give the hosts of the cluster Slurm's configuration, a common munge key and the daemons' directories."""
    key = os.urandom(128)
    text = slurm_conf(spec)
    for machine in machines:
        munge, slurm = ids(machine, "munge"), ids(machine, "slurm")
        for directory in ("/etc/munge", "/run/munge", "/var/lib/munge", "/var/log/munge"):
            machine.directory(directory, 0o755 if directory == "/run/munge" else 0o700, munge)
        machine.put(MUNGE_KEY, key, 0o400, munge)
        machine.put("/etc/slurm/slurm.conf", text)
        machine.put("/etc/slurm/cgroup.conf", _cgroup_conf(machine, spec))
        machine.directory("/var/log/slurm", owner=slurm)
        if machine.host.role == "controller":
            machine.directory("/var/spool/slurmctld", 0o700, slurm)
        else:
            machine.directory("/var/spool/slurmd")
        if machine.host.role == "compute" and spec.gpus:
            last = f"[0-{spec.gpus - 1}]" if spec.gpus > 1 else "0"
            machine.put("/etc/slurm/gres.conf", f"Name=gpu File=/dev/gpu{last}\n")
        if machine.host.role == "compute" and spec.proctrack == "cgroup":
            _put_starter(machine)


def version(machine: Machine) -> tuple[int, ...]:
    """Return the version of the Slurm that `machine` has, 22.05.8 as (22, 5, 8); raises LabError."""
    said = machine.run(["sbatch", "--version"], check=True).stdout
    match = re.search(r"\d+(\.\d+)+", said)
    if match is None:
        raise LabError(f"{machine.name}: sbatch says no version: {said.strip()}")
    return tuple(map(int, match[0].split(".")))


def _put_starter(node: Machine) -> None:
    """The slurmd of `node` runs in the node's own cgroups."""
    if library := cgroup.library(release.CACHE):
        node.put(cgroup.LIBRARY, library, 0o755)
    node.put(cgroup.STARTER, cgroup.starter(), 0o755)


def _cgroup_conf(machine: Machine, spec: LabSpec) -> str:
    if spec.proctrack == "cgroup":
        return cgroup.CONF
    has = version(machine)
    return next(text for since, text in _CGROUP_CONFS if has >= since)


def start(machines: Iterable[Machine], pool: Executor) -> None:
    """Start munged, slurmctld and slurmd; the nodes may still be registering."""
    every = tuple(machines)
    controller = next(machine for machine in every if machine.host.role == "controller")
    started = pool.map(_start_munge, every)
    _wait_each(started)
    controller.run(["slurmctld"], check=True)
    deadline = time.monotonic() + 20
    while all(port != CONTROLLER_PORT for _, port, _ in controller.listeners()):
        ended = not any("slurmctld" in command for _, _, command in controller.processes())
        if ended or time.monotonic() > deadline:
            raise LabError(f"lab: slurmctld does not listen: {controller.read_tail(CONTROLLER_LOG)}")
        time.sleep(0.01)
    _wait_each(pool.map(_start_node, (machine for machine in every if machine.host.role == "compute")))


def wait_idle(controller: Machine, nodes: Iterable[Machine], timeout_s: float) -> None:
    """Wait until every node is idle; raises LabError with the log of one that is not."""
    deadline = time.monotonic() + timeout_s
    by_name = {node.name: node for node in nodes}
    while True:
        states = node_states(controller)
        waiting = [name for name in by_name if states.get(name) != "idle"]
        if not waiting:
            return
        if time.monotonic() > deadline:
            log = by_name[waiting[0]].read_tail(NODE_LOG)
            seen = ", ".join(f"{name} is {states.get(name, 'unknown')}" for name in waiting)
            raise LabError(f"lab: after {timeout_s:.0f} s {seen}; {waiting[0]} says: {log}")
        time.sleep(0.05)


def node_states(controller: Machine) -> dict[str, str]:
    """Each node's state as sinfo names it; empty while slurmctld does not answer."""
    done = controller.run(["sinfo", "--noheader", "--Node", "--format=%N %T"])
    return dict(line.split(maxsplit=1) for line in done.stdout.splitlines())


def drained(controller: Machine) -> list[str]:
    """Return the nodes that take no more work."""
    deadline = time.monotonic() + _UNKNOWN_S
    states = node_states(controller)
    while any(state.startswith("unknown") for state in states.values()) and time.monotonic() < deadline:
        time.sleep(0.05)
        states = node_states(controller)
    if not states:
        raise LabError("lab: slurmctld does not answer sinfo")
    return sorted(name for name, state in states.items() if state.rstrip("*+~#@") not in _BUSY_OR_IDLE)


def job_fields(controller: Machine, job_id: int) -> dict[str, str]:
    """Return what scontrol says of the job, by field name."""
    done = controller.run(["scontrol", "--oneliner", "show", "job", str(job_id)], check=True)
    return dict(word.split("=", 1) for word in done.stdout.splitlines()[0].split() if "=" in word)


def wait_job(controller: Machine, job_id: int, timeout_s: float) -> dict[str, str]:
    """Wait for the job's end on every node and return its fields."""
    deadline = time.monotonic() + timeout_s
    while True:
        fields = job_fields(controller, job_id)
        if fields["JobState"] not in RUNNING_STATES:
            return fields
        if time.monotonic() > deadline:
            why = fields.get("Reason", "")
            raise LabError(f"lab: job {job_id} is {fields['JobState']} ({why}) after {timeout_s:g} s")
        time.sleep(0.05)


def result(fields: Mapping[str, str], machines: Mapping[str, Machine]) -> JobResult:
    """Return the result that `fields` tell, with the output read where the job wrote it."""
    code, _, ended_by = fields["ExitCode"].partition(":")
    writer = machines.get(fields.get("BatchHost", ""), machines[CONTROLLER])
    output = ""
    with contextlib.suppress(FileNotFoundError):  # a job cancelled before its start wrote nothing
        output = writer.path(fields["StdOut"]).read_text(errors="replace") if "StdOut" in fields else ""
    derived = int(fields.get("DerivedExitCode", "0:0").partition(":")[0])
    return JobResult(int(fields["JobId"]), fields["JobState"], int(code), int(ended_by), derived, output, fields)


def _start_munge(machine: Machine) -> None:
    become = ["setpriv", "--reuid=munge", "--regid=munge", "--init-groups", "--"]
    machine.run([*become, "/usr/sbin/munged"], check=True)


def _start_node(machine: Machine) -> None:
    done = machine.run(["slurmd"])
    if done.returncode != 0:
        said = tail(done.stderr + machine.read_tail(NODE_LOG), 6)
        raise LabError(f"{machine.name}: slurmd does not start: {said}")


def _wait_each(results: Iterable[None]) -> None:
    for _ in results:
        pass

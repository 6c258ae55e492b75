"""Building a lab: from a spec to hosts that answer. Starts processes, and writes into the hosts' own file systems."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any

import hpcproxy
from hpcproxy.errors import LabError
from hpcproxy.lab import accounts, cgroup, network, record, release, slurm, sshd, trust
from hpcproxy.lab.command import tail
from hpcproxy.lab.cradle import KEEP
from hpcproxy.lab.machine import Machine
from hpcproxy.lab.spec import CONTROLLER, INTERNET, INTERNET_NAME, LOGIN, Host, LabSpec

READY_TIMEOUT_S = 60.0
INTERNET_LOG = "/var/log/internet.log"
_WORKERS = 8
_PACKAGE = Path(hpcproxy.__file__).resolve().parent
# -I: the caller's PYTHON* variables, user site and working directory stay out; the package is found by its own path.
_BOOT = "import sys; sys.path.insert(0, sys.argv[1]); from hpcproxy.lab.cradle import main; main()"


def build(spec: LabSpec, on_step: Callable[[str], None]) -> tuple[record.Process, dict[str, int]]:
    """Build the lab and put it on record; return its root process and each host's. A failure leaves nothing of it."""
    started = time.monotonic()
    if spec.release and sys.prefix == sys.base_prefix:
        raise LabError("lab: hosts of another release need hpcproxy in a virtual environment: theirs takes its place")
    for suite in sorted(set(spec.release.values())):
        release.fetch(suite, on_step)
    on_step(f"lab {spec.name}: {len(spec.hosts)} hosts")
    with tempfile.TemporaryFile("w+") as errors:
        cradle = _start_cradle(spec, errors)
        root: record.Process | None = None
        try:
            root = record.Process.of(_next_fact(cradle, errors)["root"])
            record.write(spec.name, record.Record(spec.to_json(), root, {}, ready=False))
            pids = _hear_hosts(cradle, errors, len(spec.hosts) + 1)
            machines = {host.name: Machine(host, pids[host.name]) for host in spec.hosts}
            on_step("networks")
            network.connect(spec.hosts, pids)
            _furnish_and_start(spec, machines, on_step)
            wait_ready(machines, READY_TIMEOUT_S)
            record.write(spec.name, record.Record(spec.to_json(), root, pids, ready=True))
            _pipe(cradle.stdin).write(f"{KEEP}\n")
            _pipe(cradle.stdin).flush()
        except BaseException:
            if root is not None:
                root.end()
            with contextlib.suppress(LabError):  # what went wrong first is what there is to tell
                cgroup.remove(spec.name)
            record.clear(spec.name)
            raise
        finally:
            _close(cradle)
    on_step(f"ready after {time.monotonic() - started:.1f} s")
    return root, pids


def wait_ready(machines: Mapping[str, Machine], timeout_s: float) -> None:
    """Every node is idle or busy, both sshd and the internet answer; else LabError with the cause and a log's end."""
    controller = machines[CONTROLLER]
    nodes = [machine for machine in machines.values() if machine.host.role == "compute"]
    slurm.wait_idle(controller, nodes, timeout_s)
    for machine in machines.values():
        if machine.host.role == "jump":
            banner = f"exec 3<>/dev/tcp/{machine.name}/22 && read -r -t 5 line <&3 && [[ $line == SSH-* ]]"
            _answer(controller, ["bash", "-c", banner], machine, sshd.LOG, timeout_s)
            page = ["curl", "--silent", "--show-error", "--fail", "--max-time", "5", f"https://{INTERNET_NAME}/ip"]
            _answer(machine, page, machines[INTERNET], INTERNET_LOG, timeout_s)


def _furnish_and_start(spec: LabSpec, machines: Mapping[str, Machine], on_step: Callable[[str], None]) -> None:
    every = tuple(machines.values())
    cluster = [machine for machine in every if machine.host.in_cluster]
    jumps = [machine for machine in every if machine.host.role == "jump"]
    with ThreadPoolExecutor(_WORKERS) as pool:
        on_step("names, users, certificates")
        _name_hosts(spec, every)
        accounts.create(every)
        slurm.configure(cluster, spec)
        on_step("services")
        with_sshd = [machine for machine in cluster if spec.node_sshd]
        if with_sshd:
            accounts.admit_root(machines[CONTROLLER], with_sshd)
        outside = [pool.submit(_start_jump, host) for host in (*jumps, *with_sshd)]
        outside.append(pool.submit(_start_internet, every, machines[INTERNET]))
        slurm.start(cluster, pool)
        for future in outside:
            future.result()


def _name_hosts(spec: LabSpec, machines: tuple[Machine, ...]) -> None:
    """Every host knows the names of the cluster; only those on the outer network know the internet's. No DNS."""
    cluster = [f"{host.links[0].address} {host.name}" for host in spec.hosts if host.name != INTERNET]
    internet = f"{spec.host(INTERNET).links[0].address} {INTERNET_NAME} {INTERNET}"
    for machine in machines:
        lines = ["127.0.0.1 localhost", "::1 localhost ip6-localhost ip6-loopback", *cluster]
        lines[2] += f" {LOGIN}"
        if not machine.host.in_cluster:
            lines.append(internet)
        machine.put("/etc/hosts", "".join(f"{line}\n" for line in lines))
        machine.put("/etc/hostname", f"{machine.name}\n")
        machine.put("/etc/resolv.conf", "# No name server: glibc asks 127.0.0.1, is refused and fails at once.\n")
        machine.put("/etc/nsswitch.conf", "passwd: files\ngroup: files\nshadow: files\nhosts: files dns\n")
        for directory in ("/etc/hpcproxy", "/etc/profile.d", "/etc/ssh", "/usr/libexec/hpcproxy"):
            machine.directory(directory)


def _start_jump(jump: Machine) -> None:
    sshd.configure(jump, {})
    sshd.make_host_keys(jump)
    sshd.start(jump)


def _start_internet(machines: tuple[Machine, ...], server: Machine) -> None:
    trust.establish(machines, server)
    program = str(_PACKAGE / "lab" / "internet.py")
    server.run([sys.executable, "-I", program, trust.CERTIFICATE, trust.PRIVATE_KEY, INTERNET_LOG], check=True)


def _answer(asker: Machine, argv: list[str], asked: Machine, log: str, timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    while True:
        done = asker.run(argv)
        if done.returncode == 0:
            return
        if time.monotonic() > deadline:
            said = tail(done.stderr, 2)
            raise LabError(f"lab: {asked.name} does not answer {asker.name}: {said}; its log: {asked.read_tail(log)}")
        time.sleep(0.05)


def _start_cradle(spec: LabSpec, errors: IO[str]) -> subprocess.Popen[str]:
    cradle = subprocess.Popen(
        [sys.executable, "-I", "-c", _BOOT, str(_PACKAGE.parent)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=errors,
        text=True,
        cwd="/",
        env={"PATH": os.defpath, "LANG": "C.UTF-8"},
        start_new_session=True,
    )
    _pipe(cradle.stdin).write(json.dumps(_plan(spec)) + "\n")
    _pipe(cradle.stdin).flush()
    return cradle


def _plan(spec: LabSpec) -> dict[str, Any]:
    """Return what the cradle must know. The python that runs us and this package are always visible in the lab.

    Paths without a symbolic link come first: what is shown earlier is there when a link that leads to it is shown.
    """
    python = (Path(sys.prefix), Path(sys.base_prefix), Path(sys.executable))
    return {
        "exposed": _in_order((*spec.expose, _PACKAGE, *python)),
        # Where the files are another release's, its own python stands in for ours.
        "exposed_to_releases": _in_order((*spec.expose, _PACKAGE)),
        "python": {"prefix": sys.prefix, "name": Path(sys.executable).name, "package": str(_PACKAGE.parent)},
        "hosts": [
            {
                "name": host.name,
                "own_home": not host.in_cluster,
                "gpus": spec.gpus if host.role == "compute" else 0,
                "root": str(release.directory(spec.release[host.role])) if host.role in spec.release else "",
                "cgroup": str(cgroup.directory(spec.name, host.name)) if _has_cgroup(spec, host) else "",
            }
            for host in spec.hosts
        ],
    }


def _has_cgroup(spec: LabSpec, host: Host) -> bool:
    return spec.proctrack == "cgroup" and host.role == "compute"


def _in_order(paths: tuple[Path, ...]) -> list[str]:
    every = {path for wanted in paths for path in (wanted, wanted.resolve())}
    return [str(path) for path in sorted(every, key=lambda path: (path != path.resolve(), path))]


def _hear_hosts(cradle: subprocess.Popen[str], errors: IO[str], count: int) -> dict[str, int]:
    pids: dict[str, int] = {}
    while len(pids) < count:
        fact = _next_fact(cradle, errors)
        pids[fact["host"]] = fact["pid"]
    return pids


def _next_fact(cradle: subprocess.Popen[str], errors: IO[str]) -> dict[str, Any]:
    line = _pipe(cradle.stdout).readline()
    fact: dict[str, Any] = json.loads(line) if line else {"error": "its root process ended"}
    if "error" in fact:
        errors.seek(0)
        raise LabError(f"the lab cannot be built here: {fact['error']}; {tail(errors.read(), 3)}")
    return fact


def _pipe(pipe: IO[str] | None) -> IO[str]:
    if pipe is None:
        raise LabError("lab: no pipe to the root process")
    return pipe


def _close(cradle: subprocess.Popen[str]) -> None:
    for pipe in (cradle.stdin, cradle.stdout):
        if pipe is not None:
            pipe.close()
    cradle.wait()

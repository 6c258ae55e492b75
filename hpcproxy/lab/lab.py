"""`Lab`: a running cluster and what can be done with it."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from hpcproxy.errors import LabError
from hpcproxy.lab import build, cgroup, network, packages, record, slurm, sshd
from hpcproxy.lab.command import HostProcess
from hpcproxy.lab.cradle import SWITCH
from hpcproxy.lab.machine import Machine
from hpcproxy.lab.slurm import JobResult
from hpcproxy.lab.spec import CONTROLLER, LabSpec


def _silent(_step: str) -> None:
    return None


class Lab:
    """A lab that runs. Made by `up` and `attach`; holds no process and no file open, so it needs no closing."""

    def __init__(self, spec: LabSpec, root: record.Process, pids: Mapping[str, int]) -> None:
        self.spec = spec
        self._root = root
        self._switch = pids[SWITCH]
        self._machines = {host.name: Machine(host, pids[host.name]) for host in spec.hosts}

    # ---- being there

    @classmethod
    def up(cls, spec: LabSpec, on_step: Callable[[str], None] = _silent) -> Lab:
        """Make the lab of `spec` run and answer.

        One that already runs by this name is kept when it was built from an equal spec and answers; any other is
        removed first. When the building fails, or the builder is killed, nothing of it stays.
        """
        packages.require_privilege()
        packages.ensure(packages.LAB_TOOLS, on_step)
        with record.locked(spec.name):
            running = cls._running(spec.name)
            if running is not None and running.spec == spec and running.answers():
                on_step(f"lab {spec.name} is up already")
                return running
            cls._remove(spec.name, on_step)
            root, pids = build.build(spec, on_step)
        return cls(spec, root, pids)

    @classmethod
    def attach(cls, name: str) -> Lab:
        """Return the running lab `name`; raises LabError when there is none."""
        packages.require_privilege()
        lab = cls._running(name)
        if lab is None:
            raise LabError(f"no lab {name!r} runs on this machine; lab.up makes one")
        return lab

    @classmethod
    def remove(cls, name: str, on_step: Callable[[str], None] = _silent) -> bool:
        """Remove the lab `name`, whole or half-built, and tell whether there was one."""
        packages.require_privilege()
        if not record.record_path(name).exists():
            return False
        with record.locked(name):
            return cls._remove(name, on_step)

    def down(self, on_step: Callable[[str], None] = _silent) -> None:
        """Remove this lab, so that nothing of it is left. A later lab of the same name stays."""
        if not record.record_path(self.spec.name).exists():
            self._root.end()
            return
        with record.locked(self.spec.name):
            now = record.read(self.spec.name)
            if now is not None and now.root == self._root:
                self._remove(self.spec.name, on_step)
        self._root.end()

    @property
    def alive(self) -> bool:
        """Whether the lab's root process still runs."""
        return self._root.alive

    def answers(self) -> bool:
        """Whether every service that `up` waits for answers now."""
        try:
            build.wait_ready(self._machines, timeout_s=3)
        except LabError:
            return False
        return True

    @classmethod
    def _running(cls, name: str) -> Lab | None:
        kept = record.read(name)
        if kept is None or not kept.ready or not kept.root.alive:
            return None
        with contextlib.suppress(LabError, TypeError, KeyError):  # a record of another version: not ours to use
            return cls(LabSpec.from_json(kept.spec), kept.root, kept.pids)
        return None

    @classmethod
    def _remove(cls, name: str, on_step: Callable[[str], None]) -> bool:
        kept = record.read(name)
        was_there = kept is not None and kept.root.alive
        if kept is not None and was_there:
            on_step(f"removing lab {name}")
            kept.root.end()
        try:
            cgroup.remove(name)
        finally:
            record.clear(name)
        return was_there

    # ---- hosts and commands

    @property
    def hosts(self) -> tuple[str, ...]:
        """The names of all hosts."""
        return tuple(self._machines)

    @property
    def nodes(self) -> tuple[str, ...]:
        """The names of the compute nodes."""
        return tuple(name for name, machine in self._machines.items() if machine.host.role == "compute")

    def machine(self, host: str) -> Machine:
        """Return the host of that name ("login" is the controller); the LabError lists the names."""
        return self._machines[self.spec.host(host).name]

    def run(  # noqa: PLR0913  the options subprocess.run has
        self,
        host: str,
        argv: Sequence[str],
        user: str = "root",
        *,
        env: Mapping[str, str] | None = None,
        input: str | None = None,  # noqa: A002  the name subprocess.run has
        timeout_s: float = 60,
        check: bool = False,
        cwd: str | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run `argv` on `host` as `user` to its end; raises LabError after `timeout_s`, or with `check` if it failed.

        The command has a fresh login's environment plus `env`, and the user's home as its directory.
        """
        return self.machine(host).run(argv, user, env=env, input=input, timeout_s=timeout_s, check=check, cwd=cwd)

    def popen(
        self,
        host: str,
        argv: Sequence[str],
        user: str = "root",
        *,
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
        **pipes: Any,  # noqa: ANN401  what Popen takes: stdin, stdout, stderr
    ) -> HostProcess:
        """Start `argv` on `host` as `user`; signals sent to the result reach the command itself."""
        return self.machine(host).popen(argv, user, env=env, cwd=cwd, **pipes)

    def call(self, host: str, argv: Sequence[str], user: str = "root") -> int:
        """Run `argv` on `host` with the caller's terminal and return its exit code."""
        return subprocess.run(self.machine(host).command(argv, user), check=False).returncode

    def path_on(self, host: str, path: str) -> Path:
        """Return where `path` of `host` is for this process; symbolic links are followed within the host."""
        return self.machine(host).path(path)

    def processes(self, host: str) -> list[tuple[int, str, str]]:
        """(pid inside, user, command line) of every process of `host` but its first."""
        return self.machine(host).processes()

    def listeners(self, host: str) -> list[tuple[str, int, int]]:
        """(address, port, uid) of every TCP listener of `host`."""
        return self.machine(host).listeners()

    # ---- jobs

    def submit(self, script: str | Path, user: str = "alice", args: Sequence[str] = (), cwd: str | None = None) -> int:
        """Queue the job and return its id. A `str` is the script itself, a `Path` a file on this machine."""
        text = script.read_text() if isinstance(script, Path) else script
        done = self.run(CONTROLLER, ["sbatch", "--parsable", *args], user, input=text, cwd=cwd, check=True)
        return int(done.stdout.split(";")[0])

    def wait_job(self, job_id: int, timeout_s: float = 120) -> JobResult:
        """Wait for the job's end on every node; raises LabError when that takes longer than `timeout_s`."""
        fields = slurm.wait_job(self.machine(CONTROLLER), job_id, timeout_s)
        return slurm.result(fields, self._machines)

    def job_fields(self, job_id: int) -> dict[str, str]:
        """Return what scontrol says of the job now, by field name."""
        return slurm.job_fields(self.machine(CONTROLLER), job_id)

    def drained(self) -> list[str]:
        """Return the nodes that take no more work: neither idle nor busy."""
        return slurm.drained(self.machine(CONTROLLER))

    # ---- faults

    def link(self, host: str, up: bool, network_name: str | None = None) -> None:
        """Let packets of `host` pass, or vanish without a word, on the network named or on all of its networks."""
        links = [link for link in self.machine(host).host.links if network_name in (None, link.network)]
        if not links:
            raise LabError(f"lab: {host} is not on a network {network_name!r}")
        for link in links:
            network.set_link(self._switch, link, up)

    def wire(self, host: str, other: str, up: bool) -> None:
        """Let packets between two hosts pass, or vanish without a word, while both reach everybody else."""
        pair = [self.machine(name) for name in (host, other)]
        network.set_wire(pair[0].host, pair[1].host, {machine.name: machine.pid for machine in pair}, up)

    def sshd(self, host: str, config: Mapping[str, str] | None = None) -> None:
        """Start the sshd of `host` anew, with `config` before its own lines; open sessions live on."""
        machine = self._jump(host)
        sshd.stop(machine, sessions=False)
        sshd.configure(machine, config or {})
        sshd.start(machine)

    def sshd_stop(self, host: str, sessions: bool = True) -> None:
        """Stop the sshd of `host`, so that connections are refused; with `sessions` the open ones are cut."""
        sshd.stop(self._jump(host), sessions)

    def new_host_key(self, host: str) -> None:
        """Give the sshd of `host` other host keys than before; open sessions live on."""
        machine = self._jump(host)
        sshd.stop(machine, sessions=False)
        sshd.make_host_keys(machine)
        sshd.start(machine)

    def _jump(self, host: str) -> Machine:
        machine = self.machine(host)
        if machine.host.role != "jump" and not (machine.host.role == "compute" and self.spec.node_sshd):
            raise LabError(f"lab: {host} has no sshd; jump1 and jump2 have")
        return machine

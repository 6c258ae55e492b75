"""Alice (or bob), who has no root: she sets hpcproxy up with the real commands and submits jobs with the hook line."""

from __future__ import annotations

import subprocess
import sys
from functools import partial
from typing import Any

import yaml

from hpcproxy.account import job_script
from hpcproxy.lab import JobResult, Lab
from hpcproxy.lab.spec import USERS
from tests import waiting

JUMP1, JUMP2 = "alice@192.168.31.10", "alice@192.168.31.11"
OUTER1, OUTER2 = "203.0.113.10", "203.0.113.11"
FETCH = "curl -sS --max-time 20 https://internet.test/ip"
# A real Slurm, and several machines on one: what is waited for takes longer.
until = partial(waiting.until, deadline_s=60.0)


class Researcher:
    """What Alice does on the login node; or somebody else, called `user`."""

    def __init__(self, lab: Lab, user: str = "alice", home: str = ".hpcproxy") -> None:
        self.lab = lab
        self.user = user
        self.agent = True
        self.home = f"/home/{user}/{home}"
        self.environment = {} if home == ".hpcproxy" else {"HPCPROXY_HOME": self.home}

    def address(self, job: int) -> str:
        """Where the tunnel of `job` is, on each of its nodes."""
        return f"127.{64 + (job >> 16 & 63)}.{job >> 8 & 255}.{job & 255}"

    def url(self, job: int) -> str:
        """What the variables of `job` say."""
        return f"{'http' if self.agent else 'socks5h'}://{self.address(job)}:2015"

    def hpcproxy(
        self, *arguments: str, node: str = "login", check: bool = True, timeout_s: float = 60
    ) -> subprocess.CompletedProcess[str]:
        """The program has run in her account."""
        words = [sys.executable, "-m", "hpcproxy", *arguments]
        return self.lab.run(node, words, self.user, check=check, env=self.environment, timeout_s=timeout_s)

    def set_up(self, *jumps: str, **settings: Any) -> None:
        """Her account is as after `init` and `install-bashrc`, with `settings` in her config.yaml and little else.

        What her jobs print is compared as a whole, so the hook says nothing while all is well.
        """
        self.lab.run("login", ["rm", "-rf", self.home, ".bashrc"], self.user, check=True)
        flags = [word for jump in jumps or (JUMP1.replace("alice", self.user),) for word in ("--jump", jump)]
        self.hpcproxy("init", "--yes", "--no-probe", *flags)
        self.set(check_url="https://internet.test/ip", agent=self.agent, **{"quiet": True, **settings})

    def set(self, **settings: Any) -> None:
        """Her config.yaml has `settings` on top of what is in it, and is installed."""
        path = self.lab.path_on("login", f"{self.home}/config.yaml")
        path.write_text(yaml.safe_dump({**yaml.safe_load(path.read_text()), **settings}))
        self.hpcproxy("install-bashrc", "--port", "2015")

    def submit(self, body: str, options: str = "#SBATCH -N3 --ntasks-per-node=1", shell: str = "/bin/bash") -> int:
        """A job with the hook line behind `options` is queued."""
        script = f"#!{shell}\n{options}\n{body}"
        return self.lab.submit(job_script.put(script.encode()).decode(), self.user)

    def job(self, body: str, options: str = "#SBATCH -N3 --ntasks-per-node=1", shell: str = "/bin/bash") -> JobResult:
        """The job has run to its end."""
        return self.lab.wait_job(self.submit(body, options, shell))

    def shell(self, job: int, node: str, command: str) -> subprocess.CompletedProcess[str]:
        """An interactive bash has run `command` inside `job` on `node`."""
        step = ["srun", f"--jobid={job}", "--overlap", "-N1", "-n1", "-w", node, "bash", "-ic", command]
        return self.lab.run("login", step, self.user)

    def traces(self) -> list[str]:
        """Every process, listener and file of hers on the compute nodes."""
        found = []
        for node in self.lab.nodes:
            found += [f"{node}: process {line}" for _, user, line in self.lab.processes(node) if user == self.user]
            found += [f"{node}: listener {a}:{p}" for a, p, uid in self.lab.listeners(node) if uid == USERS[self.user]]
            for directory in ("/tmp", "/dev/shm", "/run", "/var/tmp"):
                listed = self.lab.run(node, ["find", directory, "-user", self.user], check=True).stdout.split()
                found += [f"{node}: file {path}" for path in listed]
        return found

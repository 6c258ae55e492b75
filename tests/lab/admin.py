"""The admin: root on the controller, with an inventory and the real commands."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import yaml

from hpcproxy.lab import JobResult, Lab

JUMP1 = "192.168.31.10"
OUTER1 = "203.0.113.10"
FETCH = "curl -sS --max-time 20 https://internet.test/ip"
DIRECTORY = "/root/site"
INVENTORY = f"{DIRECTORY}/site.yaml"
REPORT = f"{DIRECTORY}/report.json"


class Admin:
    """What the admin does; jobs are alice's, who has nothing of hpcproxy in her home."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.inventory: dict[str, Any] = {}
        self.said = ""

    def describe(self, **inventory: Any) -> None:
        """The inventory says `inventory` on top of the usual, and all host keys are trusted."""
        nodes = f"c[1-{len(self.lab.nodes)}]"
        self.inventory = {"nodes": nodes, "controllers": "ctl", "settings": {"jump": [JUMP1]}, **inventory}
        self.write()
        self.run("trust", "--replace-key")

    def write(self) -> None:
        self.lab.run("ctl", ["mkdir", "-p", DIRECTORY], check=True)
        self.lab.path_on("ctl", INVENTORY).write_text(yaml.safe_dump(self.inventory))

    def set(self, **settings: Any) -> None:
        """The inventory's `settings` have these on top."""
        self.inventory["settings"] = {**self.inventory["settings"], **settings}
        self.write()

    def command(self, *arguments: str) -> list[str]:
        if arguments[0] == "trust" and not {"--yes", "--fingerprint"} & set(arguments):
            arguments = (*arguments, "--yes")  # nobody is at a terminal
        return [sys.executable, "-m", "hpcproxy", *arguments, "--inventory", INVENTORY]

    def run(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """The program has run."""
        # Each of its waits is bounded; together, beside other labs on the same few cores, they may exceed a minute.
        return self.lab.run("ctl", self.command(*arguments), check=check, timeout_s=300)

    def outcomes(self, *arguments: str) -> dict[str, tuple[str, str]]:
        """Outcome and cause of every host, as the report has them."""
        self.lab.run("ctl", ["rm", "-f", REPORT])
        done = self.run(*arguments, "--report", REPORT, check=False)
        assert self.lab.path_on("ctl", REPORT).exists(), done.stderr
        report = json.loads(self.lab.path_on("ctl", REPORT).read_text())
        assert done.returncode == (0 if report["good"] else 1), done.stderr
        self.said = done.stderr
        return {host["host"]: (host["outcome"], host["cause"]) for host in report["hosts"]}

    def words(self, *arguments: str) -> set[str]:
        """The different outcomes."""
        return {word for word, _ in self.outcomes(*arguments).values()}

    def job(self, body: str = f"srun {FETCH}\n", options: str = "", user: str = "alice") -> JobResult:
        """A job without any hook has run to its end on all nodes."""
        count = len(self.lab.nodes)
        script = f"#!/bin/bash\n#SBATCH -N{count} --ntasks-per-node=1\n{options}\n{body}"
        return self.lab.wait_job(self.lab.submit(script, user))

    def files(self, node: str) -> list[str]:
        """Kind, mode, owner, path and content of everything where a deployment writes, and in /run/hpcproxy."""
        command = 'find /etc /usr/libexec /var/lib /run/hpcproxy* -printf "%y %m %u %g %p %l\\n" 2>/dev/null | sort;'
        command += " find /etc /var/lib -type f -exec sha256sum {} + | sort"
        return self.lab.run(node, ["sh", "-c", command], check=True).stdout.splitlines()

    def traces(self) -> list[str]:
        """What is left of tunnels on the compute nodes."""
        found = []
        for node in self.lab.nodes:
            for _, user, line in self.lab.processes(node):
                if user in ("alice", "bob", "hpcproxy") or "supervisor.sh" in line:
                    found.append(f"{node}: process {line}")
            found += [f"{node}: listener {a}:{p}" for a, p, uid in self.lab.listeners(node) if uid != 0]
            listed = self.lab.run(node, ["find", "/run/hpcproxy", "-mindepth", "2"]).stdout.split()
            found += [f"{node}: file {path}" for path in listed]
        return found

"""What admins use today: clush, pyinfra and Ansible, as commands that put the same files in place. For deploy.py."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path


def install_others(place: Path) -> str:
    """Install them from PyPI below `place` and return the environment's directory."""
    subprocess.run([sys.executable, "-m", "venv", str(place / "venv")], check=True)
    pip = [str(place / "venv/bin/pip"), "install", "-q", "ClusterShell", "pyinfra", "ansible-core"]
    subprocess.run(pip, check=True)
    return str(place / "venv")


class Others:
    """Their commands, for the files that `work` has."""

    def __init__(self, tools: Path, work: Path, hosts: list[str], fanout: int) -> None:
        self.tools, self.work, self.hosts, self.fanout = tools, work, hosts, fanout
        self.places: list[list[str]] = json.loads((work / "files.json").read_text())

    @property
    def environ(self) -> dict[str, str]:
        """What they run in."""
        ansible = {"ANSIBLE_CONFIG": f"{self.work}/ansible.cfg", "ANSIBLE_HOME": f"{self.work}/ansible"}
        return {**os.environ, **ansible, "PATH": f"{self.tools}/bin:{os.environ['PATH']}"}

    def commands(self) -> dict[str, list[str]]:
        """Each one's command line, its own files written."""
        return {"clush --copy": self._clush(), "pyinfra": self._pyinfra(), "Ansible, pipelining": self._ansible()}

    def _ssh_options(self) -> str:
        known = f"-o UserKnownHostsFile={self.work}/known_hosts -o StrictHostKeyChecking=yes"
        return f"-F /dev/null -i {self.work}/id {known} -o BatchMode=yes"

    def _clush(self) -> list[str]:
        """It copies a tree and nothing more: no mode, no check, one directory."""
        copy = ["--copy", str(self.work / "files"), "--dest", "/usr/libexec/"]
        clush = [f"{self.tools}/bin/clush", "-l", "root", "-f", str(self.fanout), "-o", self._ssh_options()]
        return [*clush, "-w", ",".join(self.hosts), *copy]

    def _pyinfra(self) -> list[str]:
        puts = "".join(
            f"files.put(src={str(self.work / 'files' / str(number))!r}, dest={path!r}, mode={mode!r})\n"
            for number, (path, mode) in enumerate(self.places)
        )
        (self.work / "tree.py").write_text(f"from pyinfra.operations import files\n{puts}")
        data = {
            "ssh_user": "root",
            "ssh_key": str(self.work / "id"),
            "ssh_known_hosts_file": str(self.work / "known_hosts"),
        }
        (self.work / "hosts.py").write_text(f"hosts = ({self.hosts!r}, {data!r})\n")
        argv = [f"{self.tools}/bin/pyinfra", "-y", "--parallel", str(self.fanout)]
        return [*argv, str(self.work / "hosts.py"), str(self.work / "tree.py")]

    def _ansible(self) -> list[str]:
        config = [
            "[defaults]",
            f"forks = {self.fanout}",
            "gathering = explicit",
            "interpreter_python = /usr/bin/python3",
        ]
        config += ["host_key_checking = true", "[ssh_connection]", "pipelining = true"]
        config += [f"ssh_args = {self._ssh_options()} -o ControlMaster=auto -o ControlPersist=60s"]
        (self.work / "ansible.cfg").write_text("".join(f"{line}\n" for line in config))
        folders = sorted({str(Path(path).parent) for path, _ in self.places})
        tasks = [{"file": {"path": folder, "state": "directory"}} for folder in folders]
        tasks += [
            {"copy": {"src": str(self.work / "files" / str(number)), "dest": path, "mode": mode}}
            for number, (path, mode) in enumerate(self.places)
        ]
        play = {"hosts": "all", "remote_user": "root", "tasks": tasks}
        (self.work / "play.yaml").write_text(json.dumps([play]))
        (self.work / "hosts.ini").write_text("".join(f"{host}\n" for host in self.hosts))
        return [f"{self.tools}/bin/ansible-playbook", "-i", str(self.work / "hosts.ini"), str(self.work / "play.yaml")]

"""A cluster of one node for `serve`: a real sshd, and a squeue that says what the test tells it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import yaml

from hpcproxy.node.build import build
from tests.node.harness import Agent, FarEnd
from tests.sshd import USER, Sshd, prepare

JOB = str(400000 + os.getpid())  # a job of its own for whoever runs these tests: agents are found by it
NODE = "127.0.0.1"
PYTHONPATH = os.environ.get("PYTHONPATH", "")


class Cluster:
    """One node, its sshd, the account of a user and what his squeue says."""

    def __init__(self, folder: Path, more: str = "") -> None:
        self.folder, self.home = folder, folder / "home"
        self.sshd: Sshd = prepare(folder / "sshd", more).start()
        self.serving: list[subprocess.Popen[str]] = []
        self.agents: list[Agent] = []
        (self.home / ".hpcproxy").mkdir(parents=True)
        (self.home / ".hpcproxy" / "config.yaml").write_text(yaml.safe_dump({"allow": ["*", NODE]}))
        (self.home / ".hpcproxy" / "agent.pyz").write_bytes(build())
        self.bin = folder / "bin"
        self.bin.mkdir()
        self.before: tuple[str, ...] = ()  # words before `serve`
        self.states = folder / "squeue"
        self._program("squeue", f'cat "{self.states}"\n')
        options = {
            "Port": self.sshd.port,
            "User": USER,
            "IdentityFile": self.sshd.identity,
            "IdentitiesOnly": "yes",
            "IdentityAgent": "none",
            "UserKnownHostsFile": self.sshd.known,
            "GlobalKnownHostsFile": "/dev/null",
        }
        (folder / "ssh_config").write_text("".join(f"{key} {value}\n" for key, value in options.items()))
        # ssh looks into the account's own home, whatever HOME says. What comes later counts, -F /dev/null too.
        self._program("ssh", f'PATH=${{PATH#*:}} exec ssh -F "{folder}/ssh_config" "$@"\n')
        self.tell(f"{JOB} {JOB} RUNNING {NODE}")

    def _program(self, name: str, body: str) -> None:
        path = self.bin / name
        path.write_text(f"#!/bin/sh\n{body}")
        path.chmod(0o700)

    def tell(self, *lines: str) -> None:
        """What squeue says from now on."""
        draft = self.states.with_suffix(".new")
        draft.write_text("".join(f"{line}\n" for line in lines))
        draft.replace(self.states)

    def agent(self, **settings: object) -> Agent:
        """The job's agent, started and without a tunnel so far."""
        found = Agent(self.folder / f"agent{len(self.agents)}", [{"kind": "reverse"}], **settings)
        found.words = ("--job", JOB)
        self.agents.append(found)
        return found.start()

    def serve(self, *words: str) -> subprocess.Popen[str]:
        environ = {
            "PATH": f"{self.bin}:{os.environ['PATH']}",
            "HOME": str(self.home),
            "TMPDIR": str(self.folder),
            "PYTHONPATH": PYTHONPATH,
            "LANG": "C.UTF-8",
        }
        argv = [*self.before, sys.executable, "-m", "hpcproxy", "serve", *(words or ("--job", JOB))]
        with (self.folder / f"said{len(self.serving)}").open("w") as said:
            self.serving.append(
                subprocess.Popen(argv, env=environ, stdin=subprocess.DEVNULL, stdout=said, stderr=said, text=True)
            )
        return self.serving[-1]

    def through(self) -> subprocess.Popen[str]:
        """`serve` on a laptop, with another one on the login node, which this machine is, too."""
        environ = f'PATH="{self.bin}:$PATH" HOME="{self.home}" TMPDIR="{self.folder}" PYTHONPATH="{PYTHONPATH}"'
        self._program("there", f'{environ} exec "{sys.executable}" -m hpcproxy "$@"\n')
        return self.serve("--job", JOB, "--through", NODE, "--program", str(self.bin / "there"))

    def said(self, which: int = 0) -> str:
        return (self.folder / f"said{which}").read_text()

    def close(self) -> None:
        for each in self.serving:
            each.kill()
            each.wait()
        for agent in self.agents:
            agent.stop()
            assert "Traceback" not in agent.err.read_text()
        self.sshd.stop()


def reaches(agent: Agent, server: FarEnd) -> bool:
    sock, head = agent.tunnel(server.target, 40)
    with sock:
        if not head.startswith(b"HTTP/1.1 200 "):
            return False
        sock.sendall(b"hello")
        return bool(sock.recv(5) == b"hello")

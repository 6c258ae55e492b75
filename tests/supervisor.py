"""Runs the rendered tunnel.sh as a job's step would."""

from __future__ import annotations

import itertools
import json
import os
import selectors
import signal
import socket
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hpcproxy.config.layers import Layer, resolve
from hpcproxy.config.places import Home
from hpcproxy.files.plan import account_plan
from hpcproxy.files.render import render
from tests.servers import REACHED, free_port
from tests.shells import url_of
from tests.waiting import DEADLINE_S, until

# A job id of its own, and so an address of its own, for each supervisor.
_job_ids = itertools.count(os.getpid() % 4_000 * 1_000 + 1)

QUICK = {"connect_timeout_s": 2, "retry_max_s": 1, "alive_interval_s": 1, "alive_count": 2, "bypass_private": False}


def write_script(directory: Path, known_hosts: str = "", **settings: Any) -> Path:
    """Write all files of these settings, and the known hosts, into `directory`; return the path of tunnel.sh."""
    directory.mkdir(exist_ok=True)
    values = {"port": free_port(), "allow": REACHED, **QUICK, **settings}
    home = Home(directory)
    home.known_hosts.write_text(known_hosts)
    for file in render(account_plan(resolve(Layer("test", values)), home)).files:
        file.artifact.path.write_bytes(file.content)
    return directory / "tunnel.sh"


class Supervisor:
    """A running `tunnel.sh hold`."""

    def __init__(self, script: Path, job: str = "", environ: Mapping[str, str] = os.environ) -> None:
        self.job = job or str(next(_job_ids))
        argv = ["/bin/bash", "-p", str(script), "hold", self.job, "0"]
        self.process = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,  # so that what `select` sees is all there is
            start_new_session=True,
            env=dict(environ),
        )
        self.lines: list[str] = []
        self._base = Path(environ["TMPDIR"])

    def line(self, *verbs: str) -> str:
        """Return the next line whose first word is one of `verbs`."""
        assert self.process.stdout is not None
        end = time.monotonic() + DEADLINE_S
        with selectors.DefaultSelector() as selector:
            selector.register(self.process.stdout, selectors.EVENT_READ)
            while time.monotonic() < end:
                if not selector.select(max(0.0, end - time.monotonic())):
                    break
                line = os.fsdecode(self.process.stdout.readline()).rstrip("\n")
                self.lines.append(line)
                if line.split(" ")[0] in verbs:
                    return line
                assert line, f"it ended: {self.lines}, {self.process.stderr and self.process.stderr.read()!r}"
        raise AssertionError(f"no line {' or '.join(verbs)}: {self.lines}")

    @property
    def state(self) -> Path:
        (directory,) = self._base.glob(f"hpcproxy-*/{self.job}.0-*")
        return directory

    @property
    def url(self) -> str:
        return url_of(self.state)

    def status(self) -> dict[str, Any]:
        """Return status.json, which a supervisor writes once it knows something."""
        path = self.state / "status.json"
        until(path.exists, f"there is {path}")
        status: dict[str, Any] = json.loads(path.read_text())
        return status

    @property
    def ssh_pids(self) -> list[int]:
        """Its own child where the shell holds ssh, its worker's where the agent does."""
        families = [children(self.process.pid), *map(children, children(self.process.pid))]
        return [pid for family in families for pid in family if b"-N\0" in command_line(pid)]

    def end(self, number: int = signal.SIGTERM) -> int:
        """Send the signal, wait, and return the exit code; nothing of it is left then."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        code = self.process.wait(DEADLINE_S)
        for stream in (self.process.stdout, self.process.stderr):
            if stream is not None:
                stream.close()
        return code

    def left_behind(self) -> list[str]:
        """Return what is still there of it: state directories and processes of its session."""
        states = [str(path) for path in self._base.glob("hpcproxy-*")]
        return states + [str(pid) for pid in session(self.process.pid)]


def session(leader: int) -> list[int]:
    """Return the living processes of the session that `leader` began."""
    members = []
    # In one step: glob asks for each file of a second one, and one that ends at that moment is an error to it.
    for path in Path("/proc").glob("[0-9]*"):
        try:
            fields = (path / "stat").read_text().rpartition(") ")[2].split()
        except OSError:
            continue
        if int(fields[3]) == leader and fields[0] != "Z":
            members.append(int(path.name))
    return members


def command_line(pid: int) -> bytes:
    """Return the words of process `pid`, each with a NUL behind it; nothing when it has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def children(pid: int) -> list[int]:
    """Return the pids of its child processes; none when it has ended."""
    try:
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def listens(address: str, port: int) -> bool:
    """Whether somebody accepts at `address`."""
    with socket.socket() as client:
        return client.connect_ex((address, port)) == 0

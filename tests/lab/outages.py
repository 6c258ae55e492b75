"""What breaks the tunnel of a running job, as values that any test can use, and a witness of what the job sees of it.

A `Fault` is done to one job on one node and, where it can be, undone; no other job notices. `play` runs a job with a
witness in it, does a fault to it and returns what the witness saw.
"""

from __future__ import annotations

import json
import os
import re
import signal
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hpcproxy.lab import JobResult, Lab
from tests.waiting import until

from .researcher import OUTER1, OUTER2, Researcher

PAGE = Path(__file__).resolve().parents[2] / "docs" / "outages.md"
WRITE = bool(os.environ.get("OUTAGES_TABLE"))  # set by `invoke outages-table`; read before a test is alone with its own
JUMP_OF = {"192.168.31.10": "jump1", "192.168.31.11": "jump2"}
OUTER = {OUTER1, OUTER2}
PATIENCE_S = 150.0  # a failure's deadline, nothing that is measured


@dataclass(frozen=True)
class Place:
    """A job on a node."""

    lab: Lab
    job: int
    node: str

    @property
    def state(self) -> str:
        """The state directory, for a process of the node."""
        found = self.lab.run(self.node, ["find", "/tmp", "-maxdepth", "3", "-name", f"{self.job}.[0-9]*-*"])
        return found.stdout.split("\n", 1)[0]

    @property
    def status(self) -> Mapping[str, Any]:
        """status.json; empty where there is none at the moment."""
        text = self.lab.run(self.node, ["cat", f"{self.state}/status.json"]).stdout
        return json.loads(text) if text else {}

    @property
    def jump(self) -> str:
        """The jump host in use, as a host of the lab."""
        through: str = until(lambda: self.status.get("jump"), f"job {self.job} is up on {self.node}")
        return JUMP_OF[through.partition("@")[2].partition(":")[0]]

    def ssh(self) -> list[int]:
        """The pids, inside, of the ssh that this job holds."""
        every = self.lab.processes(self.node)
        masters = [pid for pid, _, line in every if line.startswith("ssh ") and " -S ctl " in line]
        where = {pid: self.lab.run(self.node, ["readlink", f"/proc/{pid}/cwd"]).stdout for pid in masters}
        return [pid for pid in masters if f"/{self.job}." in where[pid]]

    def signal_ssh(self, number: int) -> None:
        for pid in until(self.ssh, f"job {self.job} has an ssh on {self.node}"):
            self.lab.run(self.node, ["kill", f"-{number}", str(pid)])


@dataclass(frozen=True)
class Fault:
    """`begin` breaks something for the job at a place and returns what undoes it."""

    name: str
    begin: Callable[[Place], Callable[[], None]]


def _nothing() -> None:
    """It needs no undoing."""


def _cut(place: Place) -> Callable[[], None]:
    jump = place.jump
    place.lab.wire(place.node, jump, up=False)
    return lambda: place.lab.wire(place.node, jump, up=True)


def _kill_ssh(place: Place) -> Callable[[], None]:
    place.signal_ssh(signal.SIGKILL)
    return _nothing


def _stop_ssh(place: Place) -> Callable[[], None]:
    place.signal_ssh(signal.SIGSTOP)
    return _nothing


def _fill_state(place: Place) -> Callable[[], None]:
    """The disk of the state directory is full, and ssh dies: all that a new one needs must be had without a byte."""
    file = f"{place.state.rsplit('/', 2)[0]}/full"
    place.lab.run(place.node, ["dd", "if=/dev/zero", f"of={file}", "bs=4096"], "alice")
    place.signal_ssh(signal.SIGKILL)
    return lambda: place.lab.path_on(place.node, file).unlink()


def restart_sshd(lab: Lab, jump: str) -> Callable[[], None]:
    """The sshd of a jump host is away with all its sessions, as when the machine is started again."""
    lab.sshd_stop(jump)
    return lambda: lab.sshd(jump)


CUT = Fault("the jump host unreachable", _cut)
KILL_SSH = Fault("ssh killed", _kill_ssh)
STOP_SSH = Fault("ssh stopped (SIGSTOP)", _stop_ssh)
FILL_STATE = Fault("the state directory full, and ssh killed", _fill_state)
FAULTS = (CUT, KILL_SSH, STOP_SSH, FILL_STATE)


# ---- what the job sees

# A program of the job's that asks twice a second, one request after the other, and writes down what it got; beside it
# the supervisor's own opinion.
WITNESS = r"""
import json, os, subprocess, sys, threading, time

out = open(sys.argv[1], "a", buffering=1)
stop = sys.argv[1] + ".stop"
curl = ["curl", "-sS", "--max-time", "40", "-w", " %{http_code}", "http://internet.test/ip"]

def watch():
    before = None
    while not os.path.exists(stop):
        try:
            with open(os.path.join(os.environ["HPCPROXY_STATE"], "status.json")) as file:
                now = json.load(file)["ready"]
        except (OSError, ValueError):
            now = before
        if now != before:
            out.write(json.dumps({"ready": now, "at": time.monotonic()}) + "\n")
            before = now
        time.sleep(0.1)

threading.Thread(target=watch, daemon=True).start()
while not os.path.exists(stop):
    begun = time.monotonic()
    done = subprocess.run(curl, stdout=subprocess.PIPE, stderr=subprocess.PIPE, universal_newlines=True)
    saw = done.stdout.split()[0] if done.stdout.endswith(" 200") else done.stdout[-4:].strip()
    if done.returncode:
        saw = "curl " + str(done.returncode)
    out.write(json.dumps({"begun": begun, "ended": time.monotonic(), "saw": saw}) + "\n")
    time.sleep(0.5)
"""
# What the exit codes of curl(1) and the status of an answer mean to a program.
MEANING = {
    "503": "503",
    "504": "504",
    "502": "502",
    "curl 7": "refused",
    "curl 28": "no answer in 40 s",
    "curl 52": "cut off",
    "curl 56": "cut off",
    "curl 97": "no answer from SOCKS",
}


@dataclass(frozen=True)
class Ask:
    """One request: when, on the clock that does not jump, and what came of it."""

    begun: float
    ended: float
    saw: str

    @property
    def good(self) -> bool:
        return self.saw in OUTER


@dataclass(frozen=True)
class Story:
    """What happened to one job: the fault from `begun` to `undone` (None: never), and what its witness saw."""

    begun: float
    undone: float | None
    asks: tuple[Ask, ...]
    ready: tuple[tuple[float, bool], ...]
    result: JobResult

    @property
    def worked_again(self) -> Ask | None:
        """The first request that was answered after the fault was undone, or while it lasts if it is not undone."""
        if self.undone is not None:
            return next((ask for ask in self.asks if ask.good and ask.ended >= self.undone), None)
        return next((ask for ask in self.asks if ask.good and ask.begun >= self.begun), None)

    @property
    def again_s(self) -> float:
        """Seconds from the undoing (or the fault, if it was not undone) to the first good answer."""
        assert self.worked_again is not None, self.asks[-3:]
        return max(0.0, self.worked_again.ended - (self.begun if self.undone is None else self.undone))

    @property
    def found_s(self) -> float | None:
        """Seconds until the supervisor knew; None if there was nothing to find: the connection lived on."""
        return next((at - self.begun for at, ready in self.ready if not ready and at > self.begun), None)

    @property
    def during(self) -> tuple[Ask, ...]:
        """The requests that were on their way in the outage or begun in it, up to the one that showed its end."""
        last = self.worked_again.ended if self.worked_again else float("inf")
        return tuple(ask for ask in self.asks if self.begun < ask.ended <= last)

    @property
    def in_words(self) -> str:
        """What the processes saw."""
        seen = Counter(MEANING.get(ask.saw, ask.saw) for ask in self.during if not ask.good)
        longest = max((ask.ended - ask.begun for ask in self.during), default=0.0)
        good = sum(ask.good for ask in self.during)
        words = [f"{count} × {what}" for what, count in sorted(seen.items())]
        return ", ".join([*words, f"{good} answered, longest wait {longest:.1f} s"])


class Witnessed:
    """A job of one node with a witness in it, that runs until `end`."""

    def __init__(self, alice: Researcher, node: str, body: str = "", settings: str = "") -> None:
        self.lab = alice.lab
        self.path = f"/home/alice/witness-{node}"
        for name in (self.path, f"{self.path}.stop"):
            self.lab.path_on("login", name).unlink(missing_ok=True)
        self.lab.machine("login").put("/home/alice/witness.py", WITNESS, owner=(2001, 2001))
        exported = ",".join(["ALL", *(f"{key}={value}" for key, value in alice.environment.items()), settings])
        options = f"#SBATCH -n1 -w {node} --export={exported.rstrip(',')}"
        script = f"python3 ~/witness.py {self.path} &\n{body}wait\n"
        self.place = Place(self.lab, alice.submit(script, options), node)
        self.node = node

    def asks(self) -> list[Ask]:
        return [Ask(**line) for line in self._lines() if "saw" in line]

    def ready(self) -> list[tuple[float, bool]]:
        return [(line["at"], line["ready"]) for line in self._lines() if "ready" in line]

    def _lines(self) -> list[dict[str, Any]]:
        path = self.lab.path_on("login", self.path)
        text = path.read_text() if path.exists() else ""
        return [json.loads(line) for line in text.splitlines() if line.endswith("}")]

    def await_good(self, since: float, what: str) -> Ask:
        """The first good answer to a request begun since then."""

        def found() -> Ask | None:
            return next((ask for ask in self.asks() if ask.good and ask.begun >= since), None)

        answer = until(found, f"{what} on {self.node}; {self.asks()[-2:]}", PATIENCE_S)
        assert answer is not None
        return answer

    def end(self) -> JobResult:
        """The witness has stopped and the job has ended, with all that is its own."""
        self.lab.machine("login").put(f"{self.path}.stop", "")
        return self.lab.wait_job(self.place.job, PATIENCE_S)


def play(witnessed: Witnessed, fault: Fault, seconds: float | None) -> Story:
    """Do `fault` to the job for so many seconds, or for good, and wait until its witness has answers again."""
    witnessed.await_good(0.0, "the tunnel is used")
    begun = time.monotonic()
    undo = fault.begin(witnessed.place)
    undone = None
    if seconds is not None:
        time.sleep(max(0.0, begun + seconds - time.monotonic()))
        undone = time.monotonic()
        undo()
    # Not the first good answer: one that was on its way when the fault came is none of it.
    witnessed.await_good(begun if undone is None else undone, f"it works again after {fault.name}")
    result = witnessed.end()
    if seconds is None:
        undo()
    return Story(begun, undone, tuple(witnessed.asks()), tuple(witnessed.ready()), result)


def in_the_manual(table: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> bool:
    """Whether docs/outages.md has such a table with the same names first; with `invoke outages-table` it has then.

    Its seconds are of the day when that was run: no two runs have the same.
    """
    begin, end = f"<!-- {table}: begin -->\n", f"<!-- {table}: end -->"
    before, found, rest = PAGE.read_text().partition(begin)
    old, found_too, after = rest.partition(end)
    assert found, f"{PAGE} has no line {begin}"
    assert found_too, f"{PAGE} has no line {end}"
    if WRITE:
        lines = [head, ["---"] * len(head), *rows]
        PAGE.write_text(f"{before}{begin}" + "".join(f"| {' | '.join(line)} |\n" for line in lines) + f"{end}{after}")
        return True
    return {line.strip("| ").split(" | ")[0] for line in old.splitlines()[2:]} == {row[0] for row in rows}


def left_behind(lab: Lab, node: str) -> list[str]:
    """What alice has on a node; nothing once her jobs there have ended."""
    found = [f"process {line}" for _, user, line in lab.processes(node) if user == "alice"]
    found += [f"listener {address}:{port}" for address, port, uid in lab.listeners(node) if uid == 2001]
    listed = lab.run(
        node, ["find", "/tmp", "/dev/shm", "/run", "/var/tmp", "-user", "alice"], check=True
    ).stdout.split()
    return found + [f"file {path}" for path in listed if not re.fullmatch(r"/tmp/small", path)]

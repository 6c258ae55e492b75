"""Looks at a lab several times a second and writes down what there is of every job: its state, its processes, ours."""

from __future__ import annotations

import contextlib
import re
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from hpcproxy.lab import Lab
from hpcproxy.lab.slurm import NODE_LOG, RUNNING_STATES
from tests.waiting import until

POLL_S = 0.1
DEADLINE_S = 150.0
PLACES = ("/tmp", "/dev/shm", "/var/tmp", "/run", "/run/hpcproxy", "/run/hpcproxy/holders", "/run/hpcproxy/service")
_OUR_FILE = re.compile(r"(?:hpcproxy-)?(\d+)\.(\d+)(?:-\w+|\.said|\.new)?")
_OUR_COMMAND = re.compile(
    r"/tunnel\.sh hold|/agent\.pyz |/supervisor\.sh |/job\.sh |/(pro|epi)log\.d/|=hpcproxy |ssh .* -S ctl "
)
_FILE = re.compile(r"\w+: (file|socket) ")
_STEP_DAEMON = re.compile(r"slurmstepd: \[(\d+)\.")
_JOB = re.compile(r"JobId=(\d+) .*?JobState=(\w+) .*?Restarts=(\d+)")


@dataclass
class Sight:
    """What was seen of one job; times are time.monotonic()."""

    states: list[tuple[float, str]] = field(default_factory=list)
    own: frozenset[str] = frozenset()  # its processes now, each with its node
    ours: frozenset[str] = frozenset()  # what is ours of it now: processes, listeners, sockets, files
    slurms: frozenset[str] = frozenset()  # Slurm's daemons for its steps
    ever: set[str] = field(default_factory=set)  # all that was ever ours
    outlived: set[str] = field(default_factory=set)  # of that, what was there after the last process of its own
    last_own: float = 0.0
    none_own: float = 0.0  # the end of the first look that found none of its own any more
    last_ours: float = 0.0
    component: bool = (
        False  # a later one of a heterogeneous job: its ranks end when they like, and it when the first one does
    )

    @property
    def state(self) -> str:
        """Its state now; a requeued job is PENDING again."""
        return self.states[-1][1] if self.states else ""

    @property
    def over(self) -> bool:
        return bool(self.states) and self.state not in RUNNING_STATES

    @property
    def nothing_left(self) -> bool:
        return not (self.own or self.ours or self.slurms)

    @property
    def only_files(self) -> bool:
        """No process and no listener: at most files, and the names of sockets that nobody serves."""
        return not (self.own or self.slurms) and all(_FILE.match(text) for text in self.ours)

    @property
    def completing_s(self) -> float:
        """How long it was COMPLETING at its end."""
        ends = [at for at, state in self.states if state not in RUNNING_STATES]
        if not ends or len(self.states) < 2 or self.states[-2][1] != "COMPLETING":
            return 0.0
        return ends[-1] - self.states[-2][0]

    @property
    def gone_s(self) -> float:
        """How long the last of ours outlived the last process of the job's own, at most; of a component, the job."""
        return max(0.0, self.last_ours - ((not self.component and self.last_own) or self.over_at))

    @property
    def over_at(self) -> float:
        """When Slurm said that it is over."""
        return next((at for at, state in self.states if state not in ("PENDING", "RUNNING")), 0.0)


class Watch:
    """A thread that looks; what it saw last is read at any time. Ends with the block."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self._seen: dict[int, Sight] = {}
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._broken: Exception | None = None
        self._thread = threading.Thread(target=self._look_on)

    def __enter__(self) -> Watch:  # noqa: PYI034  typing.Self is newer than our oldest Python
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def of(self, job: int) -> Sight:
        """What was seen of `job`."""
        with self._lock:
            return self._seen.setdefault(job, Sight())

    def until(self, true: Callable[[], Any], what: Callable[[], str] | str, deadline_s: float = DEADLINE_S) -> Any:
        """Return the first true value of `true`."""

        def seen() -> Any:
            if self._broken is not None:
                raise self._broken
            return true()

        return until(seen, what, deadline_s)

    def until_over(self, job: int, files_may_stay: bool = False) -> Sight:
        """The job has ended on every node, and nothing is left of it, or nothing but files (and sockets' names)."""
        sight = self.of(job)
        self.until(lambda: sight.over, lambda: f"job {job} ends; it is {sight.state}; {sorted(sight.ours)}")
        gone = lambda: sight.only_files if files_may_stay else sight.nothing_left  # noqa: E731
        self.until(gone, lambda: f"left of job {job}: {self._left(sight)}", 30)
        return sight

    def outlived_s(self, job: int) -> float:
        """How long the last of ours outlived the last process of the job's own, at least: a busy machine is looked at
        only every few seconds, and what ended first is not known. We hear of a component's end by the Epilog, and a
        busy slurmd takes seconds until it begins one."""
        sight = self.of(job)
        by_slurm = sight.component or not sight.none_own
        return max(0.0, sight.last_ours - (max(sight.over_at, self._epilog_at(job)) if by_slurm else sight.none_own))

    def _epilog_at(self, job: int) -> float:
        """When the last node's slurmd came to the job's Epilog (it looks first whether the Prolog is done), by its log;
        0 if none says so."""
        line = re.compile(rf"(?m)^\[([^]]+)\] debug:  Waiting for job {job}'s prolog to complete")
        since_boot_s = time.time() - time.monotonic()
        logs = (self.lab.path_on(node, NODE_LOG).read_text(errors="replace") for node in self.lab.nodes)
        began = [datetime.fromisoformat(text).timestamp() - since_boot_s for log in logs for text in line.findall(log)]
        return max(began, default=0.0)

    def _left(self, sight: Sight) -> str:
        left = sorted(sight.own | sight.ours | sight.slurms)
        return "\n".join([str(left), *(text for name in left for text in self._inside(name))])

    def _inside(self, name: str) -> Iterator[str]:
        """What is in the state directory `name`, and its log: a supervisor says there what it went through."""
        if match := re.fullmatch(r"(\w+): file (/.*)", name):
            directory = self.lab.path_on(match[1], match[2])
            if directory.is_dir():
                yield f"{name}: {sorted(path.name for path in directory.iterdir())}"
            for log in ("log", "ssh.log"):
                with contextlib.suppress(OSError):
                    yield f"{log}: {(directory / log).read_text(errors='replace')}"

    def _look_on(self) -> None:
        while not self._stop.wait(POLL_S):
            try:
                self._look()
            except Exception as error:  # noqa: BLE001, PERF203  shown to whoever waits for something
                self._broken = error
                return

    def _look(self) -> None:
        found: dict[int, tuple[set[str], set[str], set[str]]] = {}
        seen: dict[tuple[int, int], float] = {}
        for host in ("login", *self.lab.nodes):
            for kind, job, text in look_at(self.lab, host):
                found.setdefault(job, (set(), set(), set()))[kind].add(f"{host}: {text}")
                seen[job, kind] = time.monotonic()
        looked = time.monotonic()
        listed = self.lab.run("ctl", ["scontrol", "--oneliner", "show", "jobs"]).stdout
        now = time.monotonic()
        with self._lock:
            for text in listed.splitlines():
                if match := _JOB.match(text):
                    sight = self._seen.setdefault(int(match[1]), Sight())
                    if match[2] != sight.state:
                        sight.states.append((now, match[2]))
            for job in {*self._seen, *found}:
                own, ours, slurms = found.get(job, (set(), set(), set()))
                sight = self._seen.setdefault(job, Sight())
                sight.own, sight.ours, sight.slurms = frozenset(own), frozenset(ours), frozenset(slurms)
                sight.ever |= ours
                sight.outlived = set() if own else sight.outlived | ours
                sight.last_own = seen.get((job, OWN), sight.last_own)
                sight.last_ours = seen.get((job, OURS), sight.last_ours)
                sight.none_own = 0.0 if own or not sight.last_own else sight.none_own or looked


OWN, OURS, SLURMS = range(3)


def look_at(lab: Lab, host: str) -> Iterator[tuple[int, int, str]]:
    """(OWN, OURS or SLURMS, job, words) of every process, listener and file on `host` that is of some job."""
    root = Path(f"/proc/{lab.machine(host).pid}/root")
    for pid in (entry for entry in (root / "proc").iterdir() if entry.name.isdigit()):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            yield from _process(pid)
    for address, port, _ in lab.listeners(host):
        a, b, c, d = (int(part) for part in address.split(".")) if "." in address else (0, 0, 0, 0)
        if (a, b & 192) == (127, 64):
            yield OURS, (b & 63) << 16 | c << 8 | d, f"listener {address}:{port}"
    for place in (*PLACES, *(f"/tmp/{entry.name}" for entry in (root / "tmp").glob("hpcproxy-[0-9]*"))):
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            for entry in (root / place[1:]).iterdir():
                if match := _OUR_FILE.fullmatch(entry.name):
                    yield OURS, int(match[1]), f"file {place}/{entry.name}"


def _process(pid: Path) -> Iterator[tuple[int, int, str]]:
    command = (pid / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").rstrip()
    if match := _STEP_DAEMON.match(command):
        yield SLURMS, int(match[1]), f"process {pid.name} {command}"
        return
    environment = (pid / "environ").read_bytes().split(b"\0")
    job = next((word[13:] for word in environment if word.startswith(b"SLURM_JOB_ID=")), b"")
    if job.isdigit() and command:
        # What the Prolog started has little of a job's environment.
        of_prolog = not any(word.startswith(b"SLURM_JOBID=") for word in environment)
        ours = b"HPCPROXY_HOLDER=1" in environment or of_prolog or _OUR_COMMAND.search(command)
        yield OURS if ours else OWN, int(job), f"process {pid.name} {command}"

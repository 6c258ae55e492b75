"""SwanLab and Weights & Biases, whose jump host is unreachable for 15 s in the middle of `log`, or at `finish`.

Nothing of what was logged may be lost, and the programs end well. All four jobs run at the same time: those that log on
c1, those that finish on c2, and an outage comes to a node when both of its jobs are where it shall find them.
"""

from __future__ import annotations

import re
import subprocess
import time
import venv
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from hpcproxy.lab import JobResult, Lab
from tests.waiting import until

from . import services
from .clients import settings
from .conftest import ClientsPlace
from .outages import CUT, Place, in_the_manual
from .researcher import OUTER1, Researcher
from .services import Services

pytestmark = pytest.mark.lab
REQUIREMENTS = Path(__file__).parent / "clients.txt"
OUTAGE_S = 15
COUNT = 6
BEGIN = {
    "swanlab": 'run = swanlab.init(project="lab", workspace="alice")',
    "wandb": 'run = wandb.init(project="lab", entity="alice", settings=wandb.Settings(init_timeout=60))',
}
END = {"swanlab": "swanlab.finish()", "wandb": "run.finish()"}
# The last thing that a program does before the outage is to make `ready`, and then it waits for `broken`.
PROGRAM = """import os, pathlib, time
import {client}
{begin}
base = int(os.environ["LOSS"])
def log(number):
    {log}({{"loss": base + number}})
log(0)
def meet():
    pathlib.Path("ready").touch()
    while not pathlib.Path("broken").exists():
        time.sleep(0.1)
if "{moment}" == "log":
    meet()
    for number in range(1, {count}):
        log(number)
        time.sleep(2)
else:
    for number in range(1, {count}):
        log(number)
    meet()
{end}
print("ended well", time.monotonic())
"""


@dataclass(frozen=True)
class Client:
    """One program, broken at one moment."""

    name: str
    moment: str
    loss: int

    def __str__(self) -> str:
        return f"{self.name}, {'in the middle of `log`' if self.moment == 'log' else 'at `finish`'}"

    @property
    def node(self) -> str:
        return "c1" if self.moment == "log" else "c2"

    @property
    def work(self) -> str:
        return f"/home/alice/{self.name}-{self.moment}"

    def body(self, token: str, path: str) -> str:
        log = "swanlab.log" if self.name == "swanlab" else "run.log"
        words = {
            "client": self.name,
            "moment": self.moment,
            "begin": BEGIN[self.name],
            "end": END[self.name],
            "log": log,
        }
        program = PROGRAM.format(**words, count=COUNT)
        head = f"rm -rf {self.work}\nmkdir -p {self.work}/tmp\ncd {self.work}\nexport TMPDIR=$PWD/tmp\n"
        return f"{head}{settings(token, self.loss, path)}set -e\npython - <<'END'\n{program}END\n"


CLIENTS = tuple(
    Client(name, moment, 835_000 + 100 * number)
    for number, (name, moment) in enumerate((n, m) for n in ("swanlab", "wandb") for m in ("log", "finish"))
)


@pytest.fixture(scope="module")
def path(clients_place: ClientsPlace) -> str:
    """A virtual environment with the two, in the versions of clients.txt."""
    directory = clients_place.directory / "outage"
    venv.create(directory, with_pip=True, symlinks=True)
    command = [directory / "bin/pip", "install", "--quiet", "--disable-pip-version-check"]
    command += ["--constraint", REQUIREMENTS, "swanlab", "wandb"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return str(directory / "bin")


@dataclass(frozen=True)
class Ended:
    """How a client's job ended, and when its jump host was back."""

    result: JobResult
    mended: float

    @property
    def after_s(self) -> float:
        """Seconds from the jump host's return to the program's last word."""
        said = re.search(r"(?m)^ended well (.*)$", self.result.output)
        assert said, self.result.output
        return float(said[1]) - self.mended


@pytest.fixture(scope="module")
def internet(lab: Lab) -> Iterator[Services]:
    with services.running(lab) as running:
        yield running


@pytest.fixture(scope="module")
def ended(lab: Lab, internet: Services, path: str) -> dict[str, Ended]:
    """All of them, each broken at its moment."""
    alice = Researcher(lab)
    alice.set_up()
    jobs = {c: alice.submit(c.body(internet.token, path), f"#SBATCH -n1 -w {c.node} --time=5") for c in CLIENTS}

    def outage(moment: str) -> dict[str, Ended]:
        mine = [client for client in CLIENTS if client.moment == moment]
        for client in mine:
            ready = lab.path_on("login", f"{client.work}/ready")
            until(ready.exists, f"{client.name} is at {moment}", 120)
        undo = CUT.begin(Place(lab, jobs[mine[0]], mine[0].node))
        for client in mine:
            lab.machine("login").put(f"{client.work}/broken", "")
        time.sleep(OUTAGE_S)  # this is how long it lasts
        undo()
        mended = time.monotonic()
        return {str(client): Ended(lab.wait_job(jobs[client], 240), mended) for client in mine}

    with ThreadPoolExecutor(2) as pool:
        both = list(pool.map(outage, ("log", "finish")))
    return {**both[0], **both[1]}


@pytest.mark.parametrize("client", CLIENTS, ids=str)
def test_it_ends_well_and_nothing_is_lost(client: Client, ended: dict[str, Ended], internet: Services) -> None:
    found = ended[str(client)]
    assert found.result.state == "COMPLETED", found.result.output
    assert "ended well" in found.result.output
    texts = [entry["text"] for entry in internet.book if entry["kind"] == "logged" and entry["address"] == OUTER1]
    logged = "".join(texts)
    missing = [client.loss + number for number in range(COUNT) if str(client.loss + number) not in logged]
    assert not missing, found.result.output


def test_the_manual_has_the_table(ended: dict[str, Ended]) -> None:
    head = ("program, and when its jump host was away for 15 s", "what became of it", "ended after it was back")
    rows = [(name, "exit code 0, nothing lost", f"{found.after_s:.1f} s") for name, found in ended.items()]
    assert in_the_manual("clients", head, rows)


def test_nothing_is_left(ended: dict[str, Ended], lab: Lab) -> None:
    alice = Researcher(lab)
    until(lambda: not alice.traces(), f"nothing of the jobs is left: {alice.traces()}")
    assert lab.drained() == []

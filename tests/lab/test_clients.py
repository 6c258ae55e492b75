"""Real programs get out: in a real job on a node without DNS or route, from a fresh environment with nothing extra.

What they are and how they are used is in clients.py; docs/clients.md has the table of the outcomes, with the agent and
where ssh itself listens. There a program that got nowhere is given the two packages that teach Python SOCKS.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import venv
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from hpcproxy.lab import JobResult, Lab, packages

from . import services
from .clients import CLIENTS, TOOLS, Client, settings
from .conftest import ClientsPlace
from .manual import PAGE, snippet
from .researcher import OUTER1, Researcher
from .services import Services
from .standins import DOMAIN

pytestmark = pytest.mark.lab
REQUIREMENTS = Path(__file__).parent / "clients.txt"
SOCKS_REQUIREMENTS = Path(__file__).parent / "clients_socks.txt"
WRITE = bool(os.environ.get("CLIENTS_TABLE"))  # set by `invoke clients-table`; read before a test is alone with its own
BEGIN, END = "<!-- clients: begin -->", "<!-- clients: end -->"
IDS = [client.name for client in CLIENTS]
COLUMNS = ("client", "version", "result", "without the agent")
WORKS, WITH_PACKAGES, FAILS = "works", "works with PySocks and socksio", "fails"
OPTIONS = "#SBATCH -n1 --cpus-per-task=2 --time=2"
_LONGEST_S = 15
_AT_ONCE = 64


@pytest.fixture(scope="module")
def fresh(clients_place: ClientsPlace) -> Path:
    """A virtual environment with what clients.txt names, and nothing else; its bin directory."""
    packages.ensure(TOOLS, lambda step: print(step, file=sys.stderr))
    venv.create(clients_place.directory, with_pip=True, symlinks=True)
    programs = clients_place.directory / "bin"
    pip_install(programs, REQUIREMENTS)
    return programs


@pytest.fixture(scope="module")
def socks_packages(fresh: Path) -> Path:
    """What clients_socks.txt names, beside that environment and not in it."""
    directory = fresh.parent / "socks"
    pip_install(fresh, SOCKS_REQUIREMENTS, "--target", directory)
    return directory


def pip_install(programs: Path, requirements: Path, *options: str | Path) -> None:
    command = [f"{programs}/pip", "install", "--quiet", "--disable-pip-version-check", *options, "-r", requirements]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.fixture(scope="module")
def internet(lab: Lab) -> Iterator[Services]:
    with services.running(lab) as running:
        yield running


@dataclass
class Runs:
    """The jobs of some clients, queued at once; each is waited for when it is asked about.

    What the internet wrote down before them, `seen` lines of its book and `logins` to its sshd, is not theirs.
    """

    lab: Lab
    internet: Services
    first_loss: int
    seen: int = 0
    logins: int = 0
    longest_s: float = 120
    jobs: dict[str, int] = field(default_factory=dict)
    ended: dict[str, JobResult] = field(default_factory=dict)

    def submit(self, alice: Researcher, clients: Iterable[Client], path: str, extra: str = "") -> Runs:
        """A job for each of `clients`; `extra` is shell text before its commands."""
        self.seen, self.logins = len(self.internet.book), self._logins()
        for client in clients:
            text = body(client, self.internet.token, path, self.loss_of(client), extra)
            self.jobs[client.name] = alice.submit(text, OPTIONS)
        return self

    def loss_of(self, client: Client) -> int:
        """A number that this client alone logs, in these runs alone."""
        return self.first_loss + (IDS.index(client.name) if client.name in IDS else 0)

    def of(self, client: Client) -> JobResult:
        """How the client's job ended."""
        if client.name not in self.ended:
            self.ended[client.name] = self.lab.wait_job(self.jobs[client.name], self.longest_s)
        return self.ended[client.name]

    def end(self) -> None:
        """All of them have ended."""
        for client in CLIENTS:
            if client.name in self.jobs:
                self.of(client)

    def complaints(self, client: Client) -> list[str]:
        """What is wrong with the client's run; nothing if it got out and back."""
        result = self.of(client)
        wrong = [] if result.state == "COMPLETED" else [f"{result.state}, exit code {result.exit_code}"]
        if client.prints and self.internet.token not in result.output:
            wrong.append("it has not printed the token")
        if not client.prints and not self._logged(client.name.partition(",")[0], str(self.loss_of(client))):
            wrong.append("its cloud has not got what it logged")
        if not self._seen(client):
            wrong.append(f"no {client.seen} came from {OUTER1}")
        return [*wrong, result.output] if wrong else []

    def version(self, client: Client) -> str:
        """What the client said of its version, without its name and what follows."""
        said = re.search(r"(?m)^version .*?(\d+(\.\w+)+)", self.of(client).output)
        return said[1] if said else "unknown"

    def _seen(self, client: Client) -> bool:
        if client.seen == "ssh":
            return self._logins() > self.logins
        if client.seen.startswith("says "):  # the far end tells its client what it sees
            return client.seen.partition(" ")[2] in self.of(client).output
        book = self.internet.book[self.seen :]
        requests = [entry for entry in book if entry["kind"] == "request" and entry["status"] < 300]
        return any(
            entry["address"] == OUTER1 and re.fullmatch(client.seen, f"{entry['service']} {entry['line']}")
            for entry in requests
        )

    def _logins(self) -> int:
        return self.internet.ssh_log.count(f"Accepted publickey for alice from {OUTER1} ")

    def _logged(self, service: str, what: str) -> bool:
        book = self.internet.book[self.seen :]
        logged = [entry for entry in book if entry["kind"] == "logged" and entry["service"] == service]
        return any(entry["address"] == OUTER1 and what in entry["text"] for entry in logged)


def body(client: Client, token: str, path: str, loss: int, extra: str = "") -> str:
    """The job's commands: everything happens in a directory that is gone at the end."""
    return f"""work=$(mktemp -d ~/client-XXXXXXXX)
trap 'rm -rf "$work"' EXIT
cd "$work"
mkdir tmp
export TMPDIR=$work/tmp
{settings(token, loss, path)}{extra}
{snippet("sh", "eval ")}
printf 'version %s\\n' "$({client.version} | head -n 1)"
set -eu
{client.script}"""


@pytest.fixture(scope="module")
def path(fresh: Path) -> str:
    return f"{fresh}:{Path(sys.executable).parent}"


@pytest.fixture(scope="module")
def ssh_set_up(lab: Lab, internet: Services) -> Iterator[None]:
    """alice's ~/.ssh/config is the manual's snippet, for the lab's host instead of the manual's."""
    config = snippet("text", "Match host ").replace("github.com", f"git.{DOMAIN}")
    files = {"config": config, "known_hosts": internet.host_key}
    for name, text in files.items():
        lab.machine("login").put(f"/home/alice/.ssh/{name}", text, 0o600, (2001, 2001))
    yield
    for name in files:
        lab.path_on("login", f"/home/alice/.ssh/{name}").unlink()


@pytest.fixture(scope="module")
def runs(lab: Lab, internet: Services, path: str, ssh_set_up: None) -> Runs:
    alice = Researcher(lab)
    alice.set_up()
    return Runs(lab, internet, first_loss=735_000).submit(alice, CLIENTS, path)


@pytest.fixture(scope="module")
def alone(lab: Lab, internet: Services, path: str, runs: Runs) -> Runs:
    """The same, where ssh itself listens."""
    runs.end()
    alice = Researcher(lab)
    alice.agent = False
    alice.set_up()
    return Runs(lab, internet, first_loss=736_000).submit(alice, CLIENTS, path)


@pytest.fixture(scope="module")
def with_packages(lab: Lab, internet: Services, path: str, alone: Runs, socks_packages: Path) -> Runs:
    """Those that got nowhere there, with PySocks and socksio in reach."""
    failed = [client for client in CLIENTS if alone.complaints(client)]
    extra = f"export PYTHONPATH={socks_packages}\n"
    return Runs(lab, internet, first_loss=737_000).submit(Researcher(lab), failed, path, extra)


@pytest.mark.parametrize("client", CLIENTS, ids=IDS)
def test_it_gets_out(client: Client, runs: Runs) -> None:
    complaints = runs.complaints(client)
    assert not complaints, "\n".join(complaints)


def test_the_services_had_no_request_that_they_do_not_know(runs: Runs) -> None:
    runs.end()
    assert [entry for entry in runs.internet.book if entry["kind"] == "unknown"] == []


def test_64_ssh_at_once_by_the_manuals_lines_get_in_on_a_busy_node(lab: Lab, path: str, runs: Runs) -> None:
    runs.end()
    busy = 'for _ in 1 2 3; do while :; do :; done & busy="${busy-} $!"; done'
    ssh = f"ssh -o BatchMode=yes git.{DOMAIN} 'echo in' >$work/$n 2>&1 &"
    at_once = f'for n in $(seq {_AT_ONCE}); do {ssh} all="${{all-}} $!"; done; wait $all; kill $busy'
    script = f"work=$(mktemp -d)\nPATH={path}:$PATH\n{busy}\n{at_once}\ncat $work/*\nrm -r $work\n"
    result = Researcher(lab).job(script, OPTIONS)
    assert (result.state, result.output.splitlines().count("in")) == ("COMPLETED", _AT_ONCE), result.output


def test_without_the_hook_none_of_them_does(lab: Lab, runs: Runs, path: str) -> None:
    runs.end()
    before = (len(runs.internet.book), runs.internet.ssh_log.count("Accepted"))
    commands = ""
    for number, client in enumerate(CLIENTS):
        lab.machine("login").put(f"/home/alice/without-{number}", body(client, "none", path, 0), owner=(2001, 2001))
        commands += f"(timeout {_LONGEST_S} bash ~/without-{number} >/dev/null 2>&1; echo {number} exit $?) &\n"
    result = lab.wait_job(lab.submit(f"#!/bin/bash\n#SBATCH -n1 --exclusive\n{commands}wait\nrm ~/without-*\n"))
    ended = {int(line.split()[0]): int(line.split()[2]) for line in result.output.splitlines()}
    assert sorted(ended) == list(range(len(CLIENTS))), result.output
    assert [CLIENTS[number].name for number, code in ended.items() if code == 0] == []
    assert (len(runs.internet.book), runs.internet.ssh_log.count("Accepted")) == before


def test_the_manual_has_the_table_of_what_was_run(runs: Runs, alone: Runs, with_packages: Runs) -> None:
    def without_the_agent(client: Client) -> str:
        if not alone.complaints(client):
            return WORKS
        return FAILS if with_packages.complaints(client) else WITH_PACKAGES

    rows = [(c.name, runs.version(c), FAILS if runs.complaints(c) else WORKS, without_the_agent(c)) for c in CLIENTS]
    before, begin, rest = PAGE.read_text().partition(BEGIN)
    table, end, after = rest.partition(END)
    assert begin, f"{PAGE} has no line {BEGIN}"
    assert end, f"{PAGE} has no line {END}"
    if WRITE:
        lines = [f"| {' | '.join(row)} |" for row in (COLUMNS, ("---",) * len(COLUMNS), *rows)]
        PAGE.write_text(f"{before}{BEGIN}\n" + "".join(f"{line}\n" for line in lines) + f"{END}{after}")
        return
    shown = [tuple(cell.strip() for cell in line.strip("|").split("|")) for line in table.strip().splitlines()[2:]]
    complaints = {client.name: alone.complaints(client) for client in CLIENTS}
    assert [(name, *rest) for name, _, *rest in shown] == [(name, *rest) for name, _, *rest in rows], complaints

"""Real programs get out: in a real job on a node without DNS or route, from a fresh environment with nothing extra.

What they are and how they are used is in clients.py; docs/clients.md has the table of the outcomes.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import venv
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from hpcproxy.lab import JobResult, Lab

from . import services
from .clients import CLIENTS, Client, settings
from .conftest import ClientsPlace
from .researcher import OUTER1, Researcher
from .services import REPOSITORY, Services
from .standins import DOMAIN

pytestmark = pytest.mark.lab
PAGE = REPOSITORY / "docs" / "clients.md"
REQUIREMENTS = Path(__file__).parent / "clients.txt"
WRITE = bool(os.environ.get("CLIENTS_TABLE"))  # set by `invoke clients-table`; read before a test is alone with its own
BEGIN, END = "<!-- clients: begin -->", "<!-- clients: end -->"
IDS = [client.name for client in CLIENTS]
_LONGEST_S = 15


@pytest.fixture(scope="module")
def fresh(clients_place: ClientsPlace) -> Path:
    """A virtual environment with what clients.txt names, and nothing else; its bin directory."""
    venv.create(clients_place.directory, with_pip=True, symlinks=True)
    programs = clients_place.directory / "bin"
    command = [f"{programs}/pip", "install", "--quiet", "--disable-pip-version-check", "--requirement", REQUIREMENTS]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return programs


@pytest.fixture(scope="module")
def internet(lab: Lab) -> Iterator[Services]:
    with services.running(lab) as running:
        yield running


@dataclass
class Runs:
    """The jobs of all clients, queued at once; each is waited for when it is asked about."""

    lab: Lab
    internet: Services
    jobs: dict[str, int]
    ended: dict[str, JobResult] = field(default_factory=dict)

    def of(self, client: Client) -> JobResult:
        """How the client's job ended."""
        if client.name not in self.ended:
            self.ended[client.name] = self.lab.wait_job(self.jobs[client.name])
        return self.ended[client.name]

    def complaints(self, client: Client) -> list[str]:
        """What is wrong with the client's run; nothing if it got out and back."""
        result = self.of(client)
        wrong = [] if result.state == "COMPLETED" else [f"{result.state}, exit code {result.exit_code}"]
        if client.prints and self.internet.token not in result.output:
            wrong.append("it has not printed the token")
        if not client.prints and not self._logged(client.name, str(loss_of(client))):
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
            return f"Accepted publickey for alice from {OUTER1} " in self.internet.ssh_log
        requests = [entry for entry in self.internet.book if entry["kind"] == "request" and entry["status"] < 300]
        return any(
            entry["address"] == OUTER1 and re.fullmatch(client.seen, f"{entry['service']} {entry['line']}")
            for entry in requests
        )

    def _logged(self, service: str, what: str) -> bool:
        logged = [entry for entry in self.internet.book if entry["kind"] == "logged" and entry["service"] == service]
        return any(entry["address"] == OUTER1 and what in entry["text"] for entry in logged)


def loss_of(client: Client) -> int:
    """A number that this client alone logs."""
    return 735_000 + IDS.index(client.name)


def body(client: Client, token: str, path: str) -> str:
    """The job's commands: everything happens in a directory that is gone at the end."""
    return f"""work=$(mktemp -d ~/client-XXXXXXXX)
trap 'rm -rf "$work"' EXIT
cd "$work"
mkdir tmp
export TMPDIR=$work/tmp
{settings(token, loss_of(client), path)}
printf 'version %s\\n' "$({client.version} | head -n 1)"
set -eu
{client.script}"""


@pytest.fixture(scope="module")
def path(fresh: Path) -> str:
    return f"{fresh}:{Path(sys.executable).parent}"


@pytest.fixture(scope="module")
def ssh_set_up(lab: Lab, internet: Services) -> Iterator[None]:
    """alice's ~/.ssh/config is the manual's snippet, for the lab's host instead of the manual's."""
    snippet = re.search(r"```text\n(Match host .*?)```", PAGE.read_text(), re.DOTALL)
    assert snippet is not None
    files = {"config": snippet[1].replace("github.com", f"git.{DOMAIN}"), "known_hosts": internet.host_key}
    for name, text in files.items():
        lab.machine("login").put(f"/home/alice/.ssh/{name}", text, 0o600, (2001, 2001))
    yield
    for name in files:
        lab.path_on("login", f"/home/alice/.ssh/{name}").unlink()


@pytest.fixture(scope="module")
def runs(lab: Lab, internet: Services, path: str, ssh_set_up: None) -> Runs:
    alice = Researcher(lab)
    alice.set_up()
    options = "#SBATCH -n1 --cpus-per-task=2 --time=2"
    return Runs(lab, internet, {c.name: alice.submit(body(c, internet.token, path), options) for c in CLIENTS})


@pytest.mark.parametrize("client", CLIENTS, ids=IDS)
def test_it_gets_out(client: Client, runs: Runs) -> None:
    complaints = runs.complaints(client)
    assert not complaints, "\n".join(complaints)


def test_the_services_had_no_request_that_they_do_not_know(runs: Runs) -> None:
    for client in CLIENTS:
        runs.of(client)
    assert [entry for entry in runs.internet.book if entry["kind"] == "unknown"] == []


def test_without_the_hook_none_of_them_does(lab: Lab, runs: Runs, path: str) -> None:
    for client in CLIENTS:
        runs.of(client)
    before = (len(runs.internet.book), runs.internet.ssh_log.count("Accepted"))
    commands = ""
    for number, client in enumerate(CLIENTS):
        lab.machine("login").put(f"/home/alice/without-{number}", body(client, "none", path), owner=(2001, 2001))
        commands += f"(timeout {_LONGEST_S} bash ~/without-{number} >/dev/null 2>&1; echo {number} exit $?) &\n"
    result = lab.wait_job(lab.submit(f"#!/bin/bash\n#SBATCH -n1 --exclusive\n{commands}wait\nrm ~/without-*\n"))
    ended = {int(line.split()[0]): int(line.split()[2]) for line in result.output.splitlines()}
    assert sorted(ended) == list(range(len(CLIENTS))), result.output
    assert [CLIENTS[number].name for number, code in ended.items() if code == 0] == []
    assert (len(runs.internet.book), runs.internet.ssh_log.count("Accepted")) == before


def test_the_manual_has_the_table_of_what_was_run(runs: Runs) -> None:
    rows = [(c.name, runs.version(c), "fails" if runs.complaints(c) else "works") for c in CLIENTS]
    before, begin, rest = PAGE.read_text().partition(BEGIN)
    table, end, after = rest.partition(END)
    assert begin, f"{PAGE} has no line {BEGIN}"
    assert end, f"{PAGE} has no line {END}"
    if WRITE:
        lines = ["| client | version | result |", "|---|---|---|", *(f"| {' | '.join(row)} |" for row in rows)]
        PAGE.write_text(f"{before}{BEGIN}\n" + "".join(f"{line}\n" for line in lines) + f"{END}{after}")
        return
    shown = [tuple(cell.strip() for cell in line.strip("|").split("|")) for line in table.strip().splitlines()[2:]]
    assert [(name, result) for name, _, result in shown] == [(name, result) for name, _, result in rows]

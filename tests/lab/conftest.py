"""One lab for the whole session. Where none can be built the tests are skipped with the reason."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from hpcproxy.errors import LabError
from hpcproxy.lab import Lab, LabSpec, packages

from .admin import Admin
from .researcher import Researcher, until

REPOSITORY = Path(__file__).resolve().parents[2]


def lab_name(purpose: str = "main") -> str:
    """A name that no other test run and no developer's lab has."""
    return f"test-{purpose}-{os.getpid()}"


@pytest.fixture(scope="session")
def lab_host() -> None:
    """This machine can hold a lab."""
    try:
        packages.require_privilege()
        packages.ensure(packages.LAB_TOOLS, lambda step: print(step, file=sys.stderr))
    except LabError as error:
        pytest.skip(str(error))


@dataclass(frozen=True)
class ClientsPlace:
    """A directory that every host of the lab sees at the same place, read-only; whoever uses it fills it first."""

    directory: Path


@pytest.fixture(scope="session")
def clients_place(tmp_path_factory: pytest.TempPathFactory) -> ClientsPlace:
    directory = tmp_path_factory.mktemp("clients")
    directory.chmod(0o755)
    return ClientsPlace(directory)


@pytest.fixture(scope="session")
def lab(lab_host: None, clients_place: ClientsPlace) -> Iterator[Lab]:
    """A lab of three nodes that sees this repository; tests may break it only if they mend it again."""
    name = lab_name()
    try:
        yield Lab.up(LabSpec(name=name, nodes=3, expose=(REPOSITORY, clients_place.directory)))
    finally:
        Lab.remove(name)


@pytest.fixture
def alice(lab: Lab) -> Iterator[Researcher]:
    """Alice with hpcproxy set up through jump1; afterwards nothing of hers may be left on any node."""
    researcher = Researcher(lab)
    researcher.set_up(ready_timeout_s=120)  # other labs are at work on the same few cores
    yield researcher
    lab.run("login", ["scancel", "--user=alice"], check=True)  # of a test that failed half way
    until(lambda: not researcher.traces(), f"nothing of the job is left: {researcher.traces()}")
    assert lab.drained() == []


@pytest.fixture(params=[True, False], ids=["agent", "no-agent"])
def either(request: pytest.FixtureRequest, alice: Researcher) -> Researcher:
    """Alice, once with the agent and once with `agent: false`, where ssh itself listens: both are first-class."""
    alice.agent = request.param
    if not alice.agent:
        alice.set(agent=False)
    return alice


@pytest.fixture(scope="session")
def site(lab_host: None) -> Iterator[Lab]:
    """A lab of four nodes whose root on the controller may log in to every one."""
    name = lab_name("deploy")
    try:
        configless = {"SlurmctldParameters": "enable_configless"}  # for the one test that makes use of it
        yield Lab.up(LabSpec(name=name, nodes=4, node_sshd=True, expose=(REPOSITORY,), slurm_conf=configless))
    finally:
        Lab.remove(name)


@pytest.fixture
def admin(site: Lab) -> Iterator[Admin]:
    """The admin of a cluster on which nothing is deployed; afterwards nothing is left, and no node is drained."""
    found = Admin(site)
    found.describe()
    yield found
    assert site.drained() == []
    until(lambda: not found.traces(), f"nothing of a job is left: {found.traces()}")
    found.describe()
    assert found.words("undeploy") <= {"changed", "unchanged"}

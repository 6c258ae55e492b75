"""PerSourcePenalties for real (OpenSSH 9.8 on): one user's refused key on many nodes of a cluster that is one address.

Not in every test run, for the jump host needs another release: `invoke reach --features penalties`.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from hpcproxy.lab import Lab, LabSpec

from .conftest import REPOSITORY, lab_name
from .researcher import FETCH, OUTER1, Researcher, until

pytestmark = pytest.mark.lab
WIDE = 24
# As if the cluster came from one address. All else is as OpenSSH has it: PerSourcePenalties authfail:5 max:600 min:15.
ONE_ADDRESS = {"PerSourceNetBlockSize": "16:16"}
LOG = "/var/log/sshd.log"


@pytest.fixture(scope="module")
def cluster(lab_host: None) -> Iterator[Lab]:
    """A lab with a node more than the wide job has."""
    if LabSpec().release.get("jump") not in ("trixie", "forky"):
        pytest.skip("OpenSSH has PerSourcePenalties from 9.8 on")
    name = lab_name("penalties")
    try:
        yield Lab.up(LabSpec(name=name, nodes=WIDE + 1, node_sshd=True, expose=(REPOSITORY,)))
    finally:
        Lab.remove(name)


@pytest.fixture
def refused(cluster: Lab) -> Iterator[str]:
    """The jump host, new and without any grudge, knows no key of alice's any more; where its log is."""
    keys = cluster.path_on("jump1", "/home/alice/.ssh/authorized_keys")
    text = keys.read_text()
    keys.write_text("")
    cluster.sshd("jump1", ONE_ADDRESS)
    log = cluster.path_on("jump1", LOG)
    log.write_text("")
    yield str(log)
    keys.write_text(text)


@pytest.mark.parametrize("agent", [True, False], ids=["agent", "no-agent"])
def test_another_user_gets_out_beside_it(agent: bool, cluster: Lab, refused: str) -> None:
    alice, bob = Researcher(cluster, "alice"), Researcher(cluster, "bob")
    for user in (alice, bob):
        user.agent = agent
        user.set_up()
    wide = alice.submit("sleep 1\n", f"#SBATCH -N{WIDE} --ntasks-per-node=1 -w c[1-{WIDE}]")
    output = cluster.path_on("login", f"/home/alice/slurm-{wide}.out")
    until(lambda: output.exists() and output.read_text(), "it has been refused")
    result = bob.job(f"srun {FETCH}\n", f"#SBATCH -N1 -w c{WIDE + 1}")
    story = f"{output.read_text()}\n{cluster.path_on('jump1', LOG).read_text()}"
    assert result.output.split() == [OUTER1], story
    assert "key" in output.read_text()

"""Where a node has no python3 for the agent, ssh itself listens on every node of the job, and the log says why."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from hpcproxy.lab import Lab

from .endings import SLURMS_VOICE
from .researcher import FETCH, OUTER1, Researcher

pytestmark = pytest.mark.lab
LISTS = "srun bash -c 'cat /tmp/hpcproxy-*/*/log | grep -c \"no python3 of 3.6 or later for the agent on\"'\n"


@pytest.fixture
def no_python_on_c2(lab: Lab) -> Iterator[None]:
    """On c2 what is called python3 on anybody's PATH cannot be run."""
    find = "for name in python3 platform-python; do type -ap $name; ls /usr/libexec/$name; done 2>/dev/null"
    names = lab.run("c2", ["bash", "-c", find]).stdout.split()
    programs = {lab.run("c2", ["readlink", "-f", name], check=True).stdout.strip() for name in names}
    for program in programs:
        lab.run("c2", ["mount", "--bind", "/etc/hostname", program], check=True)
    yield
    for program in programs:
        lab.run("c2", ["umount", program], check=True)


@pytest.mark.usefixtures("no_python_on_c2")
def test_one_node_without_python_makes_the_whole_job_do_without_the_agent(alice: Researcher) -> None:
    result = alice.job(f'echo "$http_proxy"\nsrun {FETCH}\n{LISTS}')
    alice.agent = False
    # A step may wait for what srun of the one before has not told slurmctld yet, and says so.
    own = [line for line in result.output.splitlines() if not SLURMS_VOICE.match(line)]
    assert own == [alice.url(result.job_id), *[OUTER1] * 3, "1", "1", "1"]
    assert (result.state, result.derived_exit_code) == ("COMPLETED", 0)


@pytest.mark.usefixtures("no_python_on_c2")
def test_a_job_on_the_other_nodes_has_the_agent(alice: Researcher) -> None:
    options = "#SBATCH -N2 --ntasks-per-node=1 --exclude=c2"
    result = alice.job(f'echo "$http_proxy"\nsrun {FETCH}\n', options)
    assert result.output.split() == [alice.url(result.job_id), *[OUTER1] * 2]


@pytest.mark.usefixtures("no_python_on_c2")
def test_a_job_on_that_node_alone_has_a_tunnel(alice: Researcher) -> None:
    result = alice.job(f'echo "$http_proxy"\nsrun {FETCH}\n{LISTS}', "#SBATCH -N1 --nodelist=c2")
    alice.agent = False
    assert result.output.split() == [alice.url(result.job_id), OUTER1, "1"]

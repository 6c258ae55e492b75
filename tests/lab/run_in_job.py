"""PrologFlags=RunInJob with proctrack/cgroup, where Slurm has them: whatever becomes of a job, no node is drained.

Not in every test run, for the nodes need another release: `invoke reach --features RunInJob`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from itertools import cycle

import pytest

from hpcproxy.lab import Lab, LabSpec
from hpcproxy.lab.cgroup import HERE
from hpcproxy.lab.spec import CGROUP_SUITES

from .admin import FETCH, OUTER1, Admin
from .conftest import REPOSITORY, lab_name
from .endings import SLURMS_VOICE
from .researcher import until

pytestmark = pytest.mark.lab
JOBS = 50
# The second request comes when the test has done what it does to the job.
BODY = f"""#!/bin/bash
#SBATCH -N2 --ntasks-per-node=1 --requeue
srun {FETCH}
echo up
until [ -e ~/go ]; do sleep 0.2; done
srun {FETCH}
"""
ANSWERED = [OUTER1, OUTER1, "up", OUTER1, OUTER1]
CONF = {
    "PrologFlags": "Contain,RunInJob",
    "AuthInfo": "cred_expire=5",  # a requeued job waits that long, by default two minutes
    "KillWait": "8",
}


@pytest.fixture(scope="module")
def site(lab_host: None) -> Iterator[Lab]:
    """A lab with cgroups, whose root may log in to the nodes."""
    if LabSpec().release.get("compute") not in CGROUP_SUITES:
        pytest.skip("Slurm has RunInJob from 24.05 on")
    spec = LabSpec(
        name=lab_name("run-in-job"),
        nodes=4,
        cpus=64,
        memory_mb=64000,
        proctrack="cgroup",
        node_sshd=True,
        expose=(REPOSITORY,),
        slurm_conf=CONF,
    )
    try:
        yield Lab.up(spec)
    finally:
        Lab.remove(spec.name)


@pytest.fixture
def admin(site: Lab) -> Iterator[Admin]:
    """The admin, who has enabled it; nothing of a job is left afterwards, neither a cgroup of Slurm's nor ours."""
    site.run("login", ["rm", "-f", "go"], "alice", check=True)
    found = Admin(site)
    found.describe(task_wait_s=60)  # many jobs begin at once, on few cores
    outcomes = found.outcomes("deploy", "--enable")
    assert {word for word, _ in outcomes.values()} <= {"changed", "unchanged"}, outcomes
    yield found
    until(lambda: not found.traces(), f"nothing of a job is left: {found.traces()}")
    until(lambda: not groups(site), f"no cgroup is left: {groups(site)}")
    assert site.drained() == []
    assert found.words("undeploy") <= {"changed", "unchanged"}


def groups(lab: Lab) -> list[str]:
    """The cgroups that jobs and tunnels have on the nodes."""
    found = []
    for node in lab.nodes:
        argv = ["find", HERE, "-type", "d", "(", "-name", "step_*", "-o", "-path", "*/hpcproxy/*", ")"]
        found += [f"{node}: {path}" for path in lab.run(node, argv).stdout.split()]
    return found


def said(lab: Lab, job: int) -> str:
    """What the job has written so far."""
    path = lab.path_on("login", f"/home/alice/slurm-{job}.out")
    return path.read_text(errors="replace") if path.exists() else ""


def answers(output: str) -> list[str]:
    """What the job itself has written."""
    return [line for line in output.split("\n") if line and not SLURMS_VOICE.match(line)]


def go(lab: Lab) -> None:
    """All jobs may go on."""
    lab.run("login", ["touch", "go"], "alice", check=True)


def test_the_extern_step_is_real_and_the_tunnel_is_beside_it(admin: Admin, site: Lab) -> None:
    job = site.submit(BODY)
    until(lambda: "up" in said(site, job), "it is up")
    node = site.job_fields(job)["BatchHost"]
    running = {line: pid for pid, _, line in site.processes(node)}
    assert f"slurmstepd: [{job}.extern]" in running
    found = groups(site)
    assert [path for path in found if path.startswith(f"{node}: ") and path.endswith("/step_extern")], found
    agents = [pid for line, pid in running.items() if "agent.pyz hold" in line]
    assert agents
    for pid in agents:
        assert "/hpcproxy/" in site.run(node, ["cat", f"/proc/{pid}/cgroup"]).stdout
    go(site)
    assert answers(site.wait_job(job).output) == ANSWERED


def cancel(lab: Lab, job: int) -> None:
    lab.run("login", ["scancel", str(job)], "alice", check=True)


def requeue(lab: Lab, job: int) -> None:
    lab.run("ctl", ["scontrol", "requeue", str(job)], check=True)


def kill_its_tunnel(lab: Lab, job: int) -> None:
    """SIGKILL ends the agents of the job; the supervisor starts others."""
    for node in lab.nodes:
        pids = [
            str(pid) for pid, _, line in lab.processes(node) if re.search(rf"agent\.pyz hold .*--job {job}\b", line)
        ]
        if pids:
            lab.run(node, ["kill", "-KILL", *pids])


def kill(lab: Lab, job: int) -> None:
    """Slurm kills all that is in the job's steps."""
    lab.run("login", ["scancel", "--full", "--signal=KILL", str(job)], "alice", check=True)


def leave(lab: Lab, job: int) -> None:
    """Nothing is done to it."""


# What is done to a job, and how it may end then.
FATES = {
    leave: ("COMPLETED",),
    cancel: ("CANCELLED",),
    requeue: ("COMPLETED",),
    kill_its_tunnel: ("COMPLETED",),
    kill: ("FAILED", "CANCELLED"),
}


def test_fifty_jobs_cancelled_requeued_and_killed_drain_no_node(admin: Admin, site: Lab) -> None:
    jobs = dict(zip((site.submit(BODY) for _ in range(JOBS)), cycle(FATES)))
    until(lambda: all("up" in said(site, job) for job in jobs), "all are up", deadline_s=300)
    for job, fate in jobs.items():
        fate(site, job)
    go(site)
    results = {job: site.wait_job(job, timeout_s=300) for job in jobs}
    ends = Counter((fate.__name__, results[job].state) for job, fate in jobs.items())
    print(dict(ends))
    assert all(results[job].state in FATES[fate] for job, fate in jobs.items()), ends
    for job, result in results.items():
        if result.state == "COMPLETED":
            assert answers(result.output) == ANSWERED, f"{jobs[job].__name__}: {result.output}"
    assert site.drained() == []


def test_files_are_not_taken_away_under_a_job(admin: Admin, site: Lab) -> None:
    """Its slurmstepd has the configuration of its start, and would miss the Epilog: the node would be drained."""
    job = site.submit(BODY)
    until(lambda: "up" in said(site, job), "it is up")
    nodes = site.run("ctl", ["scontrol", "show", "hostnames", site.job_fields(job)["NodeList"]]).stdout.split()
    outcomes = admin.outcomes("undeploy")
    refused = [node for node, (word, cause) in outcomes.items() if word == "failed" and "a job runs here" in cause]
    assert sorted(refused) == sorted(nodes), outcomes
    go(site)
    result = site.wait_job(job)
    assert (result.state, answers(result.output)) == ("COMPLETED", ANSWERED)
    assert site.drained() == []
    assert admin.words("undeploy") <= {"changed", "unchanged"}
    assert site.wait_job(site.submit("#!/bin/bash\n#SBATCH -N4\nsrun true\n")).state == "COMPLETED"
    assert site.drained() == []

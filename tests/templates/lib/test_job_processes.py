"""Which processes count as the job's: whatever Slurm calls the directories of its cgroups."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from hpcproxy.node.life.job_processes import step_places
from tests import REPOSITORY
from tests.sshd import Sshd
from tests.supervisor import Supervisor, session
from tests.waiting import until

JOB_PROCESSES = REPOSITORY / "templates/lib/tunnel/job_processes.sh"
# Lines of a process in a step, as each kind of Slurm and of cgroups has them, and how those of its job's steps begin.
LINES = {
    "22.05, version 1": (
        "8:pids:/\n6:freezer:/slurm/uid_2001/job_7/step_1\n4:memory:/slurm/uid_2001/job_7/step_1/task_0\n",
        ("6:freezer:/slurm/uid_2001/job_7/step_", "4:memory:/slurm/uid_2001/job_7/step_"),
    ),
    "24.11, version 2": (
        "0::/system.slice/c1_slurmstepd.scope/job_3/step_batch/user/task_0\n",
        ("0::/system.slice/c1_slurmstepd.scope/job_3/step_",),
    ),
    "26.05, version 2": (
        "0::/system.slice/c1_slurmstepd.scope/s4JSM8KG6RPJ00/step_1/user/task_special\n",
        ("0::/system.slice/c1_slurmstepd.scope/s4JSM8KG6RPJ00/step_",),
    ),
    "a step within a step": ("0::/a/step_0/user/step_1/x\n", ("0::/a/step_",)),
    "in no step": ("6:freezer:/\n0::/system.slice/slurmd.service\n", ()),
}


@pytest.mark.parametrize("kind", LINES)
def test_the_jobs_steps_are_beside_our_own(kind: str, tmp_path: Path) -> None:
    text, places = LINES[kind]
    (tmp_path / "cgroup").write_text(text)
    script = f'. {JOB_PROCESSES}; step_places "$1"; printf "%s\\n" ${{steps[@]+"${{steps[@]}}"}}'
    said = subprocess.run(
        ["bash", "-c", script, "bash", tmp_path / "cgroup"], capture_output=True, text=True, check=True
    )
    assert step_places(text) == places
    assert tuple(line for line in said.stdout.split() if line != "-e") == places


@pytest.fixture
def job_cgroup() -> Iterator[Path]:
    """A cgroup as Slurm 26.05 makes it for a job, with two steps."""
    if os.geteuid() != 0:
        pytest.skip("needs root, to make a cgroup")
    mounts = [line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines() if " cgroup2 " in line]
    if not mounts:
        pytest.skip("cgroups of version 2 are not mounted here")
    job = Path(tempfile.mkdtemp(prefix="hpcproxy-test-s4JSM8KG6RPJ00-", dir=mounts[0]))
    for step in ("step_0", "step_1"):
        (job / step).mkdir()
    yield job
    for step in ("step_0", "step_1"):
        until(lambda step=step: not (job / step / "cgroup.procs").read_text(), "its processes have ended")  # type: ignore[misc]
        (job / step).rmdir()
    with suppress(OSError):
        job.rmdir()


def test_a_rank_without_a_variable_keeps_the_tunnel(
    job_cgroup: Path, hold: Callable[..., Supervisor], jump_host: Sshd, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one that has written its title over its environment; only the cgroup tells whose it is. (P2)"""
    monkeypatch.setenv("HPCPROXY_HOLDER", "1")  # as the step has it from job.sh
    supervisor = hold(**jump_host.settings, grace_s=600)
    supervisor.line("ready")
    with subprocess.Popen(["sleep", "600"], env={}, stdin=subprocess.DEVNULL) as rank:
        (job_cgroup / "step_0/cgroup.procs").write_text(str(rank.pid))
        for pid in session(supervisor.process.pid):
            (job_cgroup / "step_1/cgroup.procs").write_text(str(pid))
        supervisor.process.send_signal(signal.SIGTERM)
        time.sleep(1.5)
        stayed = supervisor.process.poll() is None
        rank.kill()
        rank.wait()
        assert stayed
        assert supervisor.process.wait(30) == 0

"""The step in which a job's tunnels run: what it takes from the job, when it begins anew, when nobody waits for it."""

from __future__ import annotations

import os
import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from hpcproxy.account import tunnels
from tests.supervisor import write_script
from tests.waiting import until

# Says what it is told, keeps what it was given, and stays until it is asked to go.
_SRUN = """#!/bin/bash
if [[ $1 == --version ]]; then printf '%s\\n' "${VERSION-}" && exit; fi
for ((number = 0; ; number++)); do mkdir "$KEPT/$number" 2>/dev/null && break; done
env -0 >"$KEPT/$number/env"
printf '%s\\n' "$@" >"$KEPT/$number/words"
readlink "/proc/$$/cwd" >"$KEPT/$number/cwd"
for file in /proc/$$/fd/*; do printf '%s %s\\n' "${file##*/}" "$(readlink "$file")"; done >"$KEPT/$number/open"
trap 'exit 0' USR1 TERM
if ((number == 0)); then
    [[ ! -e $KEPT/state ]] || mv "$KEPT/state" "$STATE"
    cat "$KEPT/says"
    cat "$KEPT/complains" >&2
fi
if [[ -e $KEPT/complains-$number ]]; then cat "$KEPT/complains-$number" >&2; fi
until [[ -e $KEPT/over ]]; do /bin/sleep 0.05; done
"""
# Is heard at the second time only, as by a supervisor that has just begun.
_SCANCEL = """#!/bin/sh
printf '%s\\n' "$*" >>"$KEPT/scancel"
case $(grep -c -- --signal=URG "$KEPT/scancel") in [01]) ;; *) touch "$KEPT/over" ;; esac
"""


class Job:
    """job.sh of a job on two nodes, with an srun of ours; `runs` are those that it has started."""

    def __init__(self, directory: Path) -> None:
        self.kept = directory / "kept"
        self.kept.mkdir()
        for name in ("says", "complains"):
            (self.kept / name).write_text("")
        programs = directory / "bin"
        programs.mkdir()
        for name, text in (("srun", _SRUN), ("scancel", _SCANCEL)):
            (programs / name).write_text(text)
            (programs / name).chmod(0o755)
        # As long as a test may last: whoever waits for it in full fails.
        script = write_script(directory / "home", jump="u@h", ready_timeout_s=600).with_name("job.sh")
        self.run = directory / "run"
        text, count = re.subn(r"(?m)^run_base=.*$", f"run_base='{self.run}'", script.read_text())
        assert count == 1
        script.write_text(text)
        self.argv = ["/bin/bash", "-p", str(script), "start"]
        self.number = str(os.getpid())
        self.environ = {
            **os.environ,
            "PATH": f"{programs}:{os.environ['PATH']}",
            "KEPT": str(self.kept),
            "SLURM_JOB_ID": self.number,
            "SLURM_JOB_NUM_NODES": "2",
            "SLURMD_NODENAME": "n0",
        }

    def says(self, *lines: str, complains: str = "") -> None:
        """What the step says on its outputs."""
        (self.kept / "says").write_text("".join(f"{line}\n" for line in lines))
        (self.kept / "complains").write_text(complains)

    def ready(self) -> Path:
        """The step makes the state of this node, whose supervisor this process is; all nodes say they are ready."""
        state = Path(os.environ["TMPDIR"]) / f"hpcproxy-{os.geteuid()}" / f"{self.number}.0-abcd1234"
        state.parent.mkdir(mode=0o700)
        self.state_at(self.kept / "state")
        self.environ["STATE"] = str(state)
        self.says(f"state n0 {state}", "mode n0 agent 7.1", "mode n1 agent 7.1", "ready n0 j", "ready n1 j")
        return state

    def auto(self) -> None:
        """It is as `via: auto` makes it."""
        script = Path(self.argv[2])
        text, count = re.subn(r"(?m)^via=ssh$", "via=auto", script.read_text())
        assert count == 1
        script.write_text(text)

    def state_at(self, state: Path) -> None:
        """There is a state of ours there."""
        for directory in (state.parent, state):
            directory.mkdir(mode=0o700, exist_ok=True)
        (state / "pid").write_text(f"{os.getpid()} {tunnels.start_time(os.getpid())}\n")
        (state / "env").write_text("")

    def start(self, **more: str) -> subprocess.CompletedProcess[str]:
        """What job.sh says in the end."""
        return subprocess.run(
            self.argv, env={**self.environ, **more}, capture_output=True, text=True, check=False, timeout=50
        )

    @property
    def runs(self) -> list[Path]:
        """One directory for each srun, in their order."""
        return sorted(path for path in self.kept.glob("[0-9]*") if (path / "open").exists())


@pytest.fixture
def job(tmp_path: Path) -> Iterator[Job]:
    found = Job(tmp_path)
    yield found
    (found.kept / "over").touch()


def test_with_auto_nodes_that_are_out_get_nothing_and_are_told_so(job: Job) -> None:
    state = job.ready()
    job.auto()
    job.says(
        f"state n0 {state}", "mode n0 agent 7.1", "mode n1 agent 7.1", "ready n0 direct",
        "note n1 way the tunnel goes by direct; not by http://p:1: it is not reached", "ready n1 direct",
    )  # fmt: skip
    done = job.start()
    assert (done.returncode, done.stdout) == (0, "out\n")
    assert done.stderr.splitlines()[-1] == (
        "hpcproxy: the nodes of this job reach the internet by themselves, so no tunnel is started"
    )
    assert "--signal=URG 7.1" in (job.kept / "scancel").read_text()


def test_with_auto_one_node_that_is_not_out_has_all_use_the_tunnel(job: Job) -> None:
    state = job.ready()
    job.auto()
    job.says(
        f"state n0 {state}", "mode n0 agent 7.1", "mode n1 agent 7.1", "ready n0 direct",
        "note n1 way the tunnel goes by j; not by direct: no route", "ready n1 j",
    )  # fmt: skip
    done = job.start()
    assert (done.returncode, done.stdout.split()) == (0, [str(state)])
    said, good = done.stderr.splitlines()
    assert said == "hpcproxy: the tunnel goes by j; not by direct: no route"
    assert good.startswith("hpcproxy: out through the nodes' own route, j, 2 nodes, ")


def test_who_uses_a_tunnel_that_another_of_the_job_has_started_adds_no_line(job: Job) -> None:
    """`srun bash -c '. prologue.sh; …'` begins once for each task; one of them starts it, and says so."""
    state = job.ready()
    same = "the same tunnel as another shell of this job"
    job.says(f"state n0 {state}", "mode n0 agent 7.1", "mode n1 agent 7.1", f"ready n0 {same}", f"ready n1 {same}")
    done = job.start()
    assert (done.returncode, done.stdout.split(), done.stderr) == (0, [str(state)], "")


def test_with_direct_the_agent_stays(job: Job) -> None:
    state = job.ready()
    job.says(f"state n0 {state}", "mode n0 agent 7.1", "mode n1 agent 7.1", "ready n0 direct", "ready n1 direct")
    assert job.start().stdout.split() == [str(state)]


FOREIGN = {
    "SLURM_CPU_BIND": "verbose", "SLURM_NTASKS": "8", "SLURM_EXPORT_ENV": "NONE", "SLURM_HINT": "nomultithread",
    "SLURM_DISTRIBUTION": "block", "SLURM_MEM_PER_NODE": "100", "SLURM_OVERCOMMIT": "1", "SLURM_THREADS_PER_CORE": "1",
    "SRUN_DEBUG": "3", "SRUN_CPUS_PER_TASK": "4", "SLURM_NETWORK": "x",
}  # fmt: skip
OURS = {"SLURM_CONF": "/etc/slurm/slurm.conf", "SLURM_CLUSTER_NAME": "c", "SLURM_JOB_END_TIME": "99"}


def test_options_for_the_jobs_own_steps_are_not_the_steps_of_the_tunnel(job: Job) -> None:
    job.ready()
    assert job.start(**FOREIGN, **OURS).returncode == 0
    environ = dict(each.split("=", 1) for each in (job.runs[0] / "env").read_text().split("\0") if each)
    slurms = {name: value for name, value in environ.items() if name.startswith(("SLURM_", "SRUN_"))}
    assert slurms == {**OURS, "SLURM_JOB_ID": job.number}
    assert environ["TMPDIR"] == os.environ["TMPDIR"], "the rest is the job's"


def test_what_the_job_has_open_is_not_kept_open(job: Job, tmp_path: Path) -> None:
    """A lock, or a pipe whose reader waits for its end."""
    job.ready()
    lock = tmp_path / "lock"
    argv = ["bash", "-c", f'exec 7>"{lock}" 12>"{lock}"; exec "$@"', "bash", *job.argv]
    subprocess.run(argv, env=job.environ, capture_output=True, check=True, timeout=60)
    assert str(lock) not in (job.runs[0] / "open").read_text()


def test_one_node_for_which_waiting_is_no_use_is_enough(job: Job) -> None:
    job.says("mode n0 agent 7.1", "mode n1 agent 7.1", "gave-up n1 key j: it refused the key")
    done = job.start()
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "hpcproxy: no tunnel: n1: key: j: it refused the key; the job runs on without it\n"


def test_only_what_srun_says_of_killed_tasks_starts_them_anew(job: Job) -> None:
    job.ready()
    said = "srun: warning: can't honor --ntasks-per-node\nsrun: error: Unable to confirm allocation\nslurmstepd: x\n"
    (job.kept / "complains").write_text(said + "srun: error: n[1,3-4]: tasks 1,3-4: Killed\n")
    assert job.start().returncode == 0
    until(lambda: len(job.runs) > 1, "a second step, after its pause")
    since = time.monotonic()
    until(lambda: time.monotonic() > since + 1.5, "a third would have come by now")
    assert len(job.runs) == 2
    words = (job.runs[1] / "words").read_text().splitlines()
    assert {"--nodelist=n[1,3-4]", "--nodes=3", "--ntasks=3"} <= set(words)


def test_what_is_killed_again_and_again_begins_ever_later(job: Job) -> None:
    job.ready()
    killed = "srun: error: n1: task 1: Killed\n"
    (job.kept / "complains").write_text(killed)
    (job.kept / "complains-1").write_text(killed)
    assert job.start().returncode == 0
    until(lambda: len(job.runs) > 2, "a third step, after its pauses")
    first, second, third = ((run / "env").stat().st_mtime for run in job.runs)
    assert second - first > 0.9
    assert third - second > 2.9


def test_the_step_takes_nothing_from_the_jobs_own(job: Job) -> None:
    job.ready()
    assert job.start().returncode == 0
    *options, shell, private, script, hold, number, restart, mode = (
        (job.runs[0] / "words").read_text().removesuffix("\n").split("\n")
    )
    assert options == [
        "--ntasks-per-node=1", "--cpus-per-task=1", "--overlap", "--mem=0", "--gres=none", "--cpu-bind=none",
        "--mpi=none", "--kill-on-bad-exit=0", "--wait=0", "--quiet", "--export=ALL", "--job-name=hpcproxy", "--chdir=/",
        "--nodes=2", "--ntasks=2",
    ]  # fmt: skip
    assert (shell, private, hold, number, restart, mode) == ("/bin/bash", "-p", "hold", job.number, "0", "")
    assert Path(script).name == "tunnel.sh"
    assert (job.runs[0] / "cwd").read_text() == "/\n"


COUNTS = {
    "slurm 20.11.2": True,
    "slurm-wlm 20.11.4": True,  # Debian's word
    "slurm 21.08.8-2": True,
    "slurm 22.05.8": False,
    "slurm 26.05.5": False,
    "nonsense": False,
}


@pytest.mark.parametrize("version", COUNTS)
def test_where_slurm_counts_the_cpus_of_such_a_step_it_has_none(version: str, job: Job) -> None:
    """No step of the job is to wait for it, of another shell either, and none needs to be told so."""
    job.ready()
    done = job.start(VERSION=version)
    assert (done.returncode, done.stdout.split()[-1]) == (0, job.environ["STATE"])
    environ = dict(pair.split("=", 1) for pair in (job.runs[0] / "env").read_text().split("\0") if pair)
    told = {name: environ[name] for name in ("SLURM_OVERCOMMIT", "SLURM_EXACT") if name in environ}
    assert told == ({"SLURM_OVERCOMMIT": "1", "SLURM_EXACT": "1"} if COUNTS[version] else {})


HET = {"SLURM_JOB_NUM_NODES_HET_GROUP_0": "1", "SLURM_JOB_NUM_NODES_HET_GROUP_1": "2"}


def test_a_heterogeneous_job_is_one_step_of_all_its_components(job: Job) -> None:
    """Where tasks of one of them are killed, srun cannot be told to start those alone."""
    job.ready()
    with (job.kept / "says").open("a") as says:
        says.write("ready n2 j\n")
    (job.kept / "complains").write_text("srun: error: n2: task 1: Killed\n")
    assert job.start(**HET).returncode == 0
    words = (job.runs[0] / "words").read_text().splitlines()
    parts = " ".join(words).split(" : ")
    assert [{word for word in part.split() if re.match("--(nodes|ntasks|het-group)=", word)} for part in parts] == [
        {"--nodes=1", "--ntasks=1", "--het-group=0"},
        {"--nodes=2", "--ntasks=2", "--het-group=1"},
    ]
    since = time.monotonic()
    until(lambda: time.monotonic() > since + 1.5, "another would have come by now")
    assert len(job.runs) == 1


@pytest.mark.parametrize("number", ["", "0", "two", "-1", "9999999", "a[$(touch x)]"])
def test_a_number_of_nodes_that_is_none_is_said_and_starts_nothing(number: str, job: Job) -> None:
    more = {"SLURM_JOB_NUM_NODES": number, "SLURM_NNODES": number or "none"}
    done = job.start(**more)
    assert (done.returncode, done.stdout) == (1, "")
    words = f"Slurm's number of nodes of this job is none: {number or 'none'}; the job runs on without it"
    assert done.stderr == f"hpcproxy: no tunnel: {words}\n"
    assert job.runs == []


def test_a_supervisor_that_has_only_begun_is_told_to_end_until_it_hears(job: Job) -> None:
    job.says("mode n0 agent 7.1", "gave-up n0 key j: it refused the key")
    assert job.start().returncode == 1
    told = (job.kept / "scancel").read_text().splitlines()
    assert told[:2] == ["--quiet --signal=URG 7.1"] * 2


def test_a_tunnel_that_the_prolog_has_started_is_the_jobs(job: Job) -> None:
    state = job.run / f"{job.number}.0"
    job.run.mkdir()
    job.state_at(state)
    (job.run / "holders").mkdir()
    (job.run / "holders" / f"{job.number}.0.said").write_text("mode n0 agent\nready n0 j\n")
    done = job.start()
    said = "hpcproxy: out through j, by what this site gives every job\n"
    assert (done.returncode, done.stdout.split(), done.stderr) == (0, [str(state)], said)
    assert job.runs == []

"""The main job, end to end: a real job on nodes without internet gets out from every node, for as long as it lives."""

from __future__ import annotations

import json
import re
import sys

import pytest

from hpcproxy.lab import Lab

from .researcher import FETCH, JUMP1, JUMP2, OUTER1, OUTER2, Researcher, until

pytestmark = pytest.mark.lab
STRAIGHT = (
    """srun bash -c 'curl -sS --max-time 5 --noproxy "*" https://internet.test/ip && echo open || echo closed'\n"""
)


def test_every_node_gets_out_through_the_jump_host_and_not_straight(either: Researcher) -> None:
    result = either.job(f"srun {FETCH}\n{STRAIGHT}")
    assert (result.state, result.exit_code, result.derived_exit_code) == ("COMPLETED", 0, 0)
    assert result.output.count(OUTER1) == 3
    assert result.output.count("closed") == 3
    assert "open\n" not in result.output


def test_the_hook_says_in_one_line_that_all_is_well(either: Researcher) -> None:
    either.set(quiet=False)
    result = either.job("echo on\nbash -c '. ~/.hpcproxy/prologue.sh'\n")
    assert re.fullmatch(rf"hpcproxy: out through {JUMP1}, 3 nodes, \d+\.\d s\non\n", result.output), result.output


def test_the_wrap_command_puts_the_hook_where_it_works(alice: Researcher, lab: Lab) -> None:
    script = f"#!/bin/bash\n#SBATCH -N3 --ntasks-per-node=1\n\n# my job\nsrun {FETCH}\n"
    lab.path_on("login", "/home/alice/job.sh").write_text(script)
    alice.hpcproxy("wrap", "--output", "wrapped.sh", "job.sh")
    wrapped = lab.path_on("login", "/home/alice/wrapped.sh").read_text()
    assert lab.wait_job(lab.submit(wrapped)).output.split() == [OUTER1] * 3
    alice.hpcproxy("wrap", "--remove", "--in-place", "wrapped.sh")
    assert lab.path_on("login", "/home/alice/wrapped.sh").read_text() == script


def test_a_job_script_for_dash_works_the_same(either: Researcher) -> None:
    result = either.job(f"set -eu\nsrun {FETCH}\n", shell="/bin/sh")
    assert result.output.split() == [OUTER1] * 3


def test_the_second_jump_host_serves_when_the_first_does_not(either: Researcher, lab: Lab) -> None:
    either.set_up(JUMP1, JUMP2)
    lab.sshd_stop("jump1")
    try:
        result = either.job(f"srun {FETCH}\n")
    finally:
        lab.sshd("jump1")
    assert result.output.split() == [OUTER2] * 3


def test_a_cancelled_job_leaves_nothing(either: Researcher, lab: Lab) -> None:
    job = either.submit("srun sleep 600\n")
    until(lambda: any("sleep 600" in line for _, _, line in lab.processes("c3")), "the job runs on c3")
    assert any(uid == 2001 for _, _, uid in lab.listeners("c3"))
    lab.run("login", ["scancel", str(job)], "alice", check=True)
    assert lab.wait_job(job).state == "CANCELLED"


def test_the_epilogue_ends_it_on_every_node_and_brings_the_old_settings_back(either: Researcher) -> None:
    # A step's processes are gone, and its srun, a moment before slurmctld hears of it and squeue no longer lists it.
    body = """. ~/.hpcproxy/epilogue.sh 2>said
srun bash -c 'ls -d /tmp/hpcproxy-* 2>/dev/null; grep -c ":07DF 00000000:0000 0A" /proc/net/tcp || true'
env | grep -i proxy
for _ in {1..300}; do
    steps=$(squeue -h -s -j "$SLURM_JOB_ID" -o %j)
    if [ "$steps" = batch ]; then break; fi
    sleep 0.1
done
echo "$steps"
"""
    result = either.job(body)
    # Where a step has its cores to itself (Slurm 20.11) srun says that it waits for those of the one that has ended.
    lines = [line for line in result.output.split("\n") if not re.match(r"srun: (Job \d+ step|Step) creat", line)]
    assert lines == ["0", "0", "0", "batch", ""]
    assert result.derived_exit_code == 0
    said = either.lab.path_on("login", "/home/alice/said").read_text()
    # ssh alone counts nothing.
    summed_up = "hpcproxy: 0 requests from this node, 0 KiB up, 0 KiB down, 0 reconnects\n"
    assert said == (summed_up if either.agent else "")


def test_a_shell_in_the_job_uses_its_tunnel(either: Researcher, lab: Lab) -> None:
    job = either.submit("srun -N1 -n1 sleep 600\n")
    until(lambda: any("sleep 600" in line for _, _, line in lab.processes("c1")), "the job runs")
    done = either.shell(job, "c2", f"proxy_status; {FETCH}; proxy_off; {FETCH}; proxy_on; {FETCH}")
    lines = done.stdout.splitlines()
    assert lines[0].startswith(f"hpcproxy: on, {either.url(job)} through {JUMP1}, up for ")
    assert lines[1] == OUTER1
    assert lines[2:] == [
        "hpcproxy: off; your own proxy settings are back",
        f"hpcproxy: on, {either.url(job)}",
        OUTER1,
    ]
    checked = lab.run("login", ["srun", f"--jobid={job}", "--overlap", "-wc3", "-N1", "-n1", *_check()], "alice")
    assert checked.stdout.startswith(f"{OUTER1}  ")
    assert f"through {JUMP1}" in checked.stdout
    told = json.loads(either.hpcproxy("status", "--job", str(job), "--json").stdout)
    assert [(one["node"], one["ready"], one["jump"]) for one in told["tunnels"]] == [
        (node, True, JUMP1) for node in lab.nodes
    ]
    assert told["without"] == []
    page = either.hpcproxy("report", "--job", str(job)).stdout
    assert f'Job {job}: <span class="good">{len(lab.nodes)} nodes served</span>' in page
    assert [f'<td class="text">{node}</td>' in page for node in lab.nodes] == [True] * len(lab.nodes)
    lab.run("login", ["scancel", str(job)], "alice", check=True)
    lab.wait_job(job)


def _check() -> list[str]:
    return [sys.executable, "-m", "hpcproxy", "check"]


@pytest.mark.usefixtures("either")
def test_shells_of_a_job_start_one_when_asked_even_at_the_same_moment(lab: Lab) -> None:
    command = f"proxy_on && {FETCH}; sleep 1"  # the first to end must not take the other's tunnel away
    done = lab.run("login", ["salloc", "-N2", "srun", "bash", "-ic", command], "alice")
    assert done.stdout.count(OUTER1) == 2, done.stderr


def test_autostart_gives_a_shell_in_a_job_its_tunnel(alice: Researcher, lab: Lab) -> None:
    alice.set(autostart=True)
    done = lab.run("login", ["srun", "-N1", "bash", "-ic", FETCH], "alice")
    assert done.stdout.strip() == OUTER1, done.stderr


def test_ssh_that_dies_is_back_at_once(either: Researcher, lab: Lab) -> None:
    job = either.submit(f"touch ~/started\nuntil [ -e ~/go ]; do sleep 0.1; done\nsrun {FETCH}\nrm ~/go ~/started\n")
    until(lambda: lab.path_on("login", "/home/alice/started").exists(), "the job's first command runs")
    for node in lab.nodes:
        (pid,) = [pid for pid, _, line in lab.processes(node) if line.startswith("ssh ") and " -M " in line]
        lab.run(node, ["kill", "-KILL", str(pid)], check=True)
    for node in lab.nodes:
        until(lambda node=node: '"reconnects": 1' in _status(lab, node), f"{node} is up again")
    lab.path_on("login", "/home/alice/go").touch()
    assert lab.wait_job(job).output.split() == [OUTER1] * 3


def _status(lab: Lab, node: str) -> str:
    return lab.run(node, ["sh", "-c", "cat /tmp/hpcproxy-*/*/status.json"]).stdout


def test_a_tunnel_of_the_login_shell_does_not_leak_into_jobs(either: Researcher, lab: Lab) -> None:
    assert "up" in either.hpcproxy("up").stdout
    assert either.hpcproxy("check").stdout.startswith(OUTER1)
    script = "job() { sbatch --parsable --wait -o out -N1 --wrap '. ~/.hpcproxy/prologue.sh; echo $http_proxy'; }; job"
    job = int(lab.run("login", ["bash", "-ic", f"proxy_status >&2; {script}"], "alice", check=True).stdout)
    printed = lab.path_on("login", "/home/alice/out").read_text()
    assert printed == f"{either.url(job)}\n"
    assert "down" in either.hpcproxy("down").stdout
    assert not [line for _, user, line in lab.processes("login") if user == "alice"]


def test_steps_of_a_job_that_exports_nothing_get_out_when_they_are_given_the_environment(alice: Researcher) -> None:
    options = "#SBATCH -N2 --ntasks-per-node=1 --export=NONE"
    result = alice.job(f"srun --export=ALL {FETCH}\nsrun /usr/bin/env | grep -i _proxy || echo nothing\n", options)
    # Slurm 24.11 may tell that a step waits for the end of the one before; with us or without.
    printed = [line for line in result.output.splitlines() if not line.startswith("srun: ")]
    assert printed == [OUTER1, OUTER1, "nothing"]

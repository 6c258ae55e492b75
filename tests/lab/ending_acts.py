"""What jobs in the lab do, what is done to them, and the few that are a story of their own."""

from __future__ import annotations

import os
import pty
import re
import threading
import time

from hpcproxy.lab import slurm

from .conftest import REPOSITORY
from .endings import BY_AGENT, CRED_EXPIRE_S, SITE, SSH, TWO_NODES, UP, WAIT, Run
from .researcher import FETCH, OUTER1, Researcher

EVERY = (BY_AGENT, SSH, SITE)
AGENT = r"python3? -I .*/agent\.pyz|^(\S*/)?bash -p \S*/tunnel\.sh hold"
SSH_PROCESS = r"^(\S*/)?ssh "
SLEEP = f"srun {FETCH}\nsrun sh -c 'echo up; exec sleep 600'\n"
RANK = f"python3 {REPOSITORY}/tests/lab/rank.py"
RANK_SAID = ("out", "up", "signal", "all answered")
ON_USR1 = f"srun {RANK} USR1\n"
# Where Slurm knows a job's processes by their parents (proctrack/cgroup does better) a srun of the batch shell's is
# signalled with it and then kills its ranks. In a session of its own it does not: the ranks have what KillWait gives.
FLUSH = f"setsid -f srun {RANK} TERM 3\nexec sleep 600\n"
# Before 23.02 a slurmd that has just tidied up its list of jobs, as others come and go, takes the second run for the
# first and runs no Prolog (docs/rollout-design.md). Not after its record of the first has expired and two seconds more.
PROLOG_AGAIN_S = CRED_EXPIRE_S + 4
# `exec`, for a shell whose program is killed before it is has something to say.
STUBBORN = "setsid -f srun sh -c 'trap \"\" TERM; echo up; exec sleep 600'\nexec sleep 600\n"
# Twice, for the file that a job writes begins anew with its second run, which then sees what the first has left. Before
# 22.05 a Prolog is not told which run it is for, and what the second has is called as the first's was.
AGAIN = f"""srun {FETCH}
if [ -n "$SLURM_RESTART_COUNT" ]; then
    echo again
    exec srun sh -c 'ls -d /tmp/hpcproxy-*/$SLURM_JOB_ID.0-* /run/hpcproxy/$SLURM_JOB_ID.0 2>/dev/null |
        grep -vxF "${{HPCPROXY_STATE:-none}}" || true'
fi
{UP}srun sleep 600
"""
RESTARTING = threading.Lock()
EAT = "srun -N1 -n1 python3 -c 'x = bytearray(300 << 20); import time; time.sleep(600)'\n"


def time_limit(run: Run) -> None:
    """The time of the job is up; Slurm looks each 30 s."""
    run.ctl("scontrol", "update", f"JobId={run.job}", "EndTime=now+1")


def near_time_limit(run: Run) -> None:
    """So near to the end that the signal is due the next time that Slurm looks, and the end is not."""
    run.ctl("scontrol", "update", f"JobId={run.job}", "EndTime=now+45")


def requeue(run: Run) -> None:
    """The job is queued again and starts again, where the Prolog counts not before slurmd would run that again."""
    if run.way is not SITE:
        run.ctl("scontrol", "requeue", str(run.job))
        return
    run.ctl("scontrol", "requeuehold", str(run.job))
    run.watch.until(lambda: run.watch.of(run.job).state == "PENDING", "it is queued again")
    forgotten = time.monotonic() + PROLOG_AGAIN_S
    run.watch.until(lambda: time.monotonic() > forgotten, "slurmd has forgotten the first run")
    run.ctl("scontrol", "release", str(run.job))


def preempt(run: Run) -> None:
    """A job of more importance has the same GPUs, for as long as `requeue` waits; afterwards the first starts again."""
    longer = f"sleep {PROLOG_AGAIN_S}" if run.way is SITE else "true"
    run.lab.submit(f"#!/bin/bash\n#SBATCH -p urgent -w {run.node(0)} --gres=gpu:2\n{longer}\n", run.way.user)


def suspend(run: Run, where: int = 1) -> None:
    """The job is suspended until nothing of it has run for a while, and resumed; the node `where` gets out again."""
    node = run.node(where)
    run.watch.until(lambda: run.answered(node), "requests are answered")
    run.ctl("scontrol", "suspend", str(run.job))
    run.watch.until(lambda: run.watch.of(run.job).state == "SUSPENDED", "it is suspended")
    before = len(run.seen(node))
    resumed = time.monotonic() + 6
    run.watch.until(lambda: time.monotonic() > resumed, "six seconds pass")
    assert len(run.seen(node)) <= before + 1
    since = time.time()
    run.ctl("scontrol", "resume", str(run.job))
    run.await_again(node, since)
    run.go()


def restart_slurmd(run: Run) -> None:
    """slurmd of the job's last node is ended and started, and knows the job as before."""
    node = run.node(1)
    run.watch.until(lambda: run.answered(node), "requests are answered")
    listed = lambda: [str(p) for p, _, line in run.lab.processes(node) if line.split()[0].endswith("slurmd")]  # noqa: E731
    with RESTARTING:  # a slurmd that begins ends the one that it takes for the one before
        since = time.time()
        (pid,) = listed()
        run.lab.run(node, ["kill", pid], check=True)
        run.watch.until(lambda: pid not in listed(), "slurmd has ended")
        run.lab.run(node, ["slurmd"], check=True)
        run.watch.until(lambda: len(listed()) == 1, lambda: f"one slurmd has started: {listed()}", 30)
    run.await_again(node, since)
    run.go()


def kill_all_on_a_node(run: Run, where: int = 1) -> None:
    """All processes of the job on its node `where` are killed, its own and ours."""
    node = run.node(where)
    sight = run.watch.of(run.job)
    texts = [text for text in sight.own | sight.ours if text.startswith(f"{node}: process ")]
    run.kill([int(text.split()[2]) for text in texts], node)


def kill_our_step_daemon(run: Run) -> None:
    """slurmstepd of the supervisor's step is killed on a node."""
    node = run.node(1)
    named = re.compile(rf"{node}: process (\d+) slurmstepd: \[{run.job}\.0\]")

    def found() -> list[int]:
        return [int(match[1]) for match in map(named.match, run.watch.of(run.job).slurms) if match is not None]

    run.kill(run.watch.until(found, lambda: f"it was seen: {sorted(run.watch.of(run.job).slurms)}"), node)
    run.go()


# ---- stories of their own


def stubborn(run: Run) -> None:
    """Of a job that does not want to end the tunnel goes first: it is not what keeps the node from the next job."""
    run.submit(STUBBORN, TWO_NODES)
    run.up()
    run.scancel()
    sight = run.over()
    assert sight.last_ours < sight.last_own - 1, f"ours {sight.last_ours:.1f}, its own {sight.last_own:.1f}"
    run.check()


def killed_on_a_node(run: Run) -> None:
    """Where all was killed nobody is left to tidy up: no process and no socket, and the next job removes the files."""
    run.submit(f"{FETCH}\n{UP}srun --kill-on-bad-exit=1 sleep 600\n{FETCH}\n{WAIT}", TWO_NODES)
    run.up()
    node = run.node(1)
    busy = lambda: any(text.endswith("sleep 600") and text.startswith(node) for text in run.watch.of(run.job).own)  # noqa: E731
    run.watch.until(busy, "its step runs there")
    kill_all_on_a_node(run)
    _files_go_with_the_next_job(run, [node])


def our_step_cancelled(run: Run) -> None:
    """The supervisor's step is cancelled by somebody who takes it for one of the job's own; Slurm kills it."""
    run.submit(f"{FETCH}\n{UP}{WAIT}{FETCH} || echo refused\n", TWO_NODES)
    run.up()
    run.cancel_our_step()
    _files_go_with_the_next_job(run, ["c1", "c2", "c3"])


def _files_go_with_the_next_job(run: Run, nodes: list[str]) -> None:
    first = run.job
    run.go()
    sight = run.watch.until_over(first, files_may_stay=True)
    for node in nodes:
        run.submit(f"{FETCH}\n", f"-n1 -w {node}")
        run.over()
    run.watch.until(lambda: sight.nothing_left, lambda: f"the next job has tidied up: {sorted(sight.ours)}", 30)
    run.check_gone(run.job)


def array(run: Run) -> None:
    """Twenty tasks of an array at once on one node, each with an address of its own."""
    body = f"echo $http_proxy $({FETCH})\n{WAIT}"
    first = run.submit(body, "-n1 -w c2 --array=1-20")
    listed = lambda: run.lab.run("ctl", ["scontrol", "-o", "show", "jobs"]).stdout  # noqa: E731
    of_array = re.compile(rf"JobId=(\d+) ArrayJobId={first} ArrayTaskId=(\d+) ")
    found = lambda: [(int(j), int(task)) for j, task in of_array.findall(listed())]  # noqa: E731
    run.watch.until(lambda: len(found()) == 20, lambda: f"all of the array are there: {found()}")
    tasks = found()
    home = run.lab.path_on("login", f"/home/{run.way.user}")
    outputs = [home / f"slurm-{first}_{task}.out" for _, task in tasks]
    run.watch.until(
        lambda: all(path.exists() and path.read_text().endswith("\n") for path in outputs),
        lambda: f"all are up: {[path.exists() and path.read_text() for path in outputs]}",
    )
    run.jobs = [job for job, _ in tasks]
    user = Researcher(run.lab, run.way.user)
    user.agent = run.way.agent
    said = [path.read_text() for path in outputs]
    assert said == [f"{user.url(job)} {OUTER1}\n" for job, _ in tasks], said
    run.lab.run("login", ["touch", *(f"go.{job}" for job in run.jobs)], run.way.user, check=True)
    for job in run.jobs:
        run.job = job
        run.over()
    run.check_gone()


def four_jobs(run: Run) -> None:
    """Two users with two jobs each on one node: the end of one is nothing to the others."""
    body = f"{FETCH}\n{UP}{WAIT}{FETCH}\n"
    runs = [Run(run.case, way, run.lab, run.watch) for way in (BY_AGENT, SSH, BY_AGENT, SSH)]
    for each in runs:
        each.submit(body, "-n1 -w c2")
    for each in runs:
        each.up()
    runs[0].scancel()
    runs[0].over()
    runs[1].go()
    runs[1].over()
    for each in runs[2:]:
        each.go()
        each.over()
    for each, state in zip(runs, ("CANCELLED", "COMPLETED", "COMPLETED", "COMPLETED")):
        assert each.result is not None
        assert each.result.state == state, each.result
        assert each.result.output.count(OUTER1) == (2 if state == "COMPLETED" else 1)
        each.check_silence(each.result)
        each.check_gone()
    run.jobs = [each.job for each in runs]


def heterogeneous(run: Run) -> None:
    """Both components get out, from all their nodes."""
    # Up to 20.11.7 srun takes a heterogeneous job for another where it finds this (NEWS of 20.11.8), without us, too.
    before = "unset SLURM_JOB_NUM_NODES\n" if slurm.version(run.lab.machine("ctl")) < (20, 11, 8) else ""
    body = f"{before}srun -n2 --het-group=0 {FETCH} : -n1 --het-group=1 {FETCH}\n"
    run.submit(body, "-N2 --ntasks-per-node=1 --exclude=c4\nhetjob\n-N1 -n1 --exclude=c4")
    run.over()
    run.jobs = [run.job, run.job + 1]
    run.watch.of(run.job + 1).component = True
    run.watch.until_over(run.job + 1)
    run.check()


def salloc(run: Run) -> None:
    """Steps from the login node, one after the other; the second finds what the first has left, or starts its own."""
    step = f"srun bash -ic 'proxy_on >&2 && {FETCH}'" if run.way.hook else f"srun {FETCH}"
    argv = ["salloc", "-N2", "--exclude=c4", "bash", "-c", f"echo $SLURM_JOB_ID; {step}; {step}; exit 5"]
    done = run.lab.run("login", argv, run.way.user)
    first, *rest = done.stdout.split()
    run.job = int(first)
    run.jobs = [run.job]
    assert rest == [OUTER1] * 4, done.stderr
    assert done.returncode == 5
    run.watch.until_over(run.job)
    run.check_gone()


def terminal(run: Run) -> None:
    """An interactive shell with a terminal."""
    ours, theirs = pty.openpty()
    argv = ["srun", "--pty", "-N1", "-w", "c3", "bash", "-i"]
    with run.lab.popen("login", argv, run.way.user, stdin=theirs, stdout=theirs, stderr=theirs) as shell:
        os.close(theirs)
        turn_on = "proxy_on\r" if run.way.hook else ""
        os.write(ours, f"{turn_on}echo job=$SLURM_JOB_ID ip=$({FETCH})=\rexit 4\r".encode())
        said = _read_all(ours)
    found = re.search(r"job=(\d+) ip=([0-9.]+)=", said)
    assert found is not None, said
    assert found[2] == OUTER1
    assert shell.returncode == 4, said
    run.job = int(found[1])
    run.jobs = [run.job]
    run.watch.until_over(run.job)
    run.check_gone()


def _read_all(terminal: int) -> str:
    said = b""
    try:
        while data := os.read(terminal, 4096):
            said += data
    except OSError:  # how a terminal says that its other end is closed
        pass
    finally:
        os.close(terminal)
    return said.decode(errors="replace")

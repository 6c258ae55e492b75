"""Root's part of a tunnel: what runs in it is held in, written down with a bound, and gone with the job."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from hpcproxy.cluster import protocol
from hpcproxy.cluster.outcome import _NEEDED, HostOutcome, Outcomes
from hpcproxy.files.render import Bundle
from tests.cluster.cases import script_of
from tests.templates.slurmd.supervising import ADDRESS, ALICE, BOB, JOB, NAMESAKE, OTHER_JOB, SOON_S, Node, made
from tests.waiting import until

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, as Prolog and Epilog do")
WAIT = "exec sleep 600"
READY = f"echo ready c1 jump; {WAIT}"
# Binds where the job's tunnel is, in each way that there is; says what came of it.
TAKE = f"""
import socket
for address in ("{ADDRESS}", "0.0.0.0"):
    for reuse in (0, 1):
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, reuse)
        try:
            sock.bind((address, 2015))
            sock.listen()
            print("taken")
        except OSError as error:
            print(error.errno)
"""
CONNECT = f"import socket; s = socket.create_connection(('{ADDRESS}', 2015), 5); print('connected')"


@pytest.fixture
def node() -> Iterator[Node]:
    with made() as pid:
        there = Node(pid)
        yield there
        for job in (JOB, OTHER_JOB):
            there.epilog(job)


def _python(node: Node, program: str, uid: int = BOB) -> str:
    return node.call("/usr/bin/python3", "-I", "-c", program, uid=uid)


def test_who_it_is_is_a_number_and_what_it_may_is_little(node: Node) -> None:
    """There is a user whose name is alice's number; core files and setuid programs are none of the tunnel's."""
    passwd = (node.root / "mnt/etc/passwd").read_text()
    node.put("/mnt/etc/passwd", NAMESAKE + passwd, 0o644)
    about = "/proc/self/status /proc/self/limits /proc/self/oom_score_adj"
    node.way(f"id -u >$5/me; cat {about} >>$5/me; env >$5/env.me; {READY}")
    node.prolog(more=["LD_PRELOAD_X=1", "BASH_ENV=/mnt/lib/none"])
    node.await_word("ready")
    assert "wall" not in node.record(), "nft would have let the other one pass"
    state = node.run_base / f"{JOB}.0"
    me = (state / "me").read_text()
    assert me.startswith(f"{ALICE}\n")
    assert "NoNewPrivs:\t1\n" in me
    assert me.endswith("\n0\n")
    assert [line.split()[4:6] for line in me.splitlines() if line.startswith("Max core")] == [["0", "0"]]
    names = {line.partition("=")[0] for line in (state / "env.me").read_text().splitlines()}
    assert not names & {"LD_PRELOAD_X", "BASH_ENV", "HPCPROXY_SLURMD"}
    assert state.stat().st_uid == ALICE
    said = (node.run_base / f"holders/{JOB}.0.said").stat()
    assert (said.st_uid, said.st_gid, said.st_mode & 0o777) == (0, ALICE, 0o640)


@pytest.mark.parametrize("version", [2, 1])
def test_a_daemon_that_users_code_has_left_ends_with_the_job(node: Node, version: int) -> None:
    """In a session of its own and nobody's child: only its cgroup tells whose it is, of either version. (S7)"""
    if version == 1:
        said = node.call("sh", "-c", "umount -a -t cgroup2; grep -c ' cgroup rw.*freezer' /proc/self/mounts")
        if said == "0\n":
            pytest.skip("this machine has no freezer of cgroup version 1")
    node.way(f"(setsid -f sleep 611 </dev/null >/dev/null 2>&1); {READY}")
    node.prolog()
    node.await_word("ready")
    assert any("sleep 611" in command for _, command in node.processes())
    group = node.root / node.record()["group"][0][1:]
    assert (group / "freezer.state").exists() == (version == 1)
    assert node.epilog() < SOON_S
    assert node.left() == []
    assert not group.exists()


def test_users_code_of_another_job_lives_on(node: Node) -> None:
    node.way(f"(setsid -f sleep 6$2 </dev/null >/dev/null 2>&1); {READY}")
    for job in (JOB, OTHER_JOB):
        node.prolog(job)
        node.await_word("ready", job)
    node.epilog()
    commands = [command for _, command in node.processes()]
    assert not any(f"sleep 6{JOB}" in command for command in commands)
    assert any(f"sleep 6{OTHER_JOB}" in command for command in commands)
    assert "ready" in node.said(OTHER_JOB)


def test_what_is_said_is_roots_and_bounded(node: Node) -> None:
    """A flood is cut off, and its writer hears that; nobody but root can write there. (S2)"""
    flood = f"for ((i = 0; i < 60000; i++)); do echo failed c1 $i {'x' * 40}; done 2>/dev/null"
    node.way(f"trap '' PIPE; echo noise; {flood}; : >$5/through; {WAIT}")
    node.prolog()
    until((node.run_base / f"{JOB}.0/through").exists, "the writer gets through")
    assert 1000 < len(node.said()) <= 65536
    assert "noise" not in node.said()
    assert "Permission denied" in node.call("bash", "-c", f": >>/mnt/run/holders/{JOB}.0.said", uid=ALICE)
    assert node.epilog() < SOON_S


def test_nobody_stores_anything_in_run(node: Node) -> None:
    """Neither bytes nor names, and what is there, and in use, is gone in a moment. (S2, S13)"""
    node.way(READY)
    node.prolog()
    node.await_word("ready")
    fill = f"cd /mnt/run/{JOB}.0; truncate -s 1T sparse; mkdir -p a/b/c/d; for i in $(seq 3000); do : >n$i; done"
    fill += "; cat /dev/zero >zero"
    assert "No space left" in node.call("bash", "-c", fill, uid=ALICE)
    state = node.run_base / f"{JOB}.0"
    assert sum(path.stat().st_blocks * 512 for path in state.iterdir()) <= 16 << 20
    assert len(list(state.iterdir())) < 1024
    inside = node.command("bash", "-c", f"cd /mnt/run/{JOB}.0; echo in; exec sleep 60", uid=ALICE)
    with subprocess.Popen(inside, stdout=subprocess.PIPE) as guest:
        assert guest.stdout is not None
        assert guest.stdout.readline() == b"in\n"
        took = node.epilog()
        guest.kill()
    assert took < SOON_S
    until(lambda: node.left() == [], f"nothing is left: {node.left()}")


def test_where_nothing_can_be_mounted_what_is_left_is_removed_by_nobody_who_waits(node: Node) -> None:
    node.instead(shutil.which("mount") or "", "exit 1")
    node.way(READY)
    node.prolog()
    node.await_word("ready")
    fill = f"import os; os.chdir('/mnt/run/{JOB}.0'); os.truncate(os.open('s', os.O_CREAT | os.O_RDWR), 1 << 40)\n"
    fill += "for i in range(300000): os.close(os.open(str(i), os.O_CREAT | os.O_WRONLY))\n"
    fill += "for i in range(900): os.mkdir('d' * 200); os.chdir('d' * 200)"
    assert _python(node, fill, ALICE) == ""
    assert node.epilog() < SOON_S
    assert not (node.run_base / f"{JOB}.0").exists()
    until(lambda: not list((node.run_base / "scrap").iterdir()), "it is all gone in the end")


def test_a_requeued_job_has_its_port_again_though_a_connection_of_its_last_run_waits_there(node: Node) -> None:
    """What root's listener accepts does not let others bind beside it in TIME_WAIT, unless that is said of it."""
    node.prolog()
    node.await_word("mode c1 agent")
    until(lambda: "connected" in _python(node, CONNECT, ALICE), "the agent listens")
    stay = CONNECT + "; s.recv(1)"
    with subprocess.Popen(
        node.command("/usr/bin/python3", "-I", "-u", "-c", stay, uid=ALICE), stdout=subprocess.PIPE
    ) as client:
        assert client.stdout is not None
        assert client.stdout.readline() == b"connected\n"
        until(lambda: '"active": 1' in _status(node), "it is served")
        node.epilog()
    mine = f"{int(ADDRESS.split('.')[3]):02X}{int(ADDRESS.split('.')[2]):02X}{int(ADDRESS.split('.')[1]):02X}7F:07DF"
    rows = [line.split() for line in (node.root / f"proc/{node.pid}/net/tcp").read_text().splitlines()]
    assert ("06", mine) in {(row[3], row[1]) for row in rows}, "a connection waits at the address"
    again = ["SLURM_RESTART_COUNT=1"]
    node.prolog(more=again)
    until(lambda: "connected" in _python(node, CONNECT, ALICE), "the next run has the port")
    assert "LISTENER" in Path(f"/proc/{_supervisor(node, 1)}/environ").read_text()
    node.slurmd("epilog", JOB, again)


def _supervisor(node: Node, restart: int) -> str:
    record = (node.run_base / f"holders/{JOB}.{restart}").read_text()
    return next(line.split()[1] for line in record.splitlines() if line.startswith("keeper "))


def test_where_no_cgroup_can_be_had_that_is_known(node: Node) -> None:
    """`verify` says so: there a daemon of a user's code may outlive the job."""
    look = protocol.message(Bundle(()), "look", "t", place=protocol.Place(Path("/mnt/store"), Path("/mnt/lock")))
    node.put("/mnt/etc/look", script_of(look).decode())
    ask = ["/bin/bash", "-p", "-c", "/mnt/etc/look </dev/null"]
    assert "fact cgroup" not in node.call(*ask)
    node.call("umount", "-l", "-R", "/sys/fs/cgroup")
    assert "t fact cgroup missing\n" in node.call(*ask)
    answer = protocol.Answer("unchanged", "", (), {}, {"cgroup": "missing"})
    (said,) = Outcomes((HostOutcome("c1", "unchanged", "", answer),)).cautions(0)
    assert said == f"c1: cgroup is missing: {_NEEDED['cgroup']}"
    node.way(READY)
    node.prolog()
    node.await_word("ready")
    assert "group" not in node.record()


def test_the_port_stays_nobody_elses_and_the_tunnel_comes_back(node: Node) -> None:
    """kill -9 of all that serves it: clients wait, and nobody can take the port. (S8)"""
    node.way(f"[[ -n ${{HPCPROXY_LISTENER-}} ]] && echo x >>$5/starts; {READY}")
    node.prolog()
    node.await_word("ready")
    first = int(node.record()["way"][0])
    os.kill(first, 9)
    assert _python(node, TAKE).split() == ["98"] * 4
    assert "connected" in _python(node, CONNECT, ALICE)
    starts = node.run_base / f"{JOB}.0/starts"
    until(lambda: starts.read_text() == "x\nx\n", "another is started")
    assert int(node.record()["way"][0]) != first
    assert _python(node, TAKE).split() == ["98"] * 4
    node.epilog()
    assert node.left() == []
    assert "taken" in _python(node, TAKE)


def test_the_agent_serves_at_the_port_that_root_has_taken_and_leaves_it_to_root(node: Node) -> None:
    """Ended in its own way it refuses, and still nobody else can come there."""
    node.prolog()
    node.await_word("mode c1 agent")
    until(lambda: "up" in _status(node) or "ready" in _status(node), "the agent is at work")
    first = int(node.record()["way"][0])
    os.kill(first, 23)  # SIGURG
    until(lambda: not Path(f"/proc/{first}").exists(), "it has gone")
    assert "Connection refused" in _python(node, CONNECT, ALICE)
    assert _python(node, TAKE).split() == ["98"] * 4
    assert node.epilog() < SOON_S
    assert node.left() == []


def _status(node: Node) -> str:
    path = node.run_base / f"{JOB}.0/status.json"
    return path.read_text() if path.exists() else ""


def test_a_firewall_stands_as_long_as_the_job(node: Node) -> None:
    """Who is neither the job's user nor root is refused by the kernel."""
    node.way(READY)
    node.prolog()
    node.await_word("ready")
    assert node.record()["wall"] == [ADDRESS, "2015", str(ALICE)]
    assert "Connection refused" in _python(node, CONNECT, BOB)
    assert _python(node, CONNECT, ALICE) == _python(node, CONNECT, 0) == "connected\n"
    assert node.epilog() < SOON_S
    assert ADDRESS not in node.call("nft", "list", "table", "inet", "hpcproxy")


@pytest.mark.parametrize("nft", ["exit 1", "sleep 60"])
def test_a_firewall_that_cannot_be_had_costs_nothing_but_itself(node: Node, nft: str) -> None:
    node.instead("/usr/sbin/nft", nft)
    node.way(READY)
    node.prolog()
    node.await_word("ready")
    assert "wall" not in node.record()
    assert node.epilog() < SOON_S


def test_a_name_service_that_hangs_costs_a_sentence(node: Node) -> None:
    node.instead("/usr/bin/getent", "exec sleep 600")
    begun = time.monotonic()
    node.prolog()
    text = node.await_word("gave-up")
    assert time.monotonic() - begun < 5, "in time for a task that waits five seconds"
    assert text == "gave-up c1 account the name service of this node does not answer within 4 s\n"
    node.prolog(OTHER_JOB)
    until(lambda: "getent" in str(node.processes()), "it is asked for another job")
    node.epilog(OTHER_JOB)
    node.epilog()
    assert node.left() == []


def test_a_silent_jump_host_is_waited_for_once(node: Node) -> None:
    """The supervisor says when the time for it is over; who comes later does not wait at all."""
    node.edit("supervisor.sh", "task_wait_s=5", "task_wait_s=1")
    node.way(WAIT)
    node.prolog()
    assert node.await_word("late") == "late c1 no jump host has answered within 1 s\n"
    variables = ["env", "-i", f"SLURM_JOB_ID={JOB}", "/mnt/lib/taskprolog"]
    begun = time.monotonic()
    node.call(*variables, uid=ALICE)
    assert time.monotonic() - begun < 1


NOT_KNOWN = "echo 'slurm_load_jobs error: Invalid job id specified' >&2; exit 1"
NO_ANSWER = "echo 'slurm_load_jobs error: Unable to contact slurm controller (connect failure)' >&2; exit 1"


def test_without_an_epilog_it_ends_when_slurm_knows_the_job_no_more(node: Node) -> None:
    node.edit("supervisor.sh", "look_s=300", "look_s=1")
    node.instead("/usr/bin/squeue", NOT_KNOWN)
    node.way(f"(setsid -f sleep 611 </dev/null >/dev/null 2>&1); {READY}")
    node.prolog()
    node.await_word("ready")
    until(lambda: node.left() == [], f"it ends by itself: {node.left()}")
    assert not (node.root / "mnt/lib/in-force").exists(), "no Epilog of ours has come"


def test_an_epilog_that_could_only_leave_word_is_heeded(node: Node) -> None:
    node.way(f"(setsid -f sleep 611 </dev/null >/dev/null 2>&1); {READY}")
    node.prolog()
    node.await_word("ready")
    (node.root / "mnt/lib/in-force").touch()
    node.call("touch", str(node.run_base / f"{JOB}.0/over").removeprefix(str(node.root)), uid=ALICE)
    until(lambda: node.left() == [], f"it ends by itself: {node.left()}")
    assert (node.root / "mnt/lib/in-force").exists(), "an Epilog of ours has come"


@pytest.mark.parametrize(
    ("says", "starts"),
    [
        ("echo 'Epilog = (null)'; echo 'Prolog = /mnt/lib/*'", False),
        ("echo 'Epilog = /mnt/lib/epi*'", True),
        ("echo 'Epilog[0] = /site/epilog'; echo 'Epilog[1] = /mnt/lib/epilog'", True),
        ("echo 'Epilog = /site/epilog'", False),
        ("echo slurm_load_ctl_conf error: Unable to contact slurm controller >&2; exit 1", False),
        ("exec sleep 60", False),
    ],
)
def test_it_starts_nothing_where_slurm_does_not_run_our_epilog(node: Node, says: str, starts: bool) -> None:
    """Slurm is asked once where that is not on record, and not again for each job."""
    in_force = node.root / "mnt/lib/in-force"
    in_force.unlink()
    node.edit("supervisor.sh", "our_epilog=/etc/slurm/epilog.d/50-hpcproxy", "our_epilog=/mnt/lib/epilog")
    node.instead("/usr/bin/scontrol", f"echo asked >>/mnt/asked; {says}")
    node.way(f": >/mnt/lib/started; {READY}")
    node.root.joinpath("mnt/lib").chmod(0o777)
    node.prolog()
    if starts:
        node.await_word("ready")
    else:
        until(lambda: node.left() == [], f"it ends by itself: {node.left()}")
        assert not (node.root / "mnt/lib/started").exists()
    assert in_force.exists() == starts
    if "Epilog" in says:
        node.prolog(OTHER_JOB)
        until(lambda: node.left() == [] or "ready" in node.said(OTHER_JOB), f"the next one: {node.left()}")
        assert (node.root / "mnt/asked").read_text() == "asked\n"
    node.epilog()
    assert in_force.exists(), "an Epilog of ours has run"


def test_slurms_programs_are_those_of_the_slurmd_that_has_started_it(node: Node) -> None:
    """When that has gone its process id may be anybody's, and root must not look for programs beside his."""
    node.edit("supervisor.sh", "look_s=300", "look_s=1")
    node.put("/mnt/etc/none", "", 0o644)
    node.call("mount", "--bind", "/mnt/etc/none", "/usr/bin/squeue")
    node.call("mkdir", "-p", *(f"/mnt/{who}/{name}" for who in ("slurm", "bob") for name in ("bin", "sbin")))
    node.call("cp", "/bin/bash", "/mnt/slurm/sbin/slurmd")
    node.call("cp", "/bin/sleep", "/mnt/bob/sbin/slurmd")
    node.put("/mnt/slurm/bin/squeue", f"#!/bin/sh\n{NOT_KNOWN}\n")
    node.put("/mnt/bob/bin/squeue", f"#!/bin/sh\nid -u >/mnt/bobs; {NOT_KNOWN}\n")
    node.way(READY)
    prolog = f"env -i SLURM_JOB_ID={JOB} SLURM_JOB_UID={ALICE} SLURMD_NODENAME=c1 SLURM_NODELIST=c1 /mnt/lib/prolog"
    begun = f"{prolog}; echo begun; exec /mnt/bob/sbin/slurmd 600"
    with subprocess.Popen(node.command("/mnt/slurm/sbin/slurmd", "-c", begun), stdout=subprocess.PIPE) as slurmd:
        assert slurmd.stdout is not None
        assert slurmd.stdout.readline() == b"begun\n"
        record = node.run_base / f"holders/{JOB}.0"
        until(lambda: not record.exists(), "it ends by the word of the right Slurm")
        slurmd.kill()
    assert not (node.root / "mnt/bobs").exists()


@pytest.mark.parametrize("answer", [NO_ANSWER, "echo @ RUNNING", "echo @ COMPLETING"])
def test_in_doubt_it_stays(node: Node, answer: str) -> None:
    node.edit("supervisor.sh", "look_s=300", "look_s=1")
    node.instead("/usr/bin/squeue", f"echo asked >>/mnt/asked; {answer.replace('@', str(JOB))}")
    node.way(READY)
    node.prolog()
    asked = node.root / "mnt/asked"
    until(lambda: asked.exists() and len(asked.read_text().split()) >= 2, "Slurm is asked again and again")
    assert "way" in node.record()


def test_a_process_of_the_job_is_answer_enough(node: Node) -> None:
    node.edit("supervisor.sh", "look_s=300", "look_s=1")
    node.instead("/usr/bin/squeue", f": >/mnt/asked; {NOT_KNOWN}")
    node.way(READY)
    with subprocess.Popen(node.command("env", "-i", f"SLURM_JOB_ID={JOB}", "sleep", "60", uid=ALICE)) as rank:
        node.prolog()
        node.await_word("ready")
        time.sleep(4)
        assert not (node.root / "mnt/asked").exists()
        rank.kill()
    until(lambda: node.left() == [], "it ends when that has ended")

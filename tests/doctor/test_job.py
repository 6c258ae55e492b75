"""A job looked at from outside and, by a step, from inside; squeue and srun are stubs, what srun starts is real."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from hpcproxy.account.account import Account
from hpcproxy.doctor import elsewhere, machine
from hpcproxy.doctor.elsewhere import Where
from hpcproxy.doctor.finding import Mark
from tests.doctor.conftest import is_bad, look, looked, set_up
from tests.sshd import Sshd
from tests.supervisor import Supervisor

_SQUEUE = """#!/bin/bash
[[ $1 == --noheader ]] || exit 1
case $3 in
    --format=%e) printf '2099-01-01T00:00:00\\n' ;;
    *) printf '%s 2 RUNNING\\n' "${2#--jobs=}" ;;
esac
"""
_SRUN = """#!/bin/bash
for word; do
    case $word in --jobid=*) export SLURM_JOB_ID=${word#--jobid=} ;; --nodes=*) nodes=${word#--nodes=} ;; esac
done
while [[ $1 == --* ]]; do shift; done
printf 'a line of the site\\n'
SLURMD_NODENAME=c1 "$@"
if ((nodes > 1)); then SECOND SLURMD_NODENAME=c2 "$@"; fi
"""


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """slurm(second) has a job of two nodes, both of them here; `second` is said before what runs on the second."""

    def put(second: str = "", srun: str = _SRUN) -> None:
        directory = tmp_path / "slurm"
        directory.mkdir(exist_ok=True)
        for name, text in (("squeue", _SQUEUE), ("srun", srun.replace("SECOND", second))):
            (directory / name).write_text(text)
            (directory / name).chmod(0o755)
        monkeypatch.setenv("PATH", f"{directory}:{os.environ['PATH']}")

    return put


@pytest.fixture
def job(account: Account, jump_host: Sshd) -> object:
    """The number of a job whose tunnel is up."""
    set_up(account, jump_host)
    supervisor = Supervisor(account.home.directory / "tunnel.sh")
    supervisor.line("ready")
    yield supervisor.job
    supervisor.end()


_NAMES = ("job", "tunnels of the job", "agents of the job")


def test_all_is_well_on_both_nodes(account: Account, job: str, slurm: Callable[..., None]) -> None:
    slurm()
    found = looked(account, *_NAMES, "certificate", job=job)
    assert {name: one for name, one in found.items() if one.mark is not Mark.GOOD} == {}
    assert found["tunnels of the job"].words.startswith("up on all 2, through ")


def test_a_job_that_slurm_does_not_know(account: Account, slurm: Callable[..., None]) -> None:
    slurm()
    is_bad(look(account, "job", job="x;y"), "is not the number of a job", "squeue --me")


def test_a_node_without_a_tunnel(account: Account, job: str, slurm: Callable[..., None]) -> None:
    slurm("TMPDIR=/nonexistent")
    is_bad(look(account, "tunnels of the job", job=job), "there is no tunnel on c2", "hpcproxy wrap --check")


def test_a_node_where_ssh_itself_listens(
    account: Account, jump_host: Sshd, tmp_path: Path, slurm: Callable[..., None]
) -> None:
    slurm()
    set_up(account, jump_host)
    supervisor = Supervisor(account.home.directory / "tunnel.sh")
    supervisor.line("ready")
    env = supervisor.state / "env"
    env.write_text(env.read_text().replace("http://", "socks5h://"))
    try:
        found = look(account, "agents of the job", job=supervisor.job)
    finally:
        supervisor.end()
    is_bad(found, "ssh itself listens on ", "python3 on all nodes")


def test_from_inside_of_the_job(account: Account, job: str, slurm: Callable[..., None]) -> None:
    slurm()
    argv = [sys.executable, "-m", "hpcproxy", "doctor", "--job", job, "--json", "--no-endpoints"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, env=dict(os.environ))
    checks = json.loads(done.stdout)["checks"]
    inside = {one["check"]: one for one in checks if one.get("node") == "c1"}
    assert inside["tunnel"]["mark"] == "good"
    assert inside["tunnel"]["words"].startswith("up at http://127.")
    assert inside["login"]["words"].endswith("no other login was tried")
    assert {one["check"] for one in checks if "node" not in one} >= {"job", "tunnels of the job"}


def test_on_a_node_that_slurm_gives(account: Account, slurm: Callable[..., None]) -> None:
    slurm()
    found = elsewhere.look(Where(), {**os.environ}, endpoints=False)
    named = {one.name: one for one in found}
    assert named["jump host"].node == "c1"
    is_bad(named["jump host"].finding, "no jump host is configured", "hpcproxy init")


def test_what_a_node_says_is_made_fit_to_be_shown(slurm: Callable[..., None]) -> None:
    said = {
        "node": "c1\x1b[2J",
        "checks": [{"check": "a\nb", "family": "f", "mark": "bad", "words": "\x1b]0;t\x07", "fix": "\x07"}],
    }
    slurm(srun=f"#!/bin/sh\ncat <<'END'\n{json.dumps(said)}\nEND\n")
    (found,) = elsewhere.look(Where("7"), {**os.environ}, endpoints=False)
    assert (found.node, found.name, found.finding.words, found.finding.fix) == ("c1?[2J", "a?b", "?]0;t?", "?")


@pytest.mark.parametrize(
    ("srun", "words"),
    [
        ("#!/bin/sh\necho 'srun: error: Unable to allocate resources' >&2\nexit 1\n", "Unable to allocate resources"),
        ("#!/bin/sh\necho '{}'\n", "is "),
        ('#!/bin/sh\necho \'{"node": 1, "checks": [7]}\'\n', "is "),
    ],
)
def test_a_node_on_which_nobody_could_look(srun: str, words: str, slurm: Callable[..., None]) -> None:
    slurm(srun=srun)
    (found,) = elsewhere.look(Where("7"), {**os.environ}, endpoints=True)
    assert found.finding.mark is Mark.BROKEN
    assert words in found.finding.words


def test_without_slurm_here(monkeypatch: pytest.MonkeyPatch, own_ssh: Path) -> None:
    monkeypatch.setenv("PATH", str(own_ssh))
    (found,) = elsewhere.look(Where(), {**os.environ}, endpoints=True)
    assert "srun is not on PATH here" in found.finding.words


def test_nodes_of_this_job(account: Account, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "no shell of a job" in look(account, "nodes of this job").words
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setenv("SLURM_JOB_NODELIST", "c[1-2],d1")
    monkeypatch.setenv("HPCPROXY_URL", "http://127.64.0.7:2015")
    assert machine.nodes(os.environ) == ["c1", "c2", "d1"]
    monkeypatch.setenv("no_proxy", "localhost,c1")
    is_bad(look(account, "nodes of this job"), "no_proxy lacks c2, d1", 'no_proxy="$no_proxy,c2,d1"')
    monkeypatch.setenv("no_proxy", "localhost,c1,c2,d1")
    assert look(account, "nodes of this job").mark is Mark.GOOD

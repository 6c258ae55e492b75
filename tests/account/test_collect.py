"""`status --job` as a user types it, where squeue and srun are stubs that run the real job.sh of two nodes here."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from hpcproxy.account import job_status
from hpcproxy.account.tunnels import Tunnel
from hpcproxy.errors import TunnelError
from tests.sshd import Sshd
from tests.supervisor import Supervisor

_SQUEUE = """#!/bin/bash
[[ "$*" == "--noheader --jobs="*" --format=%A %D %T" ]] || exit 1
printf '99 1 RUNNING\\n%s 2 {state}\\n' "${{2#--jobs=}}"
"""
_SRUN = """#!/bin/bash
export SLURM_JOB_ID=${1#--jobid=}
[[ $2 == --nodes=2 && $3 == --ntasks=2 && -z ${SLURM_NTASKS-} ]] || exit 1
while [[ $1 != /bin/bash ]]; do shift; done
printf 'a line of the site\\n'
SLURMD_NODENAME=z1 "$@"
HPCPROXY_STATE='' TMPDIR=/nonexistent SLURMD_NODENAME=c2 "$@"
"""


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """slurm(state) has Slurm say so of the job."""

    def state(word: str) -> None:
        directory = tmp_path / "slurm"
        directory.mkdir(exist_ok=True)
        for name, text in (("squeue", _SQUEUE.format(state=word)), ("srun", _SRUN)):
            (directory / name).write_text(text)
            (directory / name).chmod(0o755)
        monkeypatch.setenv("PATH", f"{directory}:{os.environ['PATH']}")
        monkeypatch.setenv("SLURM_NTASKS", "64")

    return state


def test_it_tells_of_every_node(
    hold: Callable[..., Supervisor],
    jump_host: Sshd,
    slurm: Callable[[str], None],
    mode: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    slurm("RUNNING")
    monkeypatch.setenv("SLURMD_NODENAME", "z1")
    supervisor = hold(**jump_host.settings)
    supervisor.line("ready")
    scripts = [tmp_path / "missing", next(tmp_path.glob("home*/job.sh"))]
    without, found = job_status.collect(supervisor.job, scripts, os.environ)  # by name; z1 comes last
    assert isinstance(found, Tunnel)
    assert found.node == "z1"
    assert (found.job, found.ready, found.jump, found.url) == (supervisor.job, True, jump_host.jump, supervisor.url)
    assert (found.pid, found.directory) == (supervisor.process.pid, supervisor.state)
    assert found.counts["reconnects"] == 0
    assert ("refused" in found.counts) == (mode == "agent")
    assert without == "c2"
    assert found.since > 0
    assert not (supervisor.state / "status.old").exists()


def test_the_command_says_it_as_json_and_its_exit_code_that_a_node_has_none(
    hold: Callable[..., Supervisor], jump_host: Sshd, slurm: Callable[[str], None], tmp_path: Path
) -> None:
    slurm("RUNNING")
    supervisor = hold(**jump_host.settings)
    supervisor.line("ready")
    home = str(next(tmp_path.glob("home*/job.sh")).parent)
    argv = [sys.executable, "-m", "hpcproxy", "status", "--job", supervisor.job]
    environ = {**os.environ, "HPCPROXY_HOME": home}
    done = subprocess.run([*argv, "--json"], capture_output=True, text=True, check=False, env=environ)
    said = json.loads(done.stdout)
    assert (done.returncode, said["without"], len(said["tunnels"])) == (1, ["c2"], 1)
    assert said["tunnels"][0]["jump"] == jump_host.jump
    done = subprocess.run(argv, capture_output=True, text=True, check=False, env=environ)
    assert f"c2 has no tunnel of job {supervisor.job}" in done.stderr
    assert supervisor.job in done.stdout


@pytest.mark.parametrize(
    ("job", "state", "words"),
    [("7", "PENDING", "job 7 is pending"), ("x", "RUNNING", "'x' is not the number of a job")],
)
def test_why_there_is_nothing_to_tell(job: str, state: str, words: str, slurm: Callable[[str], None]) -> None:
    slurm(state)
    with pytest.raises(TunnelError, match=words):
        job_status.collect(job, [Path("/nonexistent")], os.environ)


def test_a_job_whose_nodes_have_nothing_of_ours(slurm: Callable[[str], None]) -> None:
    slurm("RUNNING")
    with pytest.raises(TunnelError, match="no node of job 7 answered"):
        job_status.collect("7", [Path("/nonexistent")], os.environ)


@pytest.mark.parametrize("line", ["status\tc1\ta\tb\tc\td\t{}", "status\tc1\t1.0\t5\t/x\tu\t[]", "status\tc1\t1.0\t5"])
def test_what_cannot_be_understood_is_no_tunnel(line: str) -> None:
    assert job_status._parse(line) == "c1"


def test_a_node_that_says_too_much_ends_the_question(
    slurm: Callable[[str], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slurm("RUNNING")
    (tmp_path / "slurm" / "srun").write_text("#!/bin/sh\nexec yes\n")
    with pytest.raises(TunnelError, match="srun says more than any answer holds"):
        job_status.collect("7", [], os.environ)
    monkeypatch.setattr(job_status, "_ASK_TIMEOUT_S", 1)
    (tmp_path / "slurm" / "srun").write_text("#!/bin/sh\nwhile :; do printf .; sleep 0.1; done\n")
    with pytest.raises(TunnelError, match="srun has not answered for 1 s"):
        job_status.collect("7", [], os.environ)


def test_a_nodes_name_is_shown_as_printable_text(slurm: Callable[[str], None], tmp_path: Path) -> None:
    slurm("RUNNING")
    (tmp_path / "slurm" / "srun").write_text("#!/bin/sh\nprintf 'status\\tc\\033[2J\\377\\t\\n'\n")
    assert job_status.collect("7", [], os.environ) == ["c?[2J?"]


def test_what_a_node_says_in_json_is_no_more_than_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    status = r'{"ready": true, "node": "c1\u001b[2J", "jump": "\u001b]0;T\u0007", "last_error": "\u202e\u009b31m"}'
    answers = {"squeue": "7 1 RUNNING", "srun": f"status\tc1\t7.0\t1\t/s\thttp://h:1\t{status}"}
    for name, answer in answers.items():
        (tmp_path / name).write_text(f"#!/bin/sh\ncat <<'END'\n{answer}\nEND\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    (found,) = job_status.collect("7", [], os.environ)
    assert isinstance(found, Tunnel)
    assert (found.node, found.jump, found.last_error) == ("c1?[2J", "?]0;T?", "??31m")

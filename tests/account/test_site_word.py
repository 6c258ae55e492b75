"""A job of a roll-out that has no tunnel: the site's reason, in the place of advice for an account of one's own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from hpcproxy.files.render import render
from tests.cluster.cases import plan

JOB = {"SLURM_JOB_ID": "77", "SLURM_JOB_NUM_NODES": "1", "SLURMD_NODENAME": "c1"}


def _run(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "hpcproxy", *arguments]
    env = {**os.environ, **JOB, **environ}
    return subprocess.run(argv, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL, env=env)


@pytest.mark.parametrize("caller", ["shell", ""])
@pytest.mark.parametrize(
    ("mode", "said", "words"),
    [
        ("user", "gave-up c1 key it was refused\n", "c1: key: it was refused; it is your site's, ask its admin"),
        ("service", "gave-up c1 key it was refused\n", "c1: key: it was refused; it is your site's, ask its admin"),
        ("service", "", "your site gives this job none; ask its admin which jobs get one"),
    ],
)
def test_what_the_site_could_not_have_a_step_of_the_job_does_not_try(
    tmp_path: Path, mode: str, said: str, words: str, caller: str
) -> None:
    """In service mode a job's user would have tried the site's own key, and have heard that he may not read it."""
    bundle = render(plan(mode=mode, service_key="/root/key"))
    file = bundle.named("job.sh")
    assert file is not None
    (tmp_path / "job.sh").write_bytes(file.content.replace(b"run_base=/run/hpcproxy", f"run_base={tmp_path}".encode()))
    (tmp_path / "holders").mkdir()
    (tmp_path / "holders/77.0.said").write_text(said)
    (tmp_path / "srun").write_text("#!/bin/sh\nprintf 'srun was asked\\n' >&2\n")
    (tmp_path / "srun").chmod(0o755)
    environ = {**os.environ, **JOB, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    argv = ["/bin/bash", "-p", tmp_path / "job.sh", "start", caller]
    done = subprocess.run(argv, env=environ, capture_output=True, text=True, check=False)
    then = "" if caller else "; the job runs on without it"
    assert (done.returncode, done.stdout, done.stderr) == (1, "", f"hpcproxy: no tunnel: {words}{then}\n")


@pytest.mark.parametrize("verb", ["check", "status"])
def test_in_a_job_the_sites_reason_takes_the_place_of_advice_for_an_account(verb: str) -> None:
    error = "c1 forwarding jump1: the jump host does not allow forwarding"
    done = _run(verb, HPCPROXY_ERROR=error)
    assert done.returncode == 1
    words = "forwarding: c1: jump1: the jump host does not allow forwarding; it is your site's, ask its admin"
    assert words in done.stderr
    assert "init" not in done.stderr
    assert "init" in _run(verb).stderr

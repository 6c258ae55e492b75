"""A requeued job, same id and one restart more, has a tunnel again."""

from __future__ import annotations

import pytest

from hpcproxy.lab import Lab

from .admin import FETCH, OUTER1, Admin
from .researcher import until

pytestmark = pytest.mark.lab


def test_a_requeued_job_has_a_tunnel_again(admin: Admin, site: Lab) -> None:
    admin.words("deploy", "--enable")
    site.run("login", ["rm", "-f", "go"], "alice", check=True)
    wait = "until [ -e ~/go ]; do sleep 0.1; done"
    body = f"#!/bin/bash\n#SBATCH --requeue -N4 --ntasks-per-node=1\n{wait}\necho $HPCPROXY_KEY\nsrun {FETCH}\n"
    job = site.submit(body)
    until(lambda: site.job_fields(job)["JobState"] == "RUNNING", "it runs")
    site.run("ctl", ["scontrol", "requeue", str(job)], check=True)
    until(lambda: site.job_fields(job)["JobState"] == "PENDING", "it is queued again")
    site.run("login", ["touch", "go"], "alice", check=True)
    result = site.wait_job(job, timeout_s=240)  # Slurm itself waits two minutes before it starts a requeued job
    site.run("login", ["rm", "-f", "go"], "alice", check=True)
    assert result.fields["Restarts"] == "1"
    assert result.output.split() == [f"{job}.1", *[OUTER1] * 4]

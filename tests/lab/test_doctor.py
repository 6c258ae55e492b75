"""`doctor --job` and `--on-node` where Slurm is real: what a node finds is told as that node's."""

from __future__ import annotations

import json
from typing import Any

import pytest

from hpcproxy.lab import Lab

from .researcher import Researcher, until

pytestmark = pytest.mark.lab
WAIT = "touch up; until [ -e go ]; do sleep 0.1; done\n"


def _doctor(alice: Researcher, *arguments: str) -> tuple[int, list[dict[str, Any]]]:
    done = alice.hpcproxy("doctor", "--json", "--no-endpoints", *arguments, check=False, timeout_s=300)
    return done.returncode, json.loads(done.stdout)["checks"]


def _of(found: list[dict[str, Any]], name: str, node: str = "") -> tuple[str, str]:
    (one,) = [one for one in found if one["check"] == name and one.get("node", "") == node]
    return one["mark"], one["words"]


def _let_go(alice: Researcher, lab: Lab, job: int) -> None:
    """The job is over, and the files by which it was spoken with are gone: others ask for them, too."""
    lab.run("login", ["touch", "go"], alice.user, check=True)
    lab.wait_job(job)
    lab.run("login", ["rm", "-f", "up", "go"], alice.user, check=True)


def _begun(alice: Researcher, lab: Lab, body: str) -> int:
    lab.run("login", ["rm", "-f", "up", "go"], alice.user, check=True)
    job = alice.submit(body, "#SBATCH -N2")
    until(lambda: lab.path_on("login", f"/home/{alice.user}/up").exists(), "the job runs")
    return job


def test_a_job_is_looked_at_from_inside(alice: Researcher, lab: Lab) -> None:
    job = _begun(alice, lab, WAIT)
    try:
        code, found = _doctor(alice, "--job", str(job))
        assert _of(found, "job") == ("good", "2 of its nodes answered")
        assert _of(found, "tunnels of the job")[0] == "good"
        assert _of(found, "tunnel", "c1")[0] == "good", "of the job's own tunnel"
        assert alice.url(job) in _of(found, "agents of the job")[1]
        assert code == (1 if any(one["mark"] == "bad" for one in found) else 0)
    finally:
        _let_go(alice, lab, job)
    code, found = _doctor(alice, "--job", str(job))
    assert (code, _of(found, "job")[0]) == (1, "bad")


def test_a_job_without_a_tunnel_is_told_so_and_what_a_node_lacks_is_that_nodes(alice: Researcher, lab: Lab) -> None:
    lab.run("login", ["rm", "-f", "up", "go"], alice.user, check=True)
    job = lab.submit(f"#!/bin/bash\n#SBATCH -N1 -w c1\n{WAIT}", alice.user)
    until(lambda: lab.path_on("login", f"/home/{alice.user}/up").exists(), "the job runs")
    for node in lab.nodes:
        lab.run(node, ["mount", "--bind", "/dev/null", "/usr/bin/ssh"], check=True)
    try:
        code, found = _doctor(alice, "--job", str(job))
        assert code == 1
        assert _of(found, "tunnels of the job") == ("bad", "there is no tunnel on c1")
        assert _of(found, "ssh")[0] == "good", "here it is"
        assert _of(found, "ssh", "c1")[0] == "bad"
        code, found = _doctor(alice, "--on-node")
        (node,) = {one["node"] for one in found if "node" in one}
        assert (code, _of(found, "ssh", node)[0]) == (1, "bad")
    finally:
        for node in lab.nodes:
            lab.run(node, ["umount", "/usr/bin/ssh"], check=True)
        _let_go(alice, lab, job)

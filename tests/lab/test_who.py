"""`who --inventory` on a real cluster: the tunnels that Slurm's Prolog has started, with what went through them."""

from __future__ import annotations

import json

import pytest

from hpcproxy import __version__
from hpcproxy.lab import Lab

from .admin import FETCH, JUMP1, Admin
from .researcher import until

pytestmark = pytest.mark.lab


def test_who_has_a_tunnel_now_and_that_a_module_is_there(admin: Admin, site: Lab) -> None:
    admin.describe(modulefiles="/etc/modulefiles")
    assert admin.words("deploy", "--enable") == {"changed"}
    module = site.path_on("c1", f"/etc/modulefiles/hpcproxy/{__version__}.lua")
    assert "/etc/profile.d/hpcproxy.sh" in module.read_text()
    assert "no tunnel is up on these hosts" in admin.run("who").stderr
    site.run("login", ["rm", "-f", "go"], "alice", check=True)
    job = site.submit(f"#!/bin/bash\n#SBATCH -N2\nsrun {FETCH}\nuntil [ -e go ]; do sleep 0.1; done\n", "alice")
    try:
        found = until(lambda: _counted(admin, str(job)), "both nodes have counted a request")
        assert [(one["user"], one["job"], one["ready"], one["jump"]) for one in found] == [
            ("alice", str(job), True, JUMP1)
        ] * 2
        shown = admin.run("who").stdout.splitlines()
        assert shown[0].split() == [
            "user",
            "job",
            "node",
            "state",
            "through",
            "up",
            "for",
            "requests",
            "sent",
            "received",
        ]
        assert len(shown) == 3
    finally:
        site.run("login", ["touch", "go"], "alice", check=True)
        site.wait_job(job)
    assert admin.words("undeploy") == {"changed"}
    assert not module.parent.exists()


def _counted(admin: Admin, job: str) -> list[dict[str, object]]:
    found: list[dict[str, object]] = json.loads(admin.run("who", "--json", "--job", job).stdout)["tunnels"]
    return found if len(found) == 2 and all(one["requests"] == 1 for one in found) else []

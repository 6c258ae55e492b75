"""A roll-out on a real cluster: which tunnel a task has, and that it has no other; two users, real Slurm."""

from __future__ import annotations

import shlex

import pytest

from hpcproxy.lab import Lab

from .admin import FETCH, OUTER1, Admin
from .researcher import until

pytestmark = pytest.mark.lab
CONF = "/etc/slurm/slurm.conf"

# Bob's own job on the node: he listens at all of its addresses, answers like a proxy and writes down what he is told.
_BOB = """#!/usr/bin/env python3
import socket
server = socket.create_server(("0.0.0.0", 2015))
open("there", "w").close()
while True:
    client = server.accept()[0]
    with open("heard", "ab") as file:
        file.write(client.recv(4096))
    client.close()
"""
_TELL = "curl -sS --max-time 5 -H 'Authorization: Bearer of-alices' http://internet.test/ip || true\n"


def test_a_job_without_a_tunnel_tells_nobody_at_its_port_anything(admin: Admin, site: Lab) -> None:
    """By policy alice's job has none; its variables come from her login shell, whose tunnel was on."""
    admin.describe(policy={"comment": True})
    admin.words("deploy", "--enable")
    site.run("login", ["rm", "-f", "there", "heard"], "bob", check=True)
    bobs = site.submit(_BOB, "bob", args=["-N1", "-w", "c1"])
    try:
        until(lambda: site.path_on("login", "/home/bob/there").exists(), "bob listens")
        inherited = {
            "http_proxy": "http://127.128.7.209:2015", "HPCPROXY_URL": "http://127.128.7.209:2015",
            "HPCPROXY_KEY": "shell.0", "HTTP_PROXY": "http://127.0.0.1:2015", "HPCPROXY_SAVED_https_proxy": "http://proxy.site:3128",
        }  # fmt: skip
        exports = "".join(f"export {name}={value}\n" for name, value in inherited.items())
        show = 'env | grep -i "proxy=\\|^HPCPROXY" | sort\n'
        job = f"#!/bin/bash\n#SBATCH -N1 -w c1\n{show}{_TELL}srun bash -c {shlex.quote(show + _TELL)}\n"
        site.path_on("login", "/home/alice/job.sh").write_text(job)
        done = site.run("login", ["bash", "-c", f"{exports}sbatch --parsable job.sh"], "alice", check=True)
        result = site.wait_job(int(done.stdout))
        shown = [line for line in result.output.splitlines() if "proxy" in line.lower() and not line.startswith("curl")]
        assert shown == ["https_proxy=http://proxy.site:3128"] * 2
        assert not site.path_on("login", "/home/bob/heard").exists()
    finally:
        site.run("login", ["scancel", str(bobs)], "bob")
        site.run("login", ["rm", "-f", "there", "heard"], "bob", check=True)
        site.wait_job(bobs)


def test_every_component_that_srun_made_gets_out_and_a_sites_taskprolog_keeps_its_say(admin: Admin, site: Lab) -> None:
    own = "/etc/slurm/taskprolog.sh"
    text = '#!/bin/sh\\necho "export PATH=/opt/site/bin:$PATH"\\nprintf "export SITE=1"'
    for node in site.nodes:
        site.run(node, ["sh", "-c", f"printf '{text}' >{own}; chmod 755 {own}"], check=True)
    for host in ("ctl", *site.nodes):
        site.run(host, ["sh", "-c", f"echo TaskProlog={own} >>{CONF}"], check=True)
    site.run("ctl", ["scontrol", "reconfigure"], check=True)
    assert "say `site_task_prolog: " in admin.outcomes("deploy", "--enable")["ctl"][1]
    admin.describe(site_task_prolog=own)
    assert admin.words("deploy", "--enable") == {"changed"}
    assert admin.words("deploy", "--enable") == {"unchanged"}
    body = f'echo "$SLURMD_NODENAME $SITE ${{PATH%%:*}} $({FETCH})"'
    argv = ["srun", "-N1", "-w", "c1", ":", "-N1", "-w", "c2", "bash", "-c", body]
    done = site.run("login", argv, "alice")
    assert sorted(done.stdout.splitlines()) == [f"{node} 1 /opt/site/bin {OUTER1}" for node in ("c1", "c2")], (
        done.stderr
    )
    path = "export PATH=/opt/alice/bin:$PATH\nsrun -N1 -n1 bash -c 'echo \"$PATH\"'\n"
    assert admin.job(path).output.startswith("/opt/site/bin:/opt/alice/bin:")
    until(lambda: not site.drained(), "every node is idle again")
    assert admin.words("undeploy") == {"changed"}
    assert admin.job("srun -N1 -n1 bash -c 'echo $SITE ${http_proxy-none}'\n").output == "1 none\n"
    for host in ("ctl", *site.nodes):
        site.run(host, ["sed", "-i", "/^TaskProlog=/d", CONF], check=True)
    site.run("ctl", ["scontrol", "reconfigure"], check=True)
    for node in site.nodes:
        site.run(node, ["rm", own], check=True)


def test_a_silent_jump_host_costs_a_job_one_wait(admin: Admin, site: Lab) -> None:
    admin.words("deploy", "--enable")
    steps = "b=${EPOCHREALTIME/./}; for i in 1 2 3 4; do srun -N1 -n1 -w $SLURMD_NODENAME true; done\n"
    steps += "echo $(((${EPOCHREALTIME/./} - b) / 1000))\n"
    site.link("jump1", up=False)
    try:
        result = admin.job(steps)
    finally:
        site.link("jump1", up=True)
    assert result.state == "COMPLETED"
    assert int(result.output) < 2 * 5000, "less than the waits of two of the four"

"""Service mode: users need no account on the jump host; what the service's key opens is theirs alone, job by job."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from hpcproxy.lab import Lab

from .admin import DIRECTORY, FETCH, JUMP1, OUTER1, Admin
from .researcher import until

pytestmark = pytest.mark.lab
KIT = f"{DIRECTORY}/kit"
WAIT = "touch ~/ready-$SLURM_JOB_ID; until [ -e ~/go ]; do sleep 0.1; done\n"


@pytest.fixture
def service(admin: Admin, site: Lab) -> Iterator[Admin]:
    """The admin, with service mode deployed and jump1 prepared by what `jump-kit` wrote; only port 443 is allowed."""
    settings = {"jump": [f"hpcproxy@{JUMP1}"], "allow": ["internet.test:443"]}
    site.run("ctl", ["rm", "-rf", KIT])
    admin.describe(mode="service", service_key=f"{KIT}/hpcproxy_service_key", settings=settings)
    admin.run("jump-kit", "--directory", KIT)
    keys = site.path_on("ctl", f"{KIT}/authorized_keys").read_text()
    site.path_on("jump1", "/etc/ssh/hpcproxy_authorized_keys").write_text(keys)
    config = site.path_on("jump1", "/etc/ssh/sshd_config")
    before = config.read_text()
    config.write_text(before + site.path_on("ctl", f"{KIT}/sshd_match.conf").read_text())
    _reload(site)
    assert admin.words("deploy", "--enable") <= {"changed", "unchanged"}
    yield admin
    config.write_text(before)
    _reload(site)


def _reload(site: Lab) -> None:
    site.run("jump1", ["/usr/sbin/sshd", "-t"], check=True)
    site.run("jump1", ["sh", "-c", "kill -HUP $(cat /run/sshd.pid)"], check=True)
    banner = "exec 3<>/dev/tcp/jump1/22 && read -r -t 5 line <&3 && [[ $line == SSH-* ]]"
    until(lambda: site.run("ctl", ["bash", "-c", banner]).returncode == 0, "sshd answers again")


def test_a_job_gets_out_and_the_policy_holds(service: Admin, site: Lab) -> None:
    site.run("jump1", ["mv", "/home/alice/.ssh", "/home/alice/none"], check=True)  # no account of hers is needed there
    try:
        body = f"srun {FETCH}\ncurl -sS --max-time 20 -o /dev/null -w '%{{http_code}} ' http://internet.test/ip\n"
        result = service.job(body)
    finally:
        site.run("jump1", ["mv", "/home/alice/none", "/home/alice/.ssh"], check=True)
    assert result.output.split() == [*[OUTER1] * 4, "403"]


def test_the_key_can_do_what_it_should_and_nothing_else(service: Admin, site: Lab) -> None:
    assert service.words("verify") == {"unchanged"}, service.said
    for proof in ("forwards to 127.0.0.1:1", "refuses 127.0.0.1:22", "runs no command", "gives no terminal"):
        assert f"proved: hpcproxy@{JUMP1}: {proof} (c1)" in service.said
    # A key that can do more is noticed.
    line = site.path_on("jump1", "/etc/ssh/hpcproxy_authorized_keys")
    good = line.read_text()
    line.write_text(good[good.index("ssh-ed25519") :])
    config = site.path_on("jump1", "/etc/ssh/sshd_config")
    strict = config.read_text()
    config.write_text(strict.replace("    PermitOpen internet.test:443 127.0.0.1:1\n", ""))
    _reload(site)
    assert service.outcomes("verify")["c1"][0] == "failed"
    assert "breach: hpcproxy@192.168.31.10: does not refuse 127.0.0.1:22 (c1)" in service.said
    line.write_text(good)
    config.write_text(strict)
    _reload(site)


@pytest.mark.usefixtures("service")
def test_each_user_of_a_node_has_a_way_out_of_his_own_and_nobody_has_the_key(site: Lab) -> None:
    for user in ("alice", "bob"):
        site.run("login", ["rm", "-f", "go"], user, check=True)
    body = f"#!/bin/bash\n#SBATCH -N1 -w c1\n{WAIT}"
    jobs = {user: site.submit(body, user) for user in ("alice", "bob")}
    for user, job in jobs.items():
        until(lambda u=user, j=job: site.path_on("login", f"/home/{u}/ready-{j}").exists(), f"{user}'s job runs")
    for user, other in (("alice", "bob"), ("bob", "alice")):
        own, others = (f"http://127.64.{job >> 8}.{job & 255}:2015" for job in (jobs[user], jobs[other]))
        fetch = ["curl", "-sS", "--max-time", "10", "https://internet.test/ip", "-x"]
        assert site.run("c1", [*fetch, own], user).stdout.strip() == OUTER1
        assert site.run("c1", [*fetch, others], user).returncode != 0
        assert "Permission denied" in site.run("c1", ["cat", "/etc/hpcproxy/service_key"], user).stderr
        for path in (f"/run/hpcproxy/{jobs[other]}.0", f"/run/hpcproxy/service/{jobs[user]}.0"):
            assert site.run("c1", ["ls", path], user).returncode != 0
        holders = [name for _, name, line in site.processes("c1") if "agent.pyz" in line]
        assert holders == ["hpcproxy"] * 4  # of each job the guardian and who works for it
        status = site.run("c1", ["ls", "-ld", f"/run/hpcproxy/{jobs[user]}.0"], user).stdout
        assert status.startswith("drwx------")
    for user, job in jobs.items():
        site.run("login", ["touch", "go"], user, check=True)
        assert site.wait_job(job).state == "COMPLETED"


def test_a_node_without_python_gives_no_way_out_rather_than_an_open_one(service: Admin) -> None:
    service.set(gate=False)
    done = service.run("deploy", check=False)
    assert done.returncode == 2
    assert "gate: false would open the service key to every user of a node" in done.stderr

"""Service mode: users need no account on the jump host; what the service's key opens is theirs alone, job by job."""

from __future__ import annotations

import re
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
    _firewall(site, up=True)
    assert admin.words("deploy", "--enable") <= {"changed", "unchanged"}
    yield admin
    _firewall(site, up=False)
    config.write_text(before)
    _reload(site)


def _reload(site: Lab) -> None:
    site.run("jump1", ["/usr/sbin/sshd", "-t"], check=True)
    site.run("jump1", ["sh", "-c", "kill -HUP $(cat /run/sshd.pid)"], check=True)
    banner = "exec 3<>/dev/tcp/jump1/22 && read -r -t 5 line <&3 && [[ $line == SSH-* ]]"
    until(lambda: site.run("ctl", ["bash", "-c", banner]).returncode == 0, "sshd answers again")


def _firewall(site: Lab, *, up: bool) -> None:
    """The jump host's firewall is what `jump-kit` wrote, or none."""
    text = site.path_on("ctl", f"{KIT}/nft.conf").read_text() if up else "flush ruleset\n"
    site.path_on("jump1", "/etc/hpcproxy.nft").write_text(text)
    site.run("jump1", ["nft", "-f", "/etc/hpcproxy.nft"], check=True)


def test_a_job_gets_out_and_the_policy_holds(service: Admin, site: Lab) -> None:
    site.run("jump1", ["mv", "/home/alice/.ssh", "/home/alice/none"], check=True)  # no account of hers is needed there
    proxied = "curl -sS --max-time 20 --noproxy '' -o /dev/null -w '%{http_code}%{http_connect} '"
    body = f"srun {FETCH}\n{proxied} http://internet.test/ip\n"
    body += f"srun -N1 -n1 -w c1 {proxied} -p http://127.0.0.1:22 2>/dev/null\n"
    try:
        result = service.job(body)
    finally:
        site.run("jump1", ["mv", "/home/alice/none", "/home/alice/.ssh"], check=True)
    assert result.output.split()[:5] == [*[OUTER1] * 4, "403000"]


def test_who_reached_what_is_in_the_nodes_log_when_the_job_is_gone(service: Admin, site: Lab) -> None:
    ask = "curl -sS --max-time 20 --noproxy '' -o /dev/null -x $https_proxy"
    body = f"srun {FETCH}\nsrun {ask} -p http://127.0.0.1:22\nsrun {ask} http://c2:80\nsrun {ask} http://a%0aaccess/\n"
    job = service.job(body)
    uid = site.run("c1", ["id", "-u", "alice"]).stdout.strip()
    for node in site.nodes:
        log = site.path_on(node, "/var/log/messages")
        head = f"job {job.job_id} node {node}: access uid={uid} "
        until(lambda path=log, words=head: path.read_text().count(words) >= 3, "the node's log has the lines")
        lines = [line.partition(head)[2] for line in log.read_text().splitlines() if head in line]
        assert re.fullmatch(r"to=internet.test:443 up=\d{3,} down=\d{3,} seconds=\d+\.\d{3} outcome=ok", lines[0])
        assert lines[1].startswith("to=127.0.0.1:22 up=0 down=0 "), lines[1]
        assert lines[1].endswith("outcome=denied: 127.0.0.1:22 is denied by this site's rules (not in allow)")
        assert lines[2].startswith("to=c2:80 up=0 down=0 ")
        assert len(lines) == 3, "what is no request has no line"


def test_the_key_can_do_what_it_should_and_nothing_else(service: Admin, site: Lab) -> None:
    assert service.words("verify") == {"unchanged"}, service.said
    refusals = ["refuses 127.0.0.1:22", "refuses 169.254.169.254:80", "its firewall closes it to the key"]
    for words in ("forwards to 127.0.0.1:1", *refusals, "runs no command", "gives no terminal"):
        assert f"confirmed: hpcproxy@{JUMP1}: {words} (c1)" in service.said
    line = site.path_on("jump1", "/etc/ssh/hpcproxy_authorized_keys")
    good = line.read_text()
    config = site.path_on("jump1", "/etc/ssh/sshd_config")
    strict = config.read_text()
    _firewall(site, up=False)
    assert service.outcomes("verify")["c1"][0] == "failed"
    assert f"breach: hpcproxy@{JUMP1}: has no firewall that closes it to the key: nft -f nft.conf" in service.said
    assert "does not refuse" not in service.said, "sshd still does"
    # A key that can do more is noticed, unless the firewall is there.
    line.write_text(good[good.index("ssh-ed25519") :])
    config.write_text(strict.replace("    PermitOpen internet.test:443 127.0.0.1:1 127.0.0.2:1\n", ""))
    _reload(site)
    assert service.outcomes("verify")["c1"][0] == "failed"
    assert f"breach: hpcproxy@{JUMP1}: does not refuse 127.0.0.1:22 (c1)" in service.said
    _firewall(site, up=True)
    service.words("verify")
    assert f"confirmed: hpcproxy@{JUMP1}: refuses 127.0.0.1:22 (c1)" in service.said
    line.write_text(good)
    config.write_text(strict)
    _reload(site)


@pytest.mark.usefixtures("service")
def test_each_user_of_a_node_has_a_tunnel_of_his_own_and_nobody_has_the_key(site: Lab) -> None:
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
        supervisors = [name for _, name, line in site.processes("c1") if "agent.pyz" in line]
        assert supervisors == ["hpcproxy"] * 4  # of each job the supervisor and who works for it
        status = site.run("c1", ["ls", "-ld", f"/run/hpcproxy/{jobs[user]}.0"], user).stdout
        assert status.startswith("drwx------")
    for user, job in jobs.items():
        site.run("login", ["touch", "go"], user, check=True)
        assert site.wait_job(job).state == "COMPLETED"


def test_service_mode_without_allow_is_refused_before_anything_is_done(service: Admin) -> None:
    service.set(allow=[])
    for verb in ("deploy", "verify", "jump-kit"):
        done = service.run(verb, check=False)
        assert done.returncode == 2
        assert "settings: `allow` is missing: in service mode every user of a node would reach" in done.stderr
        assert 'or say `allow: ["*"]` if that is meant' in done.stderr


def test_a_node_without_python_gives_no_tunnel_rather_than_an_open_one(service: Admin) -> None:
    service.set(agent=False)
    done = service.run("deploy", check=False)
    assert done.returncode == 2
    assert "agent: false would open the service key to every user of a node" in done.stderr

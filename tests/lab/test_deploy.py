"""The admin's story on a real cluster, every node with its own /etc: out, changed, back, away, and jobs run on."""

from __future__ import annotations

import sys

import pytest

from hpcproxy.lab import Lab, slurm

from .admin import FETCH, INVENTORY, OUTER1, Admin
from .churn import churn
from .researcher import Researcher, until

pytestmark = pytest.mark.lab


def test_deploy_a_job_without_any_hook_and_undeploy(admin: Admin, site: Lab) -> None:
    before = {node: admin.files(node) for node in ("ctl", *site.nodes)}
    assert admin.words("deploy") == {"changed"}
    assert admin.words("deploy", "--enable") == {"changed"}
    result = admin.job()
    assert (result.state, result.output.split()) == ("COMPLETED", [OUTER1] * 4)
    assert site.drained() == []
    until(lambda: not admin.traces(), "nothing is left of the job")

    assert admin.words("deploy", "--enable") == {"unchanged"}
    assert admin.words("verify") == {"unchanged"}

    running = site.submit("#!/bin/bash\n#SBATCH -N4\nuntil [ -e ~/go ]; do sleep 0.1; done\nrm ~/go; echo ran on\n")
    until(lambda: site.job_fields(running)["JobState"] == "RUNNING", "the job runs")
    assert admin.words("undeploy") <= {"changed", "unchanged"}
    site.run("login", ["touch", "go"], "alice", check=True)
    ended = site.wait_job(running)
    assert (ended.state, ended.output) == ("COMPLETED", "ran on\n")
    assert site.drained() == []
    after = {node: admin.files(node) for node in ("ctl", *site.nodes)}
    assert before == after
    assert admin.job("echo plain\n").output == "plain\n"


def test_a_changed_setting_reaches_the_nodes_and_goes_back(admin: Admin) -> None:
    admin.words("deploy", "--enable")
    admin.set(port=2016)
    seen = admin.run("deploy", "--dry-run", "--diff", check=True).stdout
    assert "change /usr/libexec/hpcproxy/tunnel.sh on c[1-4]" in seen
    assert "-port=2015" in seen
    assert "+port=2016" in seen
    assert admin.words("verify") == {"would"}
    assert admin.words("deploy", "--canary", "1") == {"changed"}
    body = 'echo "$http_proxy" | cut -d: -f3; ' + f"srun {FETCH}\n"
    assert admin.job(body).output.split() == ["2016", *[OUTER1] * 4]
    assert admin.words("rollback") == {"changed"}
    assert admin.job(body).output.split() == ["2015", *[OUTER1] * 4]
    assert admin.words("rollback") == {"changed"}
    assert admin.words("verify") == {"unchanged"}


@pytest.mark.parametrize("controllers", ["ctl", ""])
def test_what_slurm_conf_lacks_is_said_when_something_has_changed(admin: Admin, controllers: str) -> None:
    """Asked of the controller if it is named, else of the first host."""
    admin.describe(controllers=controllers)
    admin.words("deploy")
    assert "    Prolog=/etc/slurm/prolog.d/50-hpcproxy\n" in admin.said
    admin.words("deploy")
    assert "Prolog=" not in admin.said
    admin.describe()
    admin.words("deploy", "--enable")
    admin.describe(controllers=controllers)
    admin.set(port=2016)
    admin.words("deploy")
    assert "Prolog=" not in admin.said
    admin.describe()


def test_a_limit_and_those_that_failed(admin: Admin, site: Lab) -> None:
    site.sshd_stop("c3")
    try:
        outcomes = admin.outcomes("deploy")
    finally:
        site.sshd("c3")
    assert outcomes == {
        **dict.fromkeys(("c1", "c2", "c4"), ("changed", "")),
        "c3": ("unreached", "nothing listens at its ssh port"),
    }
    assert admin.outcomes("deploy", "--limit", "@failed") == {"c3": ("changed", "")}
    assert admin.outcomes("deploy", "--limit", "c[2-3]") == dict.fromkeys(("c2", "c3"), ("unchanged", ""))
    done = admin.run("deploy", "--limit", "c9", check=False)
    assert done.returncode == 2
    assert "c9 is not in the inventory; valid: c[1-4]" in done.stderr


def test_an_undeploy_that_would_drain_nodes_is_refused(admin: Admin) -> None:
    admin.words("deploy", "--enable")
    outcomes = admin.outcomes("undeploy", "--limit", "c[1-2]")
    assert {word for word, _ in outcomes.values()} == {"failed"}
    assert "slurm.conf still says" in outcomes["c1"][1]
    assert admin.job().output.split() == [OUTER1] * 4


ASK = 'echo "${http_proxy-none}"\n'


def asks_for(site: Lab, admin: Admin, **policy: object) -> None:
    """The policy is in force. Where no job can meet it `deploy` says so, no job has a tunnel, and the test ends."""
    (condition,) = policy
    admin.describe(policy=policy)
    admin.words("deploy", "--enable")
    told = slurm.version(site.machine("ctl")) >= (22, 5)
    assert (f"policy: {condition} gives no job a tunnel" in admin.said) is not told, admin.said
    if not told:
        assert admin.job(ASK, "#SBATCH --comment=hpcproxy --account=phys").output == "none\n"
        pytest.skip("the Prolog is told a job's comment and account from Slurm 22.05 on, and deploy says so")


def test_who_asks_for_it_in_a_comment(admin: Admin, site: Lab) -> None:
    asks_for(site, admin, comment=True)
    assert admin.job(ASK).output == "none\n"
    assert admin.job(ASK, "#SBATCH --comment=hpcproxy").output.startswith("http://127.64.")
    assert admin.job(ASK, "#SBATCH --comment='x,hpcproxy $(touch /tmp/x)'").output.startswith("http://127.64.")
    assert admin.job(ASK, "#SBATCH --comment='$(touch /tmp/x)`touch /tmp/x`;touch /tmp/x'").output == "none\n"
    assert admin.job(ASK, "#SBATCH --comment=nohpcproxy").output == "none\n"
    for node in site.nodes:
        assert not site.path_on(node, "/tmp/x").exists()


def test_who_is_in_a_partition(admin: Admin) -> None:
    admin.describe(policy={"partitions": ["main"]})
    admin.words("deploy", "--enable")
    assert admin.job(ASK).output.startswith("http://127.64.")
    admin.describe(policy={"partitions": ["gpu"]})
    assert admin.words("deploy") == {"changed"}
    assert admin.job(ASK).output == "none\n"


def test_who_has_an_account(admin: Admin, site: Lab) -> None:
    """The lab's slurmctld keeps no accounts, so a job has the one that it says."""
    asks_for(site, admin, accounts=["phys"])
    assert admin.job(ASK).output == "none\n"
    assert admin.job(ASK, "#SBATCH --account=phys").output.startswith("http://127.64.")


def test_salloc_srun_and_shells_have_it_too(admin: Admin, site: Lab) -> None:
    admin.words("deploy", "--enable")
    done = site.run("login", ["srun", "-N4", "bash", "-c", FETCH], "alice")
    assert done.stdout.split() == [OUTER1] * 4, done.stderr
    shell = f"proxy_status; {FETCH}; proxy_off; echo ${{http_proxy-none}}; proxy_on"
    done = site.run("login", ["srun", "-N1", "bash", "-lic", shell], "alice")
    lines = done.stdout.splitlines()
    assert lines[0].startswith("hpcproxy: on, http://127.64."), done.stderr
    assert lines[1:4] == [OUTER1, "hpcproxy: off; your own proxy settings are back", "none"]
    assert lines[4] == lines[0].partition(" through ")[0]


def test_a_hook_line_in_an_admins_cluster_uses_the_prologs_tunnel(admin: Admin, site: Lab) -> None:
    admin.words("deploy", "--enable")
    alice = Researcher(site)
    alice.set_up()
    try:
        job = f"""echo "${{HPCPROXY_STEP:-no step}}"; squeue -h -s -j $SLURM_JOB_ID -o %j; srun {FETCH}
{sys.executable} -m hpcproxy status --json | grep -c '"ready": true'
. ~/.hpcproxy/epilogue.sh; echo "${{http_proxy-none}}"
"""
        result = alice.job(job, "#SBATCH -N4 --ntasks-per-node=1")
        lines = [line for line in result.output.splitlines() if "requests from" not in line]
        assert lines == ["no step", "batch", *[OUTER1] * 4, "1", "none"], result.output
    finally:
        site.run("login", ["rm", "-rf", ".hpcproxy", ".bashrc"], "alice", check=True)


def test_an_inventory_with_a_typo_is_answered_before_any_connection(admin: Admin, site: Lab) -> None:
    site.path_on("ctl", INVENTORY).write_text("nodes: c[1-4]\npolcy: {}\n")
    done = admin.run("deploy", check=False)
    assert done.returncode == 2
    assert "polcy: unknown key; valid: nodes, user, port" in done.stderr


def test_no_job_fails_while_an_admin_rolls_out_and_back(admin: Admin) -> None:
    """`bench/churn.py` does it with 600 jobs."""
    assert churn(admin, 60) == []

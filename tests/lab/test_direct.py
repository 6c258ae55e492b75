"""Nodes that have a route of their own: `via: direct`, in a job."""

from __future__ import annotations

import shlex
from collections.abc import Iterator

import pytest

from hpcproxy.lab import Lab

from .admin import Admin
from .researcher import FETCH, JUMP1, OUTER1, Researcher, until

pytestmark = pytest.mark.lab
INTERNET = "203.0.113.80"
INSIDE = "192.168.31.10"  # of jump1, which is the router here
NODES = ("c1", "c2", "c3")


def status(alice: Researcher, job: int) -> str:
    return alice.hpcproxy("status", "--job", str(job), "--json", check=False).stdout


def route(lab: Lab, node: str, *, there: bool) -> None:
    lab.run(node, ["ip", "route", "add" if there else "del", "default", "via", INSIDE], check=True)


@pytest.fixture
def routed(lab: Lab) -> Iterator[Lab]:
    """The lab with a way for the nodes' packets, and names that nodes know."""
    forward = "/proc/sys/net/ipv4/ip_forward"
    back = ["192.168.31.0/24", "via", OUTER1]
    known = {node: lab.path_on(node, "/etc/hosts").read_text() for node in NODES}
    lab.run("jump1", ["sh", "-c", f"echo 1 >{forward}"], check=True)
    lab.run("internet", ["ip", "route", "add", *back], check=True)
    for node in NODES:
        route(lab, node, there=True)
        lab.machine(node).put("/etc/hosts", known[node] + f"{INTERNET} internet.test\n192.168.31.101 inner.test\n")
    yield lab
    for node in NODES:
        lab.run(node, ["ip", "route", "del", "default"])
        lab.machine(node).put("/etc/hosts", known[node])
    lab.run("internet", ["ip", "route", "del", *back])
    lab.run("jump1", ["sh", "-c", f"echo 0 >{forward}"])


@pytest.fixture
def alice(alice: Researcher, lab: Lab) -> Researcher:
    """Alice, who names no jump host."""
    lab.run("login", ["rm", "-rf", alice.home, ".bashrc"], "alice", check=True)
    done = alice.hpcproxy("init", "--via", "direct")
    assert "there is no login to try" in done.stderr
    alice.set(check_url="https://internet.test/ip", ready_timeout_s=120, quiet=True)
    return alice


def test_a_job_gets_out_by_its_nodes_own_route(alice: Researcher, routed: Lab) -> None:
    closed = "curl -sS -o /dev/null -w '%{http_connect} ' https://$n/ 2>/dev/null; "
    body = f"srun {FETCH}\nfor n in c1 inner.test 127.0.0.1; do {closed} done; true\n"
    result = alice.job("unset no_proxy NO_PROXY\n" + body)
    lines = result.output.split("\n")
    assert sorted(lines[:3]) == ["192.168.31.101", "192.168.31.102", "192.168.31.103"]
    assert lines[3].startswith("403 403 403 ")
    assert (result.state, result.exit_code) == ("COMPLETED", 0)


def test_check_and_status_say_how(alice: Researcher, routed: Lab) -> None:
    job = alice.submit("sleep 600\n")
    until(
        lambda: '"ready": true' in alice.hpcproxy("status", "--job", str(job), "--json", check=False).stdout, "it is up"
    )
    assert " direct " in alice.hpcproxy("status", "--job", str(job)).stdout.replace("│", " ")
    routed.run("login", ["scancel", str(job)], "alice", check=True)


def test_an_outage_is_waited_for(alice: Researcher, routed: Lab) -> None:
    alice.set(hold_s=60, alive_interval_s=1)
    job = alice.submit(
        f"touch began; until [ -e cut ]; do sleep 0.1; done; touch asked; {FETCH}\n", "#SBATCH -N1 -w c1"
    )
    home = alice.home.rpartition("/")[0]
    try:
        until(lambda: routed.path_on("login", f"{home}/began").exists(), "the job runs")
        route(routed, "c1", there=False)
        routed.path_on("login", f"{home}/cut").touch()
        until(lambda: routed.path_on("login", f"{home}/asked").exists(), "it asks")
        until(
            lambda: '"held": 1' in alice.hpcproxy("status", "--job", str(job), "--json", check=False).stdout, "it waits"
        )
        route(routed, "c1", there=True)
        result = routed.wait_job(job)
    finally:
        routed.run("login", ["sh", "-c", "rm -f began cut asked"], "alice")
    assert result.output == "192.168.31.101\n"


def test_auto_starts_nothing_where_all_nodes_are_out(alice: Researcher, routed: Lab) -> None:
    alice.set(via="auto", quiet=False, direct_targets=["internet.test:443"])
    result = alice.job(f'srun {FETCH}\necho "proxy ${{http_proxy-none}} ${{HPCPROXY_URL-none}}"\n')
    said, *lines = result.output.splitlines()
    assert said == "hpcproxy: the nodes of this job reach the internet by themselves, so no tunnel is started"
    assert sorted(lines[:3]) == ["192.168.31.101", "192.168.31.102", "192.168.31.103"]
    assert lines[3] == "proxy none none"
    assert alice.traces() == []


def test_auto_takes_the_jump_host_where_one_node_is_not_out(alice: Researcher, routed: Lab) -> None:
    alice.hpcproxy("init", "--yes", "--no-probe", "--via", "auto", "--jump", JUMP1)
    alice.set(via="auto", quiet=False, direct_targets=["internet.test:443"])
    route(routed, "c2", there=False)
    try:
        result = alice.job(f"srun {FETCH}\n")
    finally:
        route(routed, "c2", there=True)
    said, *lines = result.output.splitlines()
    assert said == (
        f"hpcproxy: the tunnel goes by {JUMP1}; not by direct: this node has no route to the internet;"
        " not by environment: the environment of this job names no proxy"
    )
    *answers, through = sorted(lines)
    assert answers == ["192.168.31.101", "192.168.31.103", OUTER1]
    assert through.startswith(f"hpcproxy: out through the nodes' own route, {JUMP1}, 3 nodes, ")


def test_a_node_without_a_route_says_so(alice: Researcher) -> None:
    result = alice.job('echo "proxy ${http_proxy-none}"\n', "#SBATCH -N1")
    said = "route: direct: this node has no route to the internet; the job runs on without it\n"
    assert result.output.endswith(said + "proxy none\n")
    assert result.output.startswith("hpcproxy: no tunnel: c")


def test_what_cannot_be_is_refused_in_a_sentence(alice: Researcher) -> None:
    path = alice.lab.path_on("login", f"{alice.home}/config.yaml")
    path.write_text("via: direct\ngate: false\n")
    done = alice.hpcproxy("install-bashrc", check=False)
    assert done.returncode == 2
    assert "via: `via: direct` needs the agent: take `agent: false` out" in done.stderr


def test_under_the_prolog(admin: Admin, site: Lab) -> None:
    """A roll-out with `via: direct`: no jump host, no key, nothing of the user's; each node by its own route."""
    forward = "/proc/sys/net/ipv4/ip_forward"
    known = {node: site.path_on(node, "/etc/hosts").read_text() for node in site.nodes}
    site.run("jump1", ["sh", "-c", f"echo 1 >{forward}"], check=True)
    site.run("internet", ["ip", "route", "add", "192.168.31.0/24", "via", OUTER1], check=True)
    try:
        for node in site.nodes:
            route(site, node, there=True)
            site.machine(node).put("/etc/hosts", known[node] + f"{INTERNET} internet.test\n")
        admin.inventory["settings"] = {"via": "direct"}
        admin.write()
        assert admin.words("deploy") == {"changed"}
        assert admin.words("deploy", "--enable") == {"changed"}, admin.said
        show = 'echo "$http_proxy" | cut -d: -f1-2; '
        result = admin.job(f"{show}srun {FETCH}\nsrun -N1 -n1 bash -c {shlex.quote(show)}\n")
        first, *addresses, last = result.output.split()
        assert first == last
        assert first.startswith("http://127.")
        assert sorted(addresses) == [f"192.168.31.{101 + number}" for number in range(len(site.nodes))]
        # A node that loses its route says so, and its job runs on.
        route(site, site.nodes[0], there=False)
        said, proxy = admin.job('echo "proxy ${http_proxy-none}"\n').output.splitlines()
        assert "no tunnel from your site: c1: route: direct: this node has no route to the internet" in said
        assert proxy == "proxy none"
    finally:
        for node in site.nodes:
            site.run(node, ["ip", "route", "del", "default"])
            site.machine(node).put("/etc/hosts", known[node])
        site.run("internet", ["ip", "route", "del", "192.168.31.0/24", "via", OUTER1])
        site.run("jump1", ["sh", "-c", f"echo 0 >{forward}"])

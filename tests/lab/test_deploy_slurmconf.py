"""What `--enable` does to a Slurm that has its own ideas: flags of its own, nodes without a slurm.conf."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from hpcproxy.lab import Lab

from .admin import FETCH, OUTER1, Admin
from .researcher import until

pytestmark = pytest.mark.lab
CONF = "/etc/slurm/slurm.conf"
GRES = "/etc/slurm/gres.conf"


def flags(site: Lab) -> str:
    shown = site.run("ctl", ["scontrol", "show", "config"], check=True).stdout
    return next(line.partition("=")[2].strip() for line in shown.splitlines() if line.startswith("PrologFlags"))


def test_nodes_from_slurm_and_flags_of_the_sites_own(admin: Admin, site: Lab) -> None:
    """The last value that Slurm reads counts, which is ours: the site's flag must be in it, and alone again after."""
    admin.describe(nodes="slurm")
    hosts = ("ctl", *site.nodes)
    for host in hosts:
        site.run(host, ["sh", "-c", f"echo PrologFlags=DeferBatch >>{CONF}"], check=True)
    site.run("ctl", ["scontrol", "reconfigure"], check=True)
    try:
        outcomes = admin.outcomes("deploy", "--enable")
        assert outcomes == {**dict.fromkeys(site.nodes, ("changed", "")), "ctl": ("changed", "")}
        assert set(flags(site).split(",")) == {"Alloc", "DeferBatch"}
        assert admin.words("deploy", "--enable") == {"unchanged"}
        assert set(flags(site).split(",")) == {"Alloc", "DeferBatch"}
        assert admin.words("undeploy") == {"changed"}
        assert flags(site) == "DeferBatch"
    finally:
        for host in hosts:
            site.run(host, ["sed", "-i", "/DeferBatch/d", CONF], check=True)
        site.run("ctl", ["scontrol", "reconfigure"], check=True)


def test_a_prolog_whose_epilog_is_not_in_force_starts_nothing(admin: Admin, site: Lab) -> None:
    """Lines by hand, and one of them forgotten: nothing would end a tunnel."""
    words = "c1 epilog Slurm does not run the Epilog here that would end a tunnel"
    tell = "echo ${http_proxy-none}: $HPCPROXY_ERROR\n"
    hosts = ("ctl", *site.nodes)
    assert admin.words("deploy") == {"changed"}
    lines = "Prolog=/etc/slurm/prolog.d/50-hpcproxy\\nTaskProlog=/usr/libexec/hpcproxy/taskprolog\\nPrologFlags=Alloc"
    _append(site, hosts, lines)
    try:
        said = f"hpcproxy: no tunnel from your site: {words.replace(' ', ': ', 2)}; ask its admin"
        assert admin.job(tell).output == f"{said}\nnone: {words}\n"
        assert admin.traces() == []
        _append(site, hosts, "Epilog=/etc/slurm/epilog.d/50-hpcproxy")
        assert admin.words("deploy") == {"changed"}
        assert admin.job(tell).output.startswith("http://127.")
        assert admin.words("deploy") == {"unchanged"}
    finally:
        for host in hosts:
            site.run(host, ["sed", "-i", "/^Prolog=/d;/^Epilog=/d;/^TaskProlog=/d;/^PrologFlags=/d", CONF], check=True)
        site.run("ctl", ["scontrol", "reconfigure"], check=True)


def _append(site: Lab, hosts: tuple[str, ...], lines: str) -> None:
    for host in hosts:
        site.run(host, ["sh", "-c", f"printf '{lines}\\n' >>{CONF}"], check=True)
    site.run("ctl", ["scontrol", "reconfigure"], check=True)


@contextmanager
def configless(site: Lab, node: str) -> Iterator[None]:
    """`node` has no slurm.conf and asks the controller for it, for as long as the block lasts."""
    site.path_on("ctl", GRES).write_bytes(site.path_on(node, GRES).read_bytes())  # the controller hands all of it on
    site.run("ctl", ["scontrol", "reconfigure"], check=True)
    _restart(site, node, "mkdir /root/away && mv /etc/slurm/*.conf /root/away/", ["--conf-server", "ctl:6817"])
    try:
        yield
    finally:
        _restart(site, node, "mv /root/away/* /etc/slurm/ && rmdir /root/away", [])
        site.path_on("ctl", GRES).unlink()


def _restart(site: Lab, node: str, between: str, arguments: list[str]) -> None:
    pid = site.run(node, ["cat", "/run/slurmd.pid"], check=True).stdout.strip()
    site.run(node, ["kill", pid], check=True)
    until(lambda: not any(str(found) == pid for found, _, _ in site.processes(node)), "slurmd has ended")
    site.run(node, ["sh", "-c", between], check=True)
    site.run(node, ["slurmd", *arguments], check=True)
    until(lambda: site.drained() == [], "the node is back")


@contextmanager
def shared(site: Lab) -> Iterator[None]:
    """All hosts have one /etc/slurm, which only the controller may write; cloud images have it so."""
    hosts = ("ctl", *site.nodes)
    site.run("ctl", ["cp", "-a", "/etc/slurm", "/home/shared-slurm"], check=True)
    site.path_on("ctl", "/home/shared-slurm/gres.conf").write_bytes(site.path_on("c1", GRES).read_bytes())
    mounted = []
    try:
        for host in hosts:
            site.run(host, ["mount", "--bind", "/home/shared-slurm", "/etc/slurm"], check=True)
            mounted.append(host)
            if host != "ctl":
                site.run(host, ["mount", "-o", "remount,ro,bind", "/etc/slurm"], check=True)
        yield
    finally:
        for host in mounted:
            site.run(host, ["umount", "/etc/slurm"], check=True)
        site.run("ctl", ["rm", "-r", "/home/shared-slurm"], check=True)
        site.run("ctl", ["scontrol", "reconfigure"], check=True)


def test_a_directory_that_only_the_controller_may_write(admin: Admin, site: Lab) -> None:
    hosts = ("ctl", *site.nodes)
    with shared(site):
        outcomes = admin.outcomes("deploy")
        assert {word for word, _ in outcomes.values()} == {"failed"}
        assert all("one that may write it must be among `nodes` too" in cause for _, cause in outcomes.values())
        admin.describe(nodes=f"ctl,c[1-{len(site.nodes)}]")
        assert admin.outcomes("deploy", "--enable") == dict.fromkeys(hosts, ("changed", ""))
        assert "cannot be" not in admin.said
        assert admin.job().output.split() == [OUTER1] * len(site.nodes)
        admin.set(port=2016)
        assert admin.words("deploy") == {"changed"}
        assert admin.words("rollback") == {"changed"}
        assert admin.outcomes("undeploy") == dict.fromkeys(hosts, ("changed", ""))
        assert site.run("ctl", ["sh", "-c", "ls -A /etc/slurm"], check=True).stdout.split() == [
            "cgroup.conf",
            "gres.conf",
            "slurm.conf",
        ]
        assert "hpcproxy" not in site.path_on("ctl", CONF).read_text()
    assert site.drained() == []


def test_a_configless_node_has_it_too(admin: Admin, site: Lab) -> None:
    with configless(site, "c4"):
        assert set(admin.outcomes("deploy").values()) == {("changed", "")}
        assert "Slurm is configless: only the controllers have a slurm.conf" in admin.said
        word, cause = admin.outcomes("deploy", "--enable")["ctl"]
        assert word == "failed"
        assert "c4 has its slurm.conf from the controller and our files from its own disk" in cause
        assert set(flags(site).split(",")) == {"(null)"}
        admin.describe(keeps_files=True)
        outcomes = admin.outcomes("deploy", "--enable")
        assert outcomes == {
            "ctl": ("changed", ""),
            **dict.fromkeys(site.nodes[:3], ("changed", "")),
            "c4": ("changed", ""),
        }
        assert not site.path_on("c4", CONF).exists()
        body = f"#!/bin/bash\n#SBATCH -w c4\necho $HPCPROXY_ERROR; {FETCH}\n"
        cache = site.path_on("c4", "/var/spool/slurmd/conf-cache/slurm.conf")
        until(lambda: "50-hpcproxy" in cache.read_text(), "the node has our lines")
        assert site.wait_job(site.submit(body)).output.split() == [OUTER1]
        assert admin.words("undeploy") == {"changed"}
        assert site.wait_job(site.submit("#!/bin/bash\n#SBATCH -w c4\necho ${http_proxy-none}\n")).output == "none\n"
    assert site.drained() == []

"""A roll-out by a SPANK plugin: no line in slurm.conf, jobs say `--hpcproxy`, and what is not there does no harm."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from hpcproxy.lab import Lab

from .admin import FETCH, OUTER1, Admin
from .conftest import REPOSITORY
from .ending_acts import RESTARTING
from .researcher import until

pytestmark = pytest.mark.lab

BUILT = REPOSITORY / "spank" / "spank_hpcproxy.so"
PLACED = "/usr/libexec/hpcproxy/spank_hpcproxy.so"
PLUGSTACK = "/etc/slurm/plugstack.conf"
NODES = 4
ASKED = "#SBATCH --hpcproxy"
BODY = f"srun sh -c '{FETCH} 2>/dev/null; echo from ${{http_proxy-nowhere}} | cut -c1-12'\n"


@pytest.fixture(scope="module")
def plugin(lab_host: None) -> Path:
    subprocess.run(["make", "-C", str(BUILT.parent), "--silent"], check=True)
    return BUILT


@pytest.fixture
def submit_host(site: Lab, plugin: Path) -> Iterator[Path]:
    """The host where jobs are submitted knows the option; it is none of the inventory's."""
    conf = site.path_on("login", PLUGSTACK)
    conf.write_text(f"optional {plugin} option\n")
    yield conf
    conf.unlink()


def restart_slurmd(lab: Lab, node: str) -> None:
    """As `systemctl restart slurmd`."""
    with RESTARTING:  # a slurmd that begins ends the one that it takes for the one before
        pids = [str(pid) for pid, _, line in lab.processes(node) if line.split()[0].endswith("slurmd")]
        lab.run(node, ["kill", *pids], check=True)
        gone = lambda: not [line for _, _, line in lab.processes(node) if line.split()[0].endswith("slurmd")]  # noqa: E731
        until(gone, "slurmd has ended")
        lab.run(node, ["slurmd"], check=True)


def test_jobs_that_ask_get_out_and_nothing_that_is_missing_does_harm(
    admin: Admin, site: Lab, submit_host: Path
) -> None:
    before = {node: admin.files(node) for node in ("ctl", *site.nodes)}
    admin.describe(via="spank", policy={"option": True})
    assert admin.words("deploy") == {"changed"}
    assert f"lacks this line; add it, or say deploy --enable: optional {PLACED} option" in admin.said
    assert not site.path_on("c1", "/etc/slurm/prolog.d/50-hpcproxy").exists()
    outcomes = admin.outcomes("deploy", "--enable")
    assert {word for word, _ in outcomes.values()} == {"changed"}, outcomes
    assert "c[1-4]: slurmd has begun before plugstack.conf said so" in admin.said
    for node in ("c1", "c2", "c3"):
        restart_slurmd(site, node)
    assert admin.words("verify") == {"unchanged"}
    assert "c4: slurmd has begun before plugstack.conf said so" in admin.said
    restart_slurmd(site, "c4")
    assert admin.words("verify", "--contract") == {"unchanged"}
    assert "slurmd has begun" not in admin.said
    assert admin.words("deploy", "--enable") == {"unchanged"}

    result = admin.job(BODY, ASKED)
    assert (result.state, sorted(result.output.split())) == ("COMPLETED", sorted([OUTER1, "from", "http://"] * NODES))
    result = admin.job(BODY)
    assert (result.state, result.output.split()) == ("COMPLETED", ["from", "nowhere"] * NODES)
    until(lambda: not admin.traces(), "nothing is left of the jobs")

    # An image without our files, a half of them, a script that fails, one that is no program.
    site.run("c1", ["find", "/usr/libexec/hpcproxy", "-type", "f", "-delete"], check=True)
    site.run("c2", ["rm", PLACED], check=True)
    for name in ("prolog", "epilog", "taskprolog"):
        site.path_on("c3", f"/usr/libexec/hpcproxy/{name}").write_text("#!/bin/bash\necho export BROKEN=1\nexit 3\n")
    site.path_on("c4", "/usr/libexec/hpcproxy/prolog").write_text("no program\n")
    result = admin.job(BODY, ASKED)
    assert result.state == "COMPLETED"
    assert site.drained() == []
    assert "c1: " in admin.run("verify", check=False).stderr

    assert admin.words("deploy", "--enable") == {"changed", "unchanged"}
    assert admin.words("undeploy") <= {"changed", "unchanged"}
    after = {node: admin.files(node) for node in ("ctl", *site.nodes)}
    assert [(node, line) for node in before for line in set(before[node]) ^ set(after[node])] == []
    result = admin.job("echo plain\n")  # slurmd still has the plugin's functions in mind
    assert (result.state, result.output) == ("COMPLETED", "plain\n")
    assert site.drained() == []
    for node in site.nodes:
        restart_slurmd(site, node)


def test_a_plugin_for_another_slurm_and_lines_of_slurm_conf_are_refused(admin: Admin, plugin: Path, site: Lab) -> None:
    other = plugin.read_bytes().replace(b"built-for:0x160508;", b"built-for:0x170b05;")
    site.path_on("ctl", "/root/other.so").write_bytes(other)
    admin.describe(via="spank", spank_plugin="/root/other.so")
    done = admin.run("deploy", check=False)
    assert done.returncode != 0
    assert "it is built for Slurm 23.11.5, and 22.05.8 runs" in done.stderr
    admin.describe()
    admin.words("deploy", "--enable")
    done = admin.run("deploy", "--via", "spank", check=False)
    assert "slurm.conf still says Prolog=/etc/slurm/prolog.d/50-hpcproxy" in done.stderr
    assert admin.words("verify") == {"unchanged"}


def test_back_to_hooks_is_one_command(admin: Admin, plugin: Path, site: Lab) -> None:
    """plugstack.conf names no plugin that is gone, and the version before comes back only when Slurm misses nothing."""
    admin.describe(via="spank")
    assert admin.words("deploy", "--enable") == {"changed"}
    assert PLACED in site.path_on("c1", PLUGSTACK).read_text()
    admin.describe()
    assert admin.words("deploy", "--enable") == {"changed"}
    for node in ("ctl", *site.nodes):
        assert not site.path_on(node, PLUGSTACK).exists()
    assert not site.path_on("c1", PLACED).exists()
    result = admin.job()
    assert (result.output.split(), result.state) == ([OUTER1] * NODES, "COMPLETED")
    outcomes = admin.outcomes("rollback")
    assert {word for word, _ in outcomes.values()} == {"failed"}
    assert all("slurm.conf still says" in cause for _, cause in outcomes.values())
    assert site.drained() == []

"""Bad luck, by name: hosts that are ill have one line each, the others are done; jobs run, and no node is drained."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from hpcproxy.lab import JobResult, Lab

from .admin import FETCH, OUTER1, Admin
from .researcher import until

pytestmark = pytest.mark.lab
ASK = 'echo "${http_proxy-none}"\n'


@contextmanager
def mounted(site: Lab, node: str, *words: str) -> Iterator[None]:
    """`mount WORDS` on `node` for as long as the block lasts; the last word is the place."""
    site.run(node, ["mount", *words], check=True)
    try:
        yield
    finally:
        site.run(node, ["umount", words[-1]], check=True)


def test_three_bad_hosts_among_others(admin: Admin, site: Lab) -> None:
    """One refuses, one is a black hole, one accepts and stays silent: the fourth is done, each has its line."""
    site.sshd_stop("c1")
    site.link("c2", up=False)
    site.sshd_stop("c3")
    silent = site.popen("c3", ["python3", "-c", SILENT], stdout=subprocess.PIPE)
    assert silent.stdout is not None
    assert silent.stdout.readline() == "listening\n"
    try:
        outcomes = admin.outcomes("deploy", "--timeout", "3")
    finally:
        silent.kill_group()
        silent.kill()
        silent.wait()
        silent.stdout.close()
        site.link("c2", up=True)
        for node in ("c1", "c3"):
            site.sshd(node)
    assert outcomes["c1"] == ("unreached", "nothing listens at its ssh port")
    assert outcomes["c2"] == ("unreached", "does not answer within 3 s")
    assert outcomes["c3"] == ("unreached", "accepts connections and stays silent for 3 s")
    assert outcomes["c4"] == ("changed", "")
    assert set(admin.outcomes("deploy", "--limit", "@failed")) == {"c1", "c2", "c3"}
    assert admin.words("verify") == {"unchanged"}


SILENT = (
    "import socket; s = socket.create_server(('', 22)); print('listening', flush=True); import time; time.sleep(600)"
)


def test_a_full_disk_leaves_the_old_version_whole(admin: Admin, site: Lab) -> None:
    with mounted(site, "c1", "-t", "tmpfs", "-o", "size=64k", "none", "/var/lib"):
        outcomes = admin.outcomes("deploy")
        assert outcomes["c1"][0] == "failed"
        assert "No space left on device" in outcomes["c1"][1]
        assert outcomes["c2"] == ("changed", "")
        left = site.run("c1", ["find", "/usr/libexec/hpcproxy", "/etc/hpcproxy", "-type", "f"]).stdout
        assert left == ""
    assert admin.words("deploy") == {"changed", "unchanged"}
    admin.set(port=2016)
    before = _digests(site, "c1")
    with mounted(site, "c1", "-t", "tmpfs", "-o", "size=64k", "none", "/usr/libexec"):
        assert admin.outcomes("deploy")["c1"][0] == "failed"
    assert _digests(site, "c1") == before


def test_a_read_only_etc(admin: Admin, site: Lab) -> None:
    site.run("c2", ["mount", "-o", "remount,ro", "/etc"], check=True)
    try:
        outcomes = admin.outcomes("deploy")
    finally:
        site.run("c2", ["mount", "-o", "remount,rw", "/etc"], check=True)
    assert outcomes["c2"][0] == "failed"
    assert "Read-only file system" in outcomes["c2"][1]
    assert outcomes["c1"] == ("changed", "")
    assert site.run("c2", ["find", "/usr/libexec/hpcproxy", "-type", "f"]).stdout == ""


def test_a_changed_host_key(admin: Admin, site: Lab) -> None:
    site.new_host_key("c3")
    cause = "shows another host key than the one in known_hosts; look into it, then: hpcproxy trust --replace-key"
    assert admin.outcomes("deploy")["c3"] == ("unreached", cause)
    done = admin.run("trust", check=False)
    assert done.returncode == 1
    assert re.search(r"^c3  .*\(changed\)$", done.stdout, re.MULTILINE)
    assert admin.outcomes("deploy")["c3"][0] == "unreached", "a changed key is kept on demand only"
    admin.run("trust", "--replace-key", "--yes")
    assert admin.outcomes("deploy")["c3"] == ("changed", "")


def test_somebody_elses_drop_in_by_our_name_is_kept_and_named(admin: Admin, site: Lab) -> None:
    path = "/etc/slurm/prolog.d/50-hpcproxy"
    site.run("c4", ["mkdir", "-p", "/etc/slurm/prolog.d"], check=True)
    site.run("c4", ["tee", path], input="#!/bin/sh\nexit 0 # the site's own\n", check=True)
    before = admin.files("c4")
    outcomes = admin.outcomes("deploy")
    assert outcomes["c4"] == ("failed", f"somebody else's file is in the way, kept as it is: {path}")
    assert [line for line in admin.files("c4") if line not in before] == []
    site.run("c4", ["rm", "-r", "/etc/slurm/prolog.d"], check=True)


def test_a_file_of_ours_that_somebody_changed_is_kept_by_undeploy(admin: Admin, site: Lab) -> None:
    admin.words("deploy")
    path = site.path_on("c1", "/etc/hpcproxy/config.yaml")
    path.write_text("port: 3000\n")
    assert admin.words("verify") == {"unchanged", "would"}
    outcomes = admin.outcomes("undeploy")
    assert outcomes["c1"] == ("failed", "changed by somebody else and kept: /etc/hpcproxy/config.yaml")
    assert path.read_text() == "port: 3000\n"
    path.unlink()


def test_a_root_bashrc_that_prints(admin: Admin, site: Lab) -> None:
    noise = 'printf "hpcproxy-0 done failed noise\\nno newline at the end"; printf "on stderr" >&2\n'
    site.run("c2", ["tee", "/root/.bashrc"], input=noise, check=True)
    try:
        assert admin.words("deploy") == {"changed"}
        assert admin.words("verify") == {"unchanged"}
    finally:
        site.run("c2", ["rm", "/root/.bashrc"], check=True)


def test_two_admins_at_once(admin: Admin, site: Lab) -> None:
    """The lock of one node is held, as by another deployment: that node says so, the others are done."""
    words = 'read -r -a fields </proc/$$/stat; echo "$$ ${fields[21]}" >/run/hpcproxy-deploy.lock; echo held; read -r _'
    supervisor = site.popen("c1", ["bash", "-c", words], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert supervisor.stdin is not None
    assert supervisor.stdout is not None
    assert supervisor.stdout.readline() == "held\n"
    outcomes = admin.outcomes("deploy")
    supervisor.stdin.close()
    supervisor.wait()
    supervisor.stdout.close()
    assert outcomes["c1"] == ("failed", "another deployment is at work here")
    assert outcomes["c2"] == ("changed", "")
    # And two for real: each host ends on one version, whole.
    admin.set(port=2016)
    both = [
        site.popen("ctl", admin.command("deploy"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) for _ in "ab"
    ]
    for process in both:
        process.wait()
    assert admin.words("deploy") <= {"changed", "unchanged"}
    assert admin.words("verify") == {"unchanged"}


@pytest.mark.parametrize("moment", [0.0, 0.05, 0.15, 0.3])
def test_the_admin_is_killed_in_the_middle(admin: Admin, site: Lab, moment: float) -> None:
    """However far it got, every node is on the old version or on the new one."""
    admin.words("deploy")
    old = {node: _digests(site, node) for node in site.nodes}
    admin.set(port=2016)
    process = site.popen("ctl", admin.command("deploy"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    until(lambda: process.poll() is not None or any(_busy(site, node) for node in site.nodes), "it is connected")
    _wait_a_moment(process, moment)
    process.kill()
    process.wait()
    until(lambda: not any(_busy(site, node) for node in site.nodes), "the nodes have come to an end")
    mixed = {node: _digests(site, node) for node in site.nodes}
    admin.words("deploy")
    new = {node: _digests(site, node) for node in site.nodes}
    for node in site.nodes:
        assert mixed[node] in (old[node], new[node]), node


def _wait_a_moment(process: subprocess.Popen[str], seconds: float) -> None:
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        return


def _busy(site: Lab, node: str) -> bool:
    return any("bash -p -s" in line for _, _, line in site.processes(node))


def _digests(site: Lab, node: str) -> str:
    command = "find /usr/libexec/hpcproxy /etc/hpcproxy /etc/slurm/prolog.d -type f -exec sha256sum {} + | sort"
    return site.run(node, ["sh", "-c", command], check=True).stdout


# ---- on a node: jobs run on, whatever is missing


def _agent(site: Lab) -> None:
    for node in site.nodes:
        site.run(node, ["rm", "/usr/libexec/hpcproxy/agent.pyz"], check=True)


def _all_programs(site: Lab) -> None:
    for node in site.nodes:
        site.run(node, ["sh", "-c", "rm /usr/libexec/hpcproxy/*.sh /usr/libexec/hpcproxy/agent*"], check=True)


def _state_directory(site: Lab) -> None:
    for node in site.nodes:
        site.run(node, ["sh", "-c", "rm -rf /run/hpcproxy; echo taken >/run/hpcproxy"], check=True)


@pytest.mark.parametrize("damage", [_agent, _all_programs, _state_directory])
def test_a_node_on_which_something_of_ours_is_missing(admin: Admin, site: Lab, damage: Callable[[Lab], None]) -> None:
    admin.words("deploy", "--enable")
    damage(site)
    try:
        _runs_without(admin.job(ASK), site)
    finally:
        for node in site.nodes:
            site.run(node, ["sh", "-c", "[ -d /run/hpcproxy ] || rm -f /run/hpcproxy"])
    admin.words("deploy")
    assert admin.job().output.split() == [OUTER1] * 4


def _runs_without(result: JobResult, site: Lab) -> None:
    assert (result.state, result.exit_code) == ("COMPLETED", 0)
    assert result.output.endswith("none\n"), result.output
    assert site.drained() == []


def test_no_ssh_on_a_node(admin: Admin, site: Lab) -> None:
    admin.words("deploy", "--enable")
    for node in site.nodes:
        site.run(node, ["mount", "--bind", "/dev/null", "/usr/bin/ssh"], check=True)
    try:
        assert "c[1-4]: ssh is missing: jobs get no tunnel there" in admin.run("verify").stderr
        # What proxy_on says then: tests/account/test_site_word.py. Here root's supervisor may just be trying anew.
        result = admin.job('echo "$HPCPROXY_ERROR"\n' + ASK)
    finally:
        for node in site.nodes:
            site.run(node, ["umount", "/usr/bin/ssh"], check=True)
    _runs_without(result, site)
    reason = "there is no ssh on this node; ask for the OpenSSH client"
    assert f"ssh {reason}" in result.output
    said = [line for line in result.output.splitlines() if line.startswith("hpcproxy: ")]
    assert said == [f"hpcproxy: no tunnel from your site: c1: ssh: {reason}; ask its admin"]
    log = site.path_on("c1", "/var/log/messages")
    until(lambda: log.exists() and "hpcproxy: job" in log.read_text(), "the system's log says so")


def test_no_python_on_a_node(admin: Admin, site: Lab) -> None:
    admin.words("deploy", "--enable")
    real = site.run("c1", ["readlink", "-f", "/usr/bin/python3"]).stdout.strip()
    for node in site.nodes:
        site.run(node, ["mount", "--bind", "/dev/null", real], check=True)
    try:
        result = admin.job(ASK + f"srun {FETCH}\n")
    finally:
        for node in site.nodes:
            site.run(node, ["umount", real], check=True)
    first, *rest = result.output.split()
    assert first.startswith("socks5h://127.64.")
    assert rest == [OUTER1] * 4


@pytest.mark.parametrize("how", ["refuses", "black hole"])
def test_the_jump_host_is_down(admin: Admin, site: Lab, how: str) -> None:
    admin.describe(task_wait_s=1)
    admin.set(hold_s=1, connect_timeout_s=2)
    admin.words("deploy", "--enable")
    if how == "refuses":
        site.sshd_stop("jump1")
    else:
        site.link("jump1", up=False)
    try:
        result = admin.job("curl -sS --max-time 20 https://internet.test/ip || echo no way\n")
    finally:
        site.sshd("jump1") if how == "refuses" else site.link("jump1", up=True)
    assert result.state == "COMPLETED"
    assert result.output.endswith("no way\n")
    assert site.drained() == []


def test_a_prolog_and_epilog_that_may_take_one_second(admin: Admin, site: Lab) -> None:
    admin.words("deploy", "--enable")
    extra = "/etc/slurm/slurm.conf"
    for host in ("ctl", *site.nodes):
        site.run(host, ["sh", "-c", f"echo PrologEpilogTimeout=1 >>{extra}"], check=True)
    site.run("ctl", ["scontrol", "reconfigure"], check=True)
    try:
        for _ in range(3):
            assert admin.job().output.split() == [OUTER1] * 4
        assert site.drained() == []
    finally:
        for host in ("ctl", *site.nodes):
            site.run(host, ["sed", "-i", "/PrologEpilogTimeout/d", extra], check=True)
        site.run("ctl", ["scontrol", "reconfigure"], check=True)


def test_cancelled_jobs_and_jobs_of_a_moment_leave_nothing(admin: Admin, site: Lab) -> None:
    admin.words("deploy", "--enable")
    jobs = [site.submit("#!/bin/bash\n#SBATCH -N4\nsleep 600\n") for _ in range(3)]
    until(lambda: site.job_fields(jobs[0])["JobState"] == "RUNNING", "one runs")
    site.run("login", ["scancel", *map(str, jobs)], "alice", check=True)
    for job in jobs:
        site.wait_job(job)
    for _ in range(3):
        assert admin.job("true\n").state == "COMPLETED"
    until(lambda: not admin.traces(), f"nothing is left: {admin.traces()}")

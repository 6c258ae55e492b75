"""Our scripts with what Slurm 20.11 to 25.11 says and takes: contracts read in its sources, none of them runs here."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from hpcproxy import floors
from hpcproxy.account import job_script, verbs
from hpcproxy.account.account import Account
from hpcproxy.cluster import governed, inventory, slurm_conf
from hpcproxy.files.plan import PROLOG, TASK_PROLOG, Plan
from hpcproxy.files.render import TEMPLATES, render
from hpcproxy.node.life.job_processes import step_places
from tests import servers
from tests.cluster.cases import plan
from tests.contract.slurm import RELEASES, TOO_OLD, Release, install
from tests.shells import script
from tests.sshd import Sshd

every_release = pytest.mark.parametrize("name", RELEASES)
HOOK = job_script.usual_hook().decode() + "\n"
TOLD = inventory.parse("case", "nodes: c1\nsettings: {jump: j}\ncontrollers: ctl\n")


@pytest.fixture
def job(tmp_path: Path, account: Account, jump_host: Sshd) -> Callable[[Release], dict[str, str]]:
    """The environment of job 9 on this machine alone, of a Slurm of that release."""
    settings = {"jump": [jump_host.jump], "identity": str(jump_host.identity), "port": servers.free_port()}
    verbs.install_bashrc(account, verbs.settings_of(account, settings), dry_run=False)
    account.home.known_hosts.write_text(jump_host.known_hosts)

    def of(release: Release) -> dict[str, str]:
        install(release, tmp_path / "slurm")
        mine = {"SLURM_JOB_ID": "9", "SLURM_JOB_NUM_NODES": "1", "SLURM_JOB_NODELIST": "c1"}
        return {**os.environ, "PATH": f"{tmp_path}/slurm:{os.environ['PATH']}", **mine}

    return of


@every_release
def test_the_jobs_own_steps_run_beside_the_supervisors(
    name: str, job: Callable[[Release], dict[str, str]], account: Account
) -> None:
    epilogue = f". {account.home.directory}/epilogue.sh\n"
    text = f'set -eu\n{HOOK}srun -- printf "%s\\n" "${{http_proxy-none}}"\n{epilogue}'
    done = script("bash", text.replace("srun --", "srun --quiet"), job(RELEASES[name]))
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("http://127.64.")


@every_release
def test_a_step_of_a_shell_that_knows_nothing_of_the_tunnel_runs_beside_the_supervisors(
    name: str, job: Callable[[Release], dict[str, str]], account: Account
) -> None:
    """`proxy_on` in one step of an allocation, and then the next step: nobody could tell that one to share. (P1)"""
    text = f"set -eu\n(\n{HOOK}printf 'on '\n)\nsrun --quiet printf 'beside '\n. {account.home.directory}/epilogue.sh\n"
    done = script("bash", text, job(RELEASES[name]))
    assert (done.returncode, done.stdout) == (0, "on beside "), done.stderr


def test_a_slurm_that_is_too_old_is_said_to_be(job: Callable[[Release], dict[str, str]]) -> None:
    done = script("bash", f"set -eu\n{HOOK}printf on\n", job(TOO_OLD))
    words = "hpcproxy: no tunnel: slurm 20.02.7 is too old, 20.11 is needed; the job runs on without it\n"
    assert (done.returncode, done.stdout, done.stderr) == (0, "on", words)


@every_release
def test_how_it_runs_is_read(name: str) -> None:
    release = RELEASES[name]
    running = slurm_conf.parse(release.config)
    assert floors.version(".".join(map(str, slurm_conf.version(running)))) == release.number
    assert running["Prolog"] == ("/etc/slurm/prolog.sh",)
    assert slurm_conf.live(running, TOLD) == ["Epilog=/etc/slurm/epilog.d/*"]
    assert slurm_conf.scripts(running) == ["/etc/slurm/prolog.sh"]
    assert slurm_conf.missing(running, TOLD) == [
        "Prolog=/etc/slurm/prolog.d/50-hpcproxy",
        "TaskProlog=/usr/libexec/hpcproxy/taskprolog",
    ]
    assert slurm_conf.elsewhere(running, TOLD, ("ctl",)) == []
    assert slurm_conf.too_old(running) == []
    given = {"25.05": 120, "25.11": 30}
    assert slurm_conf.hook_timeout_s(running) == given.get(name, 0)


@every_release
def test_its_nodes_are_known(name: str) -> None:
    nodes = governed.parse(RELEASES[name].nodes, "PartitionName=p AllowGroups=ALL Nodes=c1,cloud1 State=UP\n")
    assert [(node.name, node.is_off) for node in nodes] == [("c1", False), ("cloud1", True)]
    assert nodes[0].names == {"c1", "10.0.0.11"}


@every_release
def test_a_policys_conditions_are_met_where_its_prolog_is_told_and_named_where_not(name: str, tmp_path: Path) -> None:
    release = RELEASES[name]
    running = slurm_conf.parse(release.config)
    said = {"SLURM_JOB_COMMENT": "hpcproxy", "SLURM_JOB_ACCOUNT": "phys", "SLURM_JOB_PARTITION": "gpu"}
    policies = {"comment": {"comment": True}, "accounts": {"accounts": ["phys"]}, "partitions": {"partitions": ["gpu"]}}
    for condition, policy in policies.items():
        run = tmp_path / condition
        _run_prolog(release, run, policy, {**said, "SLURM_JOB_ID": "77", "SLURM_JOB_UID": "4242"})
        told = inventory.parse("case", f"nodes: c1\nsettings: {{jump: j}}\npolicy: {policy}\n")
        named = [line for line in slurm_conf.unmeetable(running, told) if line.startswith(f"policy: {condition} ")]
        assert (run / "run/holders/77.0.said").exists() == (named == []), condition


@every_release
def test_the_second_run_of_a_requeued_job_finds_what_its_prolog_has_started(name: str, tmp_path: Path) -> None:
    """Before 22.05 a Prolog is not told which run it is."""
    release = RELEASES[name]
    second = {"SLURM_JOB_ID": "77", "SLURM_JOB_UID": "4242", "SLURM_JOB_RESTART_COUNT": "1"}
    _run_prolog(release, tmp_path, {}, second)
    (said,) = (tmp_path / "run/holders").glob("77.*.said")
    assert said.name == ("77.1.said" if "SLURM_JOB_RESTART_COUNT" in release.prolog else "77.0.said")
    said.write_text("gave-up c1 key it was refused\n")
    file = render(_plan(tmp_path, {})).named(TASK_PROLOG)
    assert file is not None
    (tmp_path / "taskprolog").write_bytes(file.content)
    environ = {"SLURM_JOB_ID": "77", "SLURM_RESTART_COUNT": "1", "SLURMD_NODENAME": "c1"}
    argv = ["/bin/bash", "-p", tmp_path / "taskprolog"]
    done = subprocess.run(argv, env=environ, capture_output=True, text=True, check=True, timeout=60)
    assert "export HPCPROXY_ERROR=c1 key it was refused\n" in done.stdout


def _plan(directory: Path, policy: dict[str, object]) -> Plan:
    whole = plan(policy=policy)
    return replace(whole, values={**whole.values, "run": directory / "run", "home": directory})


def _run_prolog(release: Release, directory: Path, policy: dict[str, object], values: dict[str, str]) -> None:
    """Run our Prolog as a slurmd of `release` does: with those of `values` of which that tells a Prolog."""
    directory.mkdir(exist_ok=True)
    (directory / "supervisor.sh").write_text(f'printf "%s 1\\n" "$$" >{directory}/run/holders/"$1.$2"\n')
    file = render(_plan(directory, policy)).named(PROLOG)
    assert file is not None
    (directory / "prolog").write_bytes(file.content)
    told = {name: value for name, value in values.items() if name in release.prolog.split()}
    argv = ["/bin/bash", "-p", directory / "prolog"]
    subprocess.run(argv, env=told, check=True, timeout=60)


@every_release
def test_its_programs_answer_what_our_scripts_ask_them(name: str, tmp_path: Path) -> None:
    install(RELEASES[name], tmp_path / "slurm")
    environ = {
        "PATH": f"{tmp_path}/slurm:/usr/bin:/bin",
        "SLURM_JOB_NODELIST": "a[1-2]x[",
        "slurm_bin": "",
        "since": "1",
    }
    library = TEMPLATES / "lib"
    asks = {
        'job_nodes; echo "${nodes[*]}"': ("any/nodes.sh", "c1 c2\n"),
        "job=9; job_goes_on && echo on": ("tunnel/job_processes.sh", "on\n"),
        "job=8; job_goes_on || echo over": ("tunnel/job_processes.sh", "over\n"),
        "job=9 slurmd='' now=0 began_at=0; slurm_knows_job && echo known": ("supervisor/supervise.sh", "known\n"),
        "job=8 slurmd='' now=0 began_at=0; slurm_knows_job || echo unknown": ("supervisor/supervise.sh", "unknown\n"),
        'ask_slurm 5 show slurmd | grep -o "msg time.*T"': ("host/scontrol.sh", "msg time  = 2037-01-01T\n"),
    }
    for text, (file, said) in asks.items():
        argv = ["/bin/bash", "-p", "-c", f'. "{library}/any/bounded.sh"; . "{library}/{file}"; {text}']
        done = subprocess.run(argv, env=environ, capture_output=True, text=True, check=False, timeout=60)
        assert (done.stdout, done.stderr) == (said, ""), text


def test_a_step_that_was_killed_is_seen_in_what_srun_says() -> None:
    """The same in all of them, 20.11 to 26.05."""
    text = (TEMPLATES / "lib/step/step.sh").read_text()
    body = text[text.index("killed_on() {") : text.index("# Each further SIGURG")]
    ask = 'killed_on "srun: error: c[1-2,5]: tasks 0-1,4: Killed" && echo "$dead $dead_count"'
    done = subprocess.run(["bash", "-c", f"{body}\n{ask}"], capture_output=True, text=True, check=True)
    assert done.stdout == "c[1-2,5] 3\n"


@every_release
def test_the_steps_of_a_job_are_known_by_its_cgroups(name: str) -> None:
    line = RELEASES[name].cgroup
    assert step_places(line + "\n") == (line[: line.index("/step_") + len("/step_")],)

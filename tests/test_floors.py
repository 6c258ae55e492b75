"""The oldest programs that this works with: one table, told by README, and asked before anything hangs."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from hpcproxy import floors
from hpcproxy.account import verbs
from hpcproxy.account.account import Account
from hpcproxy.account.verbs import Trial
from hpcproxy.cluster import inventory, protocol, slurm_conf
from hpcproxy.cluster.outcome import HostOutcome, Outcomes
from hpcproxy.cluster.protocol import Answer
from hpcproxy.floors import FLOORS
from tests import REPOSITORY
from tests.keys import accept
from tests.sshd import Sshd
from tests.supervisor import write_script

ROOT = REPOSITORY


def test_readme_says_what_the_table_says() -> None:
    readme = (ROOT / "README.md").read_text()
    table = readme[readme.index("## What it needs") : readme.index("## Where to read on")]
    rows = [tuple(cell.strip() for cell in line.strip("|").split("|")) for line in table.splitlines() if "|" in line]
    assert [row[:3] for row in rows[2:]] == [(floor.name, floor.least, floor.newest) for floor in FLOORS]


def test_pip_and_the_checker_of_the_agent_have_the_same() -> None:
    project = (ROOT / "pyproject.toml").read_text()
    assert f'requires-python = ">={floors.PYTHON.least}"' in project
    assert f"# The floor is Python {floors.NODE_PYTHON.least}" in project


def test_the_first_command_is_one_that_every_pip_can_do() -> None:
    """Without a setup.py pip installs in editable mode from 21.3 on only; Debian 11 has 20.3. (P5)"""
    blocks = re.findall(r"```sh\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    commands = [line for block in blocks for line in block.splitlines() if "pip install" in line]
    assert len(commands) > 2
    assert all("pip install -q -U pip &&" in line for line in commands if " -e " in line)


@pytest.mark.parametrize(
    ("floor", "said", "old"),
    [
        (floors.SLURM, "20.11.4", ""),
        (floors.SLURM, "slurm-wlm 20.02.7", "20.02.7"),
        (floors.SLURM, "slurm 19.05.5", "19.05.5"),
        (floors.SLURM, "slurm 27.11.0-0rc1", ""),
        (floors.SLURM, "(null)", ""),
        (floors.OPENSSH, "OpenSSH_7.4p1, OpenSSL 1.0.2k-fips  26 Jan 2017", ""),
        (floors.OPENSSH, "OpenSSH_6.6.1p1, OpenSSL 1.0.1e", "6.6"),
        (floors.OPENSSH, "OpenSSH_10.6p1, OpenSSL 3.5.4", ""),
        (floors.OPENSSH, "Sun_SSH_1.1", ""),
        (floors.NODE_PYTHON, "Python 3.4.10", "3.4.10"),
        (floors.NODE_PYTHON, "Python 2.7.18", "2.7.18"),
        (floors.NODE_PYTHON, "Python 3.14.0", ""),
        (floors.NODE_PYTHON, "missing", ""),
        (floors.BASH, "5.2.15(1)-release", ""),
        (floors.BASH, "GNU bash, version 4.1.2(1)-release (x86_64-redhat-linux-gnu)\nCopyright", "4.1.2"),
        (floors.COREUTILS, "env (GNU coreutils) 8.4", "8.4"),
        (floors.COREUTILS, "env (GNU coreutils) 9.10", ""),
        (floors.COREUTILS, "env (uutils coreutils) 0.12.0", ""),
        (floors.LINUX, "2.6.32-754.el6.x86_64", "2.6.32"),
        (floors.LINUX, "6.18.0-hpc", ""),
    ],
    ids=str,
)
def test_what_is_too_old_is_said_in_a_sentence_and_a_doubt_is_not(floor: floors.Floor, said: str, old: str) -> None:
    words = floor.too_old(said)
    assert words == (f"{floor.name} {old} is too old, {floor.least} is needed: {floor.below}" if old else "")


def test_a_host_says_its_versions_and_one_that_is_too_old_is_named() -> None:
    script = (ROOT / "templates/lib/host/receive.sh").read_text()
    facts = script[script.index("name_stranger() {") : script.index("main() {")]
    given = 'answer() { printf "%s\\n" "$*"; }; can_have_group() { :; }; store=/none slurm_conf= port=0'
    asked = f"{given}; {facts}\nfacts"
    done = subprocess.run(["/bin/bash", "-p", "-c", asked], capture_output=True, text=True, check=True)
    assert done.stderr == ""
    named = {line.split()[1] for line in done.stdout.splitlines()}
    assert set(floors.OF_HOSTS) <= named
    old = Answer("unchanged", facts={"ssh": "OpenSSH_6.6.1p1, OpenSSL 1.0.1e", "kernel": "6.1.0", "python3": "missing"})
    said = Outcomes((HostOutcome("c1", "unchanged", "", old),)).cautions(0)
    assert f"c1: {floors.OPENSSH.too_old('OpenSSH_6.6')}" in said
    assert len(said) == 2


def test_a_first_deploy_says_it_too_on_one_host_only() -> None:
    message = protocol.framed(b"apply", b"archive")
    assert b"hpcproxy_facts=; " in message.partition(b"\n")[0]
    assert b"hpcproxy_facts=1; " in protocol.with_facts(message).partition(b"\n")[0]


def test_init_says_what_is_too_old_here(
    account: Account, jump_host: Sshd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "srun").write_text('#!/bin/sh\n[ "$*" = --version ] && echo slurm 20.02.7\n')
    (tmp_path / "srun").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    said: list[str] = []
    flags = {"jump": [jump_host.jump], "identity": str(jump_host.identity)}
    account = Account.of(os.environ)
    report = verbs.init(account, verbs.settings_of(account, flags), Trial(), consent=accept, say=said.append)
    assert report.works
    assert said[0] == floors.SLURM.too_old("20.02.7")


def test_slurm_conf_is_not_for_one_that_is_too_old() -> None:
    told = inventory.parse("case", "nodes: c1\nsettings: {jump: j}\n")
    assert slurm_conf.limits(slurm_conf.parse("SLURM_VERSION = 20.02.7\n"), told) == [floors.SLURM.too_old("20.02.7")]
    assert slurm_conf.limits(slurm_conf.parse("SLURM_VERSION = 27.05.0\n"), told) == []


def test_an_older_bash_says_one_sentence_and_reads_no_further(tmp_path: Path) -> None:
    script = write_script(tmp_path / "home", jump="u@h")
    least = f"least_bash={floors.BASH.number}\n"
    for name, arguments, said in (
        ("tunnel.sh", ["hold", "7", "0"], "gave-up c1 bash bash {} is too old, 90.1 is needed\n"),
        ("tunnel.sh", ["probe"], "failed bash bash {} is too old, 90.1 is needed\n"),
        ("job.sh", ["start"], "hpcproxy: no tunnel: bash {} is too old, 90.1 is needed\n"),
    ):
        text = script.with_name(name).read_text()
        head, _, _rest = text.partition("\nfi\n")
        assert least in head
        # What an older one does not understand stands behind it.
        (tmp_path / name).write_text(f"{head.replace(least, 'least_bash=9001' + chr(10))}\nfi\n[[ ( ]]\n")
        argv = ["/bin/bash", "-p", tmp_path / name, *arguments]
        environ = {**os.environ, "SLURMD_NODENAME": "c1"}
        done = subprocess.run(argv, capture_output=True, text=True, env=environ, check=False, timeout=60)
        version = subprocess.run(
            ["/bin/bash", "-c", 'echo "$BASH_VERSION"'], capture_output=True, text=True, check=True
        )
        assert done.stdout + done.stderr == said.format(version.stdout.strip())
        assert done.returncode == (1 if name == "job.sh" else 0)

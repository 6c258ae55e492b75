"""Cases from public bug reports, each with its address: what the cluster has, and what an admin is to be told of it."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from hpcproxy.cluster import fan_out, prospect, protocol, slurm_conf
from hpcproxy.cluster.inventory import Inventory, parse
from hpcproxy.cluster.outcome import HostOutcome, Outcomes
from hpcproxy.cluster.protocol import Answer, Change
from tests import sshd
from tests.cluster.host import TOKEN
from tests.cluster.test_groups import _ask as ask_for_group
from tests.sshd import USER


def told(**more: str) -> Inventory:
    return parse(
        "case", "".join(["nodes: c1\nsettings: {jump: j}\n", *(f"{key}: {each}\n" for key, each in more.items())])
    )


@pytest.mark.parametrize(
    ("groups", "nodes"),
    [
        ("x1000:\n  c1:\n", "@x1000:c1"),  # clustershell/clustershell#533: a group of whom nothing is said
        ("x1000:\n  c1: None\n", "@other:c1"),  # the same: a source that is not there
        ("roles: [a, b]\n", "@a"),
    ],
)
def test_groups_that_are_none(tmp_path: Path, groups: str, nodes: str) -> None:
    last = ask_for_group(tmp_path, nodes, groups).stderr.splitlines()[-1]
    assert last.startswith("ValueError: ")
    assert nodes in last


@pytest.mark.parametrize("accepted", ["rsa-sha2-256", "rsa-sha2-512", "ssh-rsa,rsa-sha2-256"])
def test_an_rsa_key_and_what_signatures_an_sshd_takes(tmp_path: Path, accepted: str) -> None:
    """paramiko/paramiko#1915, #2078, #2268: who gets in by hand gets in."""
    key = tmp_path / "rsa"
    subprocess.run(["ssh-keygen", "-q", "-t", "rsa", "-b", "2048", "-N", "", "-f", str(key)], check=True)
    with sshd.running(tmp_path / "server", f"PubkeyAcceptedKeyTypes {accepted}") as server:
        (server.directory / "authorized_keys").write_text(key.with_suffix(".pub").read_text())
        (tmp_path / "known").write_text(server.known_hosts)
        login = fan_out.Login(USER, server.port, key, None, tmp_path / "known", 20)
        message = f"echo '{TOKEN} done unchanged'; exit\n".encode()
        (reply,) = fan_out.Fleet(login, 1, TOKEN).ask({"127.0.0.1": message}).hosts
        argv = ["ssh", "-T", "-o", "BatchMode=yes", "-o", f"UserKnownHostsFile={tmp_path}/known", "-i", str(key)]
        argv += ["-o", "IdentitiesOnly=yes", "-p", str(server.port), f"{USER}@127.0.0.1", "true"]
        by_hand = subprocess.run(argv, capture_output=True, check=False).returncode == 0
    assert (reply.answer is not None) == by_hand, reply.cause


def test_a_pattern_for_a_directory_that_is_not_there() -> None:
    """mknoxnv/ubuntu-slurm#4: every job drains; ours would be its first file, and plain `deploy` puts none there."""
    running = slurm_conf.parse("Prolog = /etc/slurm/prolog.d/*\n")
    assert slurm_conf.live(running, told()) == ["Prolog=/etc/slurm/prolog.d/*"]


@pytest.mark.parametrize(
    "line",
    [
        "Prolog = /sched/scripts/prolog.sh",  # Azure/azurehpc#635: two projects, one Prolog
        "Prolog = /opt/slurm/etc/scripts/prolog.d/*",  # aws-parallelcluster: a pattern of another directory
        "Epilog = /slurm/custom_scripts/epilog.d/*",  # GoogleCloudPlatform/cluster-toolkit#4070
    ],
)
def test_a_prolog_of_another_project_is_not_replaced(line: str) -> None:
    (words,) = slurm_conf.in_the_way(slurm_conf.parse(f"{line}\n"), told())
    assert "already, and a line of ours would replace it" in words


def test_nodes_that_lack_what_slurm_runs() -> None:
    """GoogleCloudPlatform/cluster-toolkit#4070: the controller names scripts that no compute node has."""
    paths = ["/etc/slurm/prolog.d/50-hpcproxy", "/etc/slurm/epilog.d/50-hpcproxy"]
    answer = Answer("would", changes=tuple(Change("create", path) for path in paths))
    running = slurm_conf.parse("\n".join(slurm_conf.lines(told())))
    (words,) = prospect.tell(Outcomes((HostOutcome("c1", "would", "", answer),)), running, told())
    assert "its next job drains it and is requeued: Prolog=/etc/slurm/prolog.d/50-hpcproxy" in words


def test_a_slurm_conf_that_is_a_link_to_shared_storage(tmp_path: Path) -> None:
    """NVIDIA/deepops#1182: /etc/slurm/slurm.conf leads to one file of all hosts."""
    real, link = tmp_path / "sw" / "slurm.conf", tmp_path / "slurm.conf"
    real.parent.mkdir()
    real.write_bytes(b"A=1\n")
    link.symlink_to(real)
    message = protocol.editing((protocol.Edit(str(link), b"A=1\n", b"A=1\nB=2\n"),), TOKEN)
    done = subprocess.run(["/bin/bash", "-p", "-s"], input=message, capture_output=True, check=True)
    assert protocol.parse(done.stdout, TOKEN).word == "changed"
    assert link.is_symlink()
    assert real.read_bytes() == b"A=1\nB=2\n"

"""A researcher without root puts her own files on machines whose homes are not shared: the jump hosts of the lab."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator

import pytest
import yaml

from hpcproxy.lab import Lab

from .admin import JUMP1

pytestmark = pytest.mark.lab
INVENTORY = "/home/alice/mine.yaml"
MACHINES = ("jump1", "jump2")


@pytest.fixture
def alice(site: Lab) -> Iterator[Lab]:
    told = {"nodes": "jump[1-2]", "user": "alice", "settings": {"jump": [JUMP1]}}
    path = site.path_on("login", INVENTORY)
    path.write_text(yaml.safe_dump(told))
    assert run(site, "trust", "--yes") == 0
    yield site
    run(site, "undeploy", "--as-user")
    for name in ("mine.yaml", "known_hosts", "report.json", ".hpcproxy-last-run.json"):
        site.path_on("login", f"/home/alice/{name}").unlink(missing_ok=True)


def run(site: Lab, *arguments: str) -> int:
    command = [sys.executable, "-m", "hpcproxy", *arguments, "--inventory", INVENTORY]
    return site.run("login", command, "alice").returncode


def words(site: Lab, *arguments: str) -> dict[str, str]:
    run(site, *arguments, "--as-user", "--report", "/home/alice/report.json")
    report = json.loads(site.path_on("login", "/home/alice/report.json").read_text())
    return {host["host"]: host["outcome"] for host in report["hosts"]}


def files(site: Lab, machine: str) -> str:
    command = "find ~ -path ~/.ssh -prune -o -printf '%P %m %u\\n' | sort; cat ~/.bashrc"
    return site.run(machine, ["sh", "-c", command], "alice", check=True).stdout


def test_out_again_changed_back_and_away(alice: Lab) -> None:
    before = {machine: files(alice, machine) for machine in MACHINES}
    assert words(alice, "deploy", "--dry-run") == dict.fromkeys(MACHINES, "would")
    assert {machine: files(alice, machine) for machine in MACHINES} == before
    assert words(alice, "deploy") == dict.fromkeys(MACHINES, "changed")
    for machine in MACHINES:
        listed = files(alice, machine)
        assert "\n.hpcproxy 700 alice\n" in listed
        assert "\n.hpcproxy/tunnel.sh 700 alice\n" in listed
        assert "# >>> hpcproxy >>>" in listed
        shell = alice.run(machine, ["bash", "-ic", "proxy_status"], "alice")
        assert shell.stdout == "hpcproxy: off\n", shell.stderr
    assert words(alice, "deploy") == dict.fromkeys(MACHINES, "unchanged")
    assert words(alice, "verify") == dict.fromkeys(MACHINES, "unchanged")
    alice.run("jump2", ["sed", "-i", "/hpcproxy/d", ".bashrc"], "alice", check=True)
    alice.run("jump2", ["sh", "-c", "echo '# mine' >>.bashrc"], "alice", check=True)
    assert words(alice, "verify") == {"jump1": "unchanged", "jump2": "would"}
    assert words(alice, "deploy") == {"jump1": "unchanged", "jump2": "changed"}
    alice.run("jump2", ["sed", "-i", "/^# mine$/d", ".bashrc"], "alice", check=True)
    assert words(alice, "undeploy") == dict.fromkeys(MACHINES, "changed")
    assert {machine: files(alice, machine) for machine in MACHINES} == before


def test_a_damaged_block_stops_that_machine_only(alice: Lab) -> None:
    alice.run("jump1", ["sh", "-c", "cp .bashrc kept; echo '# >>> hpcproxy >>>' >>.bashrc"], "alice", check=True)
    try:
        assert words(alice, "deploy") == {"jump1": "failed", "jump2": "changed"}
    finally:
        alice.run("jump1", ["mv", "kept", ".bashrc"], "alice", check=True)

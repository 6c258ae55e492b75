"""Our lines in slurm.conf on several hosts: the real scripts with a real bash each; a stand-in answers for scontrol.

Real Slurm stands behind the same in tests/lab/test_deploy_slurmconf.py.
"""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import pytest

from hpcproxy.cluster import inventory, protocol, slurm_conf
from hpcproxy.cluster.enable import Enablement, scontrol, wait_for_slurmd
from hpcproxy.cluster.fan_out import Fleet
from hpcproxy.cluster.outcome import HostOutcome, OnHost, Outcomes, judge, unheard
from hpcproxy.cluster.slurm_conf import parse
from hpcproxy.errors import Reason

TOKEN = "hpcproxy-token"  # noqa: S105 - no secret: it marks lines
HOSTS = ("h0", "h1", "h2")  # the first is slurmctld's
CONF = b"ClusterName=x\nPrologFlags=Serial\n"
NOTHING = parse("PrologFlags = Serial\n")

# What it is told to say lies beside it. Like the real one it fails on a file that it does not understand.
SCONTROL = """#!/bin/bash
here=${0%/*}
[[ ! -e $here/hung ]] || exec sleep 60
if grep -q Nonsense "${SLURM_CONF:-/dev/null}"; then echo 'scontrol: fatal: Nonsense is no key' >&2; exit 1; fi
case "$*" in
    '--all show '*) true ;;
    'show config') sed 's/=/ = /' "$here/running" ;;
    reconfigure) echo reconfigure >>"$here/told" && [[ -e $here/deaf ]] || cp "$here/../slurm.conf" "$here/running" ;;
    'show slurmd')
        printf 'Boot time                = %s\nLast slurmctld msg time  = %s\nVersion                  = %s\n' \
            $(cat "$here/heard")
        ;;
    'show hostnames localhost') echo localhost ;;
    *) exit 2 ;;
esac
"""


@dataclass
class Cluster:
    """Directories that stand for /etc/slurm of three hosts."""

    root: Path
    away: tuple[str, ...] = ()
    token: str = TOKEN

    def ask(self, messages: dict[str, bytes], on_host: OnHost = unheard) -> Outcomes:
        del on_host
        return Outcomes(tuple(self._one(host, message) for host, message in messages.items()))

    def _one(self, host: str, message: bytes) -> HostOutcome:
        if host in self.away:
            return judge(host, None, Reason("route", "no route to host"))
        # As long as the name it stands for: the message says how long its scripts are.
        there = message.replace(b"/HH/", b"/%s/" % host.encode()).replace(b"/HH'", b"/%s'" % host.encode())
        done = subprocess.run(["/bin/bash", "-p", "-s"], input=there, capture_output=True, check=True, timeout=60)
        return judge(host, protocol.parse(done.stdout.replace(b"/%s/" % host.encode(), b"/HH/"), TOKEN))

    def conf(self, host: str) -> Path:
        return self.root / host / "slurm.conf"

    def enablement(self, controllers: str = "h0") -> Enablement:
        text = f"nodes: h[1-2]\nsettings: {{jump: j}}\ncontrollers: {controllers}\n"
        told = inventory.parse("case", f"{text}slurm_directory: {self.root}/HH\nslurm_bin: {self.root}/HH/bin\n")
        return Enablement(cast("Fleet", self), told)


@pytest.fixture
def cluster(tmp_path: Path) -> Cluster:
    for host in HOSTS:
        binaries = tmp_path / host / "bin"
        binaries.mkdir(parents=True)
        (binaries / "scontrol").write_text(SCONTROL)
        (binaries / "scontrol").chmod(0o755)
        (binaries / "running").write_bytes(CONF)
        (tmp_path / host / "slurm.conf").write_bytes(CONF)
        (tmp_path / host / "slurm.conf").chmod(0o640)
    return Cluster(tmp_path)


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hpcproxy.cluster.enable._CONFIRM_S", 1.0)


def on(cluster: Cluster) -> dict[str, tuple[str, str]]:
    done = cluster.enablement().on(HOSTS[1:], NOTHING)
    return {host.host: (host.word, host.cause) for host in done.hosts}


def test_lines_are_in_force_and_go_again(cluster: Cluster) -> None:
    assert on(cluster) == dict.fromkeys(HOSTS, ("changed", ""))
    for host in HOSTS:
        text = cluster.conf(host).read_text()
        assert text.startswith(CONF.decode())
        assert "Include" not in text
        assert f"Prolog={cluster.root}/HH/prolog.d/50-hpcproxy\n" in text
        assert "PrologFlags=Serial,Alloc\n" in text
        assert cluster.conf(host).stat().st_mode & 0o777 == 0o640
    assert cluster.enablement().off(HOSTS[1:]).good
    assert {cluster.conf(host).read_bytes() for host in HOSTS} == {CONF}
    assert sorted(path.name for path in (cluster.root / "h1").iterdir()) == ["bin", "slurm.conf"]


def test_where_slurm_cannot_be_told_its_file_is_left_as_it_is(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    on(cluster)
    before = {host: cluster.conf(host).read_bytes() for host in HOSTS}
    monkeypatch.setattr("hpcproxy.cluster.enable._ASK_S", 1)
    (cluster.root / "h0/bin/hung").touch()
    done = cluster.enablement().off(HOSTS[1:])
    assert not done.good
    assert "left as it is" in done.rows()[0].cause
    assert {host: cluster.conf(host).read_bytes() for host in HOSTS} == before


def _answer(message: bytes) -> protocol.Answer | None:
    done = subprocess.run(["/bin/bash", "-p", "-s"], input=message, capture_output=True, check=True, timeout=60)
    return protocol.parse(done.stdout, TOKEN)


def test_a_file_that_hosts_share_is_changed_by_all_of_them_side_by_side(tmp_path: Path) -> None:
    conf = tmp_path / "slurm.conf"
    for before, after in ((CONF, CONF + b"# ours\n"), (CONF + b"# ours\n", CONF)) * 4:
        conf.write_bytes(before)
        message = protocol.editing((protocol.Edit(str(conf), before, after),), TOKEN)
        with ThreadPoolExecutor(4) as hosts:
            answers = [answer for answer in hosts.map(_answer, [message] * 4) if answer]
        assert len(answers) == 4
        assert {answer.word for answer in answers} <= {"changed", "unchanged"}, answers
        assert conf.read_bytes() == after
        assert [path.name for path in tmp_path.iterdir()] == ["slurm.conf"]


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to mount")
@pytest.mark.parametrize("comes", [True, False])
def test_a_file_that_only_another_host_may_write_is_waited_for(tmp_path: Path, comes: bool) -> None:
    """One /etc/slurm for all, which only the controller may write: cloud images have it so."""
    shared, here = tmp_path / "shared", tmp_path / "here"
    for directory in (shared, here):
        directory.mkdir()
    (shared / "slurm.conf").write_bytes(CONF)
    subprocess.run(["mount", "--bind", "-o", "ro", str(shared), str(here)], check=True)
    try:
        message = protocol.editing((protocol.Edit(f"{here}/slurm.conf", CONF, CONF + b"# ours\n"),), TOKEN)
        other = threading.Timer(1.0, (shared / "slurm.conf").write_bytes, [CONF + b"# ours\n"] if comes else [CONF])
        other.start()
        answer = _answer(message)
        other.join()
        assert answer is not None
        if comes:
            assert answer.word == "unchanged", answer
        else:
            assert answer.word == "failed"
            assert "cannot be written" in answer.text
    finally:
        subprocess.run(["umount", str(here)], check=True)


def test_a_reconfigure_that_never_was_is_made_and_one_that_does_nothing_is_named_every_time(cluster: Cluster) -> None:
    on(cluster)
    running = cluster.root / "h0/bin/running"
    running.write_bytes(CONF)
    again = cluster.enablement().on(HOSTS[1:], parse(CONF.decode()))
    assert {(host.host, host.word) for host in again.hosts} == {
        ("h0", "changed"),
        ("h1", "unchanged"),
        ("h2", "unchanged"),
    }
    assert "50-hpcproxy" in running.read_text()
    running.write_bytes(CONF)
    (cluster.root / "h0/bin/deaf").touch()
    for _ in range(2):
        done = cluster.enablement().on(HOSTS[1:], parse(CONF.decode()))
        (row,) = [row for row in done.rows() if row.word == "failed"]
        assert row.hosts == "h0"
        assert "after `scontrol reconfigure`" in row.cause


def test_what_slurmctld_does_not_run_with_is_taken_back_everywhere(cluster: Cluster) -> None:
    """A slurmd that runs with lines that slurmctld has not would fail the next job."""
    (cluster.root / "h0/bin/deaf").touch()
    outcomes = on(cluster)
    assert outcomes["h0"][0] == "failed"
    assert "after `scontrol reconfigure`" in outcomes["h0"][1]
    for host in HOSTS[1:]:
        assert outcomes[host] == ("skipped", "slurm.conf is as before here, for slurmctld does not run with it")
    assert {cluster.conf(host).read_bytes() for host in HOSTS} == {CONF}
    assert (cluster.root / "h0/bin/told").read_text().split() == ["reconfigure"] * 2, "the daemons read that too"


def test_whether_slurmctld_reads_the_file_that_would_be_changed(cluster: Cluster, tmp_path: Path) -> None:
    running = cluster.root / "h0/bin/running"

    def reads(path: Path) -> bool:
        running.write_text(f"SLURM_CONF={path}\n")
        said = cluster.enablement().slurm("h0")
        assert not isinstance(said, str), said
        return said.reads_ours

    (tmp_path / "link").symlink_to(cluster.root / "h0", target_is_directory=True)
    (tmp_path / "copy").mkdir()
    (tmp_path / "copy/slurm.conf").write_bytes(CONF)
    assert [reads(tmp_path / name / "slurm.conf") for name in ("link", "copy")] == [True, False]
    elsewhere = parse(f"SLURM_CONF = {tmp_path}/copy/slurm.conf\n")
    (words,) = slurm_conf.elsewhere(elsewhere, TOLD, ["h0"], reads_ours=False)
    assert words.endswith("not /etc/slurm/slurm.conf; say where it is with `slurm_directory`")


def _damaged(cluster: Cluster) -> None:
    cluster.conf("h2").write_bytes(b"A=1\n# >>> hpcproxy >>>\n")  # half of our block: whose it is nobody knows


def _not_understood(cluster: Cluster) -> None:
    cluster.conf("h2").write_bytes(b"Nonsense=1\n")


def _away(cluster: Cluster) -> None:
    cluster.away = ("h2",)


def test_a_node_without_that_file_is_right_and_told_of(cluster: Cluster) -> None:
    """It has its configuration from the controller."""
    cluster.conf("h2").unlink()
    assert on(cluster) == {"h0": ("changed", ""), "h1": ("changed", ""), "h2": ("unchanged", "")}
    assert not cluster.conf("h2").exists()


@pytest.mark.parametrize(
    ("trouble", "cause"),
    [
        (_damaged, "holds only half of the hpcproxy block"),
        (_not_understood, "does not take"),
        (_away, "no route to host"),
    ],
)
def test_all_hosts_or_none(cluster: Cluster, trouble: Callable[[Cluster], None], cause: str) -> None:
    trouble(cluster)
    before = cluster.conf("h2").read_bytes()
    outcomes = on(cluster)
    assert cause in outcomes["h2"][1]
    assert {outcomes[host][0] for host in ("h0", "h1")} == {"skipped"}
    assert all("h2" in outcomes[host][1] for host in ("h0", "h1"))
    assert [cluster.conf(host).read_bytes() for host in HOSTS] == [CONF, CONF, before]
    assert (cluster.root / "h0/bin/running").read_bytes() == CONF
    assert sorted(path.name for path in (cluster.root / "h2").iterdir()) == ["bin", "slurm.conf"]


def test_a_controller_that_is_away_is_named(cluster: Cluster) -> None:
    cluster.away = ("h9",)
    done = cluster.enablement("h0,h9").on(HOSTS[1:], NOTHING)
    assert [host.host for host in done.hosts if host.word == "unreached"] == ["h9"]
    assert cluster.conf("h0").read_bytes() == CONF


def test_a_controller_without_that_file_is_told_so(cluster: Cluster) -> None:
    cluster.conf("h0").unlink()
    word, cause = on(cluster)["h0"]
    assert word == "failed"
    assert "slurm.conf is not there; say where" in cause


# ---- scontrol, where the site has it


def _run(command: tuple[str, ...]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Path]:
    """A process called slurmd, of an installation in a directory of its own."""
    site = tmp_path / "opt"
    for name in ("bin", "sbin"):
        (site / name).mkdir(parents=True)
    (site / "sbin/slurmd").write_bytes(Path("/bin/sleep").resolve().read_bytes())
    (site / "sbin/slurmd").chmod(0o755)
    (site / "bin/scontrol").write_text(SCONTROL)
    (site / "bin/scontrol").chmod(0o755)
    (site / "bin/running").write_text("Prolog=/x\n")
    process = subprocess.Popen([site / "sbin/slurmd", "60"])
    yield site
    process.kill()
    process.wait()


TOLD = inventory.parse("case", "nodes: c1\nsettings: {jump: j}\n")


def test_scontrol_is_found_beside_the_daemon_that_runs(daemon: Path) -> None:
    assert (daemon / "bin/scontrol").exists()
    assert _run(scontrol(TOLD, "show", "config")).stdout == "Prolog = /x\n"


def test_one_that_hangs_has_its_time(daemon: Path) -> None:
    (daemon / "bin/hung").touch()
    done = _run(scontrol(TOLD, "show", "config", seconds=1))
    assert done.returncode != 0
    assert done.stderr == "no answer within 1 s\n"


@pytest.mark.parametrize(
    ("heard", "words"),
    [
        ("1999-01-01T00:00:00 NONE 22.05.8", "it has not read it within 1 s"),
        ("1999-01-01T00:00:00 1999-01-01T00:00:00 22.05.8", "it has not read"),
        ("1999-01-01T00:00:00 2037-01-01T00:00:00 22.05.8", ""),
        ("1999-01-01T00:00:00 2037-01-01T00:00:00 23.02.7", ""),
        ("2037-01-01T00:00:00 NONE 22.05.8", ""),
        # It starts itself anew, and the new one has heard nothing yet; the old one hears, and goes on for a while.
        ("2037-01-01T00:00:00 NONE 23.11.0", ""),
        ("2037-01-01T00:00:00 NONE 26.05.5", ""),
        ("1999-01-01T00:00:00 2037-01-01T00:00:00 23.11.0", "it has not read"),
        ("1999-01-01T00:00:00 2037-01-01T00:00:00 26.05.5", "it has not read"),
        ("1999-01-01T00:00:00 2037-01-01T00:00:00 what", "it has not read"),
    ],
)
def test_whether_the_slurmd_has_read_it(daemon: Path, monkeypatch: pytest.MonkeyPatch, heard: str, words: str) -> None:
    monkeypatch.setattr("hpcproxy.cluster.enable._READ_S", 1)
    (daemon / "bin/heard").write_text(heard)
    done = _run(wait_for_slurmd(TOLD, "1800000000"))
    assert (done.returncode == 0) == (words == "")
    assert words in done.stderr

# ruff: noqa: E501 - lines of a log are easier to read in one
"""The Epilog: whose tunnel it ends, how much of what a user has started it kills at most, and what it tells the admin."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from hpcproxy.account import tunnels
from tests.templates.slurmd.test_scripts import _as_slurmd, _job, _site
from tests.waiting import until


@pytest.fixture
def epilog(tmp_path: Path) -> Path:
    """Its `logger` is ours; what it is told stands in `logged`."""
    script = _site(tmp_path)["epilog"]
    logger = tmp_path / "logger"
    logger.write_text(f"#!/bin/sh\nprintf '%s\\n' \"$*\" >>'{tmp_path}/logged'\n")
    logger.chmod(0o755)
    text = script.read_text()
    assert " logger -t" in text
    script.write_text(text.replace(" logger -t", f" {logger} -t"))
    (tmp_path / "run/holders").mkdir(parents=True)
    return script


@pytest.fixture
def later(tmp_path: Path, epilog: Path) -> Iterator[subprocess.Popen[bytes]]:
    """The tunnel of the second run of job 77, which was requeued."""
    with subprocess.Popen(["sleep", "600"], start_new_session=True) as supervisor:
        (tmp_path / "run/holders/77.1").write_text(f"{supervisor.pid} {tunnels.start_time(supervisor.pid)}\n")
        (tmp_path / "run/holders/77.1.said").write_text("ready c1 j\n")
        yield supervisor
        supervisor.kill()


@pytest.mark.parametrize("name", ["SLURM_JOB_RESTART_COUNT", "SLURM_RESTART_COUNT"])
def test_one_that_comes_late_leaves_the_next_run_its_tunnel(
    name: str, epilog: Path, later: subprocess.Popen[bytes], tmp_path: Path
) -> None:
    assert _as_slurmd(epilog, _job(**{name: "0"})) == (0, "")
    assert later.poll() is None
    assert (tmp_path / "run/holders/77.1").exists()
    assert _as_slurmd(epilog, _job(**{name: "1"})) == (0, "")
    assert later.wait(30) < 0
    assert list((tmp_path / "run/holders").iterdir()) == []


def test_one_that_is_told_of_no_run_ends_what_there_is(epilog: Path, later: subprocess.Popen[bytes]) -> None:
    """A Slurm that does not say it: better no tunnel than one that nobody ends."""
    assert _as_slurmd(epilog, _job()) == (0, "")
    assert later.wait(30) < 0


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, as the Epilog does")
def test_one_that_is_the_users_leaves_word_for_the_supervisor(
    epilog: Path, later: subprocess.Popen[bytes], tmp_path: Path
) -> None:
    """As slurmstepd of Slurm 24.11 does with RunInJob while it shuts X11 forwarding down. (P4)"""
    for folder in (tmp_path, *tmp_path.parents):  # the script itself can be read by everybody, as on a node
        if folder.stat().st_mode & 0o055 != 0o055:
            folder.chmod(folder.stat().st_mode | 0o055)
    (tmp_path / "run/holders").chmod(0o711)
    for name in ("77.0", "77.1", "77.2", "771.1"):
        (tmp_path / "run" / name).mkdir(mode=0o700)
        os.chown(tmp_path / "run" / name, 1234, 1234)

    def be_the_user() -> None:
        os.setgroups([1234])
        os.setresgid(1234, 1234, 1234)
        os.setresuid(1234, 1234, 1234)

    environ = _job(SLURM_JOB_RESTART_COUNT="1")
    done = subprocess.run([str(epilog)], env=environ, preexec_fn=be_the_user, check=False, timeout=60)
    assert done.returncode == 0
    assert later.poll() is None
    assert sorted(path.parent.name for path in (tmp_path / "run").glob("*/over")) == ["77.0", "77.1"]


def test_what_it_kills_is_bounded(epilog: Path, tmp_path: Path) -> None:
    """A user may have started what he likes, and slurmd waits for us."""
    many = 150
    start = f"trap '' TERM URG; for ((i = 0; i < {many}; i++)); do sleep 600 & done; wait"
    with subprocess.Popen(["bash", "-c", start], start_new_session=True) as supervisor:
        children = Path(f"/proc/{supervisor.pid}/task/{supervisor.pid}/children")
        pids = until(lambda: found if len(found := children.read_text().split()) == many else [], "all have begun")
        try:
            (tmp_path / "run/holders/77.0").write_text(
                f"{supervisor.pid} {tunnels.start_time(supervisor.pid)}\nkeeper 1 1\n"
            )
            assert _as_slurmd(epilog, _job()) == (0, "")
            assert supervisor.wait(30) < 0
            assert sum(tunnels._state(int(pid)) != "Z" for pid in pids) >= many - 66
        finally:
            for pid in pids:
                if tunnels.start_time(int(pid)) is not None:
                    os.kill(int(pid), 9)


@pytest.mark.parametrize(
    ("said", "logged"),
    [
        ("mode c1 agent\nfailed c1 route j: nobody answers\n", "-t hpcproxy -- job 77.0: no tunnel: failed c1 route j: nobody answers\n"),
        ("failed c1 route j: x\ngave-up c1 key j: re\x1bfused\n", "-t hpcproxy -- job 77.0: no tunnel: gave-up c1 key j: refused\n"),
        ("failed c1 route j: nobody answers\nready c1 j\n", ""),
        ("mode c1 agent\n", ""),
    ],
    ids=["failed", "gave up", "came up", "nothing said"],
)  # fmt: skip
def test_the_admin_hears_why_there_never_was_one(said: str, logged: str, epilog: Path, tmp_path: Path) -> None:
    (tmp_path / "run/holders/77.0.said").write_text(said)
    assert _as_slurmd(epilog, _job()) == (0, "")
    path = tmp_path / "logged"
    assert (path.read_text() if path.exists() else "") == logged


@pytest.mark.parametrize("other", ["77.1", "", "78.0"], ids=["its next run", "nobody", "another job"])
def test_the_firewall_goes_unless_another_run_of_the_job_stands_behind_it(
    other: str, epilog: Path, tmp_path: Path
) -> None:
    """All runs of a job have the same address."""
    programs = tmp_path / "programs"
    programs.mkdir()
    (programs / "nft").write_text(f"#!/bin/sh\nprintf '%s\\n' \"$*\" >>'{tmp_path}/firewalls'\n")
    (programs / "nft").chmod(0o755)
    epilog.write_text(epilog.read_text().replace("export PATH=", f"export PATH={programs}:"))
    supervisors = tmp_path / "run/holders"
    (supervisors / "77.0").write_text("keeper 4194305 1\nway 4194305 1\nwall 127.64.0.77 2015 1234\n")
    if other:
        (supervisors / other).write_text("keeper 4194305 1\n")
        (supervisors / f"{other}.said").write_text("")
    assert _as_slurmd(epilog, _job(SLURM_JOB_RESTART_COUNT="0")) == (0, "")
    firewalls = (tmp_path / "firewalls").read_text() if (tmp_path / "firewalls").exists() else ""
    assert [line.strip() for line in firewalls.splitlines()] == (
        []
        if other == "77.1"
        else [
            "delete element inet hpcproxy held { 127.64.0.77 . 2015 }",
            "delete element inet hpcproxy passes { 127.64.0.77 . 2015 . 1234 }",
        ]
    )
    assert sorted(path.name for path in supervisors.iterdir()) == ([other, f"{other}.said"] if other else [])

"""A lab comes whole or not at all, goes without a trace, and bears others beside it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from hpcproxy.errors import LabError
from hpcproxy.lab import Lab, LabSpec, record
from tests.waiting import until

from .conftest import REPOSITORY, lab_name

pytestmark = [pytest.mark.lab, pytest.mark.usefixtures("lab_host")]


@pytest.fixture
def name() -> Iterator[str]:
    """The name of a lab that is gone after the test, however it ends."""
    name = lab_name("short")
    yield name
    Lab.remove(name)


def namespaces(lab: Lab) -> set[str]:
    """The namespaces that the lab has made."""
    kinds = ("pid", "net", "mnt", "uts", "ipc")
    theirs = {str(Path(f"/proc/{lab.machine(host).pid}/ns/{kind}").readlink()) for host in lab.hosts for kind in kinds}
    return theirs - {str(Path(f"/proc/self/ns/{kind}").readlink()) for kind in kinds}


def inhabitants(spaces: set[str]) -> list[str]:
    """The processes of this machine that are in one of `spaces`."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if any(str(space.readlink()) in spaces for space in (process / "ns").iterdir()):
                found.append((process / "cmdline").read_text())
        except OSError:  # noqa: PERF203  it ended meanwhile, so it is no inhabitant
            continue
    return found


def traces() -> dict[str, object]:
    """What this machine has of things that a lab is made of; labs of other names aside."""
    links = subprocess.run(["ip", "-o", "link"], text=True, capture_output=True, check=True).stdout
    return {
        "links": sorted(line.split()[1] for line in links.splitlines()),
        "mounts": Path("/proc/mounts").read_text(),
        "cgroups": sorted(str(path) for path in Path("/sys/fs/cgroup").rglob("*slurm*")),
        "run": sorted(path.name for path in Path("/run").iterdir() if path != record.DIRECTORY),
    }


def half_built(name: str) -> tuple[subprocess.Popen[bytes], record.Process]:
    """Somebody builds the lab `name` and has got as far as its root process."""
    text = f"from hpcproxy.lab import *; Lab.up(LabSpec(name={name!r}))"
    builder = subprocess.Popen([sys.executable, "-c", text], cwd=REPOSITORY, stderr=subprocess.PIPE)
    until(lambda: record.read(name), "the root process is on record")
    kept = record.read(name)
    assert kept is not None
    assert not kept.ready
    return builder, kept.root


def works(lab: Lab) -> bool:
    return lab.wait_job(lab.submit("#!/bin/bash\nhostname\n")).output == "c1\n"


def test_down_leaves_nothing(name: str) -> None:
    before = traces()
    lab = Lab.up(LabSpec(name=name, nodes=2))
    assert works(lab)
    lab.run("c1", ["setsid", "--fork", "sh", "-c", "exec sleep 600 >/dev/null 2>&1"], "alice")
    spaces = namespaces(lab)
    assert len(spaces) == 5 * len(lab.hosts)
    assert inhabitants(spaces)
    lab.down()
    assert inhabitants(spaces) == []
    assert traces() == before
    assert not record.record_path(name).exists()
    lab.down()  # again: nothing to do, no error
    assert not Lab.remove(name)
    with pytest.raises(LabError, match="no lab"):
        Lab.attach(name)


def test_two_labs_do_not_meet(name: str, lab: Lab) -> None:
    other = Lab.up(LabSpec(name=name, nodes=1, gpus=0, slurm_conf={"KillWait": "5"}))
    assert "KillWait                = 5 sec" in other.run("ctl", ["scontrol", "show", "config"]).stdout
    assert works(other)
    assert works(lab)
    other.run("ctl", ["touch", "/home/alice/other"])
    assert not lab.path_on("ctl", "/home/alice/other").exists()
    other.down()
    assert works(lab)


def test_a_second_up_keeps_an_equal_lab_and_replaces_another(name: str) -> None:
    first = Lab.up(LabSpec(name=name, nodes=1))
    steps: list[str] = []
    second = Lab.up(LabSpec(name=name, nodes=1), steps.append)
    assert steps == [f"lab {name} is up already"]
    assert second.machine("c1") == first.machine("c1") == Lab.attach(name).machine("c1")
    third = Lab.up(LabSpec(name=name, nodes=2), steps.append)
    assert f"removing lab {name}" in steps
    assert not first.alive
    first.down()  # somebody's old handle does not harm the new lab
    assert third.alive
    assert works(third)


def test_up_after_the_root_was_killed(name: str) -> None:
    first = Lab.up(LabSpec(name=name, nodes=1))
    spaces = namespaces(first)
    kept = record.read(name)
    assert kept is not None
    os.kill(kept.root.pid, signal.SIGKILL)
    until(lambda: not kept.root.alive, "the root process is gone")
    assert inhabitants(spaces) == []
    with pytest.raises(LabError, match="no lab"):
        Lab.attach(name)
    assert works(Lab.up(LabSpec(name=name, nodes=1)))


def test_a_half_built_lab_ends_with_its_builder(name: str) -> None:
    builder, root = half_built(name)
    builder.kill()
    builder.communicate()
    until(lambda: not root.alive, "the root process has noticed")
    assert works(Lab.up(LabSpec(name=name, nodes=1)))


def test_a_builder_reports_that_the_lab_died_under_it(name: str) -> None:
    builder, root = half_built(name)
    os.kill(root.pid, signal.SIGKILL)
    _, stderr = builder.communicate(timeout=60)
    assert builder.returncode != 0
    assert b"LabError" in stderr
    assert not record.record_path(name).exists()
    assert works(Lab.up(LabSpec(name=name, nodes=1)))


def test_a_failed_start_says_why_and_leaves_nothing(name: str) -> None:
    before = traces()
    with pytest.raises(LabError, match="slurm"):
        Lab.up(LabSpec(name=name, nodes=1, slurm_conf={"SelectType": "select/nonsense"}))
    assert traces() == before
    assert not record.record_path(name).exists()


def test_an_exposed_link_may_sort_before_what_it_leads_to(name: str, tmp_path: Path) -> None:
    first, last = tmp_path / "a", tmp_path / "z"
    first.mkdir()
    last.mkdir()
    (last / "file").write_text("there")
    (first / "link").symlink_to(last / "file")
    lab = Lab.up(LabSpec(name=name, nodes=1, expose=(first, first / "link")))
    assert lab.run("c1", ["cat", str(first / "link")]).stdout == "there"


def test_a_record_of_a_process_that_is_somebody_elses_harms_nobody(name: str) -> None:
    with subprocess.Popen(["sleep", "600"]) as stranger:
        process = record.Process.of(stranger.pid)
        impostor = record.Process(process.pid, process.start_ticks - 1, process.boot)
        with record.locked(name):
            record.write(name, record.Record(LabSpec(name=name).to_json(), impostor, {}, ready=True))
        assert not Lab.remove(name)
        assert stranger.poll() is None
        stranger.kill()
    assert not record.record_path(name).exists()

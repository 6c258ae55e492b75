"""Which release whose files a lab's hosts have, whole or not at all; what its Slurm says of nodes. No lab is built."""

from __future__ import annotations

import contextlib
import math
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import pytest

from bench import reach
from bench.reach import outcome, with_cells
from bench.reach import release as of_hosts
from hpcproxy.errors import LabError
from hpcproxy.lab import LabSpec, Machine, packages, parse_release, release, slurm
from hpcproxy.lab.spec import RELEASE_VARIABLE
from tests import style

from .endings import SLURMS_VOICE


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("", {}),
        ("trixie", {"controller": "trixie", "compute": "trixie", "jump": "trixie"}),
        ("jump=trixie, compute=bullseye", {"jump": "trixie", "compute": "bullseye"}),
        ("forky,jump=bullseye", {"controller": "forky", "compute": "forky", "jump": "bullseye"}),
    ],
)
def test_one_for_all_or_by_role(text: str, wanted: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert parse_release(text) == wanted
    monkeypatch.setenv(RELEASE_VARIABLE, text)
    spec = LabSpec(name="x")
    assert spec.release == wanted
    assert LabSpec.from_json(spec.to_json()) == spec


@pytest.mark.parametrize("text", ["jammy", "router=trixie", "compute=", "=trixie"])
def test_what_is_not_possible_is_named_with_what_is(text: str) -> None:
    with pytest.raises(LabError, match=r"release .* is not possible; valid: "):
        LabSpec(name="x", release=parse_release(text))


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, and a mmdebstrap that makes half of what it should."""
    program = tmp_path / "bin" / "mmdebstrap"
    program.parent.mkdir()
    program.write_text('#!/bin/sh\nfor last; do :; done\nmkdir -p "$MADE/half"\necho E: no such suite >&2\nexit 1\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")
    monkeypatch.setattr(release, "CACHE", tmp_path / "cache")
    monkeypatch.setattr(packages, "ensure", lambda *_: None)
    monkeypatch.setenv("MADE", f"{release.directory('trixie')}.part")
    return tmp_path / "cache"


def test_one_that_cannot_be_made_leaves_nothing_and_says_why(cache: Path) -> None:
    with pytest.raises(LabError, match="no root file system of trixie can be made here: E: no such suite"):
        release.fetch("trixie", lambda _: None)
    assert [path.name for path in cache.iterdir()] == ["trixie.lock"]


def test_one_that_is_there_is_taken(cache: Path) -> None:
    release.directory("trixie").mkdir(parents=True)
    said: list[str] = []
    assert release.fetch("trixie", said.append) == cache / release.directory("trixie").name
    assert said == []


def test_the_table_tells_failed_from_not_possible(tmp_path: Path) -> None:
    report = tmp_path / "report.xml"
    report.write_text(
        '<testsuites><testsuite><testcase name="a"/><testcase name="b"><failure/></testcase>'
        '<testcase name="c"><skipped message="not before 23.02"/></testcase></testsuite></testsuites>'
    )
    assert outcome(report) == "1 passed, 1 absent: not before 23.02, **1 failed**: `b`"
    for nothing in ("<testsuites/>", ""):
        report.write_text(nothing)
        assert "failed" in outcome(report)  # what has not run has not passed


def ended(arguments: Sequence[str], monkeypatch: pytest.MonkeyPatch) -> object:
    """The exit code of `bench/reach.py` with `arguments`."""
    monkeypatch.setattr(sys, "argv", ["reach.py", *arguments])
    with pytest.raises(SystemExit) as end:
        reach.main()
    return end.value.code


def test_where_a_release_cannot_be_had_that_is_said_and_is_no_failure(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fetch(suite: str, on_step: object, timeout_s: float) -> Path:
        assert 0 < timeout_s <= 600
        raise LabError(f"no root file system of {suite} can be made here: no route to host")

    monkeypatch.setattr(reach, "fetch", fetch)
    assert not ended(["--suites", "bullseye,trixie", "--features", "demo", "--within", "600"], monkeypatch)
    out, err = capsys.readouterr()
    assert out == "reach: nothing was run\n"
    assert err.splitlines() == [
        f"reach: {suite} is left out from here on: no root file system of {suite} can be made here: no route to host"
        for suite in ("bullseye", "trixie")
    ]
    monkeypatch.setattr(reach, "TIMEOUT_S", 600.0)
    with pytest.raises(LabError, match="no route to host"):  # who has named no time wants it
        ended(["--suites", "trixie", "--features", "demo"], monkeypatch)


@pytest.mark.parametrize(
    ("script", "within", "says"),
    [
        ("echo all is well", "600", "10 of 10 steps"),
        ("echo step 8 went wrong; exit 1", "600", "**failed**: step 8 went wrong"),
        ("trap 'echo removed >{gone}; exit' INT; sleep 60 & wait", "1", "was not done in the time"),
    ],
)
def test_what_fails_is_red_and_what_is_not_done_in_time_is_said(
    script: str,
    within: str,
    says: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    gone = tmp_path / "gone"
    (tmp_path / "invoke").write_text(f"#!/bin/bash\n{script.format(gone=gone)}\n")
    (tmp_path / "invoke").chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.setattr(reach, "fetch", lambda *_, **__: None)
    monkeypatch.setattr(reach, "_versions", lambda _: "Slurm 1")
    assert ended(["--suites", "trixie", "--features", "demo", "--within", within], monkeypatch) is ("failed" in says)
    assert says in capsys.readouterr().err
    assert gone.exists() is (within == "1")  # its labs are removed by itself


@pytest.mark.parametrize(("code", "says"), [(0, "1 passed"), (2, "**failed**: it did not come to its end: 1 passed")])
def test_what_was_interrupted_has_not_passed(
    code: int, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    python = tmp_path / "python"
    report = "<testsuites><testsuite><testcase/></testsuite></testsuites>"
    python.write_text(
        f'#!/bin/bash\nfor word; do :; done\nfile=${{4#--junitxml=}}\necho "{report}" >"$file"\nexit {code}\n'
    )
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    assert reach._run("jobs", "trixie", reach.Asked(["trixie"], ["jobs"], False, tmp_path, math.inf)) == says


def test_what_was_not_run_stays_in_the_table_with_its_day() -> None:
    page = "head\n<!-- releases: begin -->\n\n<!-- releases: end -->\ntail\n"
    page = with_cells(page, {("versions", "trixie"): "Slurm 24.11", ("jobs", "trixie"): "1 passed"}, "2026-11-01")
    new = {("versions", "bullseye/trixie"): "Slurm 20.11", ("demo", "bullseye/trixie"): "10 of 10 steps"}
    page = with_cells(page, {**new, ("ends", "trixie"): "2 passed"}, "2026-11-02")
    assert page == (
        "head\n<!-- releases: begin -->\n"
        "|  | trixie | bullseye/trixie |\n"
        "| --- | --- | --- |\n"
        "| versions | Slurm 24.11 | Slurm 20.11 |\n"
        "| demo |  | 10 of 10 steps (2026-11-02) |\n"
        "| jobs | 1 passed (2026-11-01) |  |\n"
        "| ends | 2 passed (2026-11-02) |  |\n"
        "<!-- releases: end -->\ntail\n"
    )


def test_the_jump_hosts_may_have_another_release() -> None:
    assert parse_release(of_hosts("trixie/bullseye"))["jump"] == "bullseye"
    assert set(parse_release(of_hosts("trixie")).values()) == {"trixie"}


class Controller:
    """Answers sinfo with one of `looks` after the other, the last one again and again."""

    def __init__(self, *looks: str) -> None:
        self.looks = list(looks)

    def run(self, argv: list[str]) -> subprocess.CompletedProcess[str]:
        assert argv[0] == "sinfo"
        look = self.looks.pop(0) if len(self.looks) > 1 else self.looks[0]
        return subprocess.CompletedProcess(argv, 0, look, "")


@pytest.mark.parametrize(
    ("looks", "drained"),
    [
        (["c1 idle\nc2 mixed\nc3 planned\nc4 allocated*\n"], []),
        (["c1 drained\nc2 down*\nc3 draining\nc4 idle\n"], ["c1", "c2", "c3"]),
        (["c1 unknown\nc2 idle\n", "c1 unknown*\nc2 idle\n", "c1 idle\nc2 idle\n"], []),
        (["c1 a-state-to-come\n"], ["c1"]),  # in doubt it is said
    ],
)
def test_which_nodes_take_no_more_work(looks: list[str], drained: list[str]) -> None:
    assert slurm.drained(cast("Machine", Controller(*looks))) == drained


def test_what_a_machine_lacks_are_programs_and_files() -> None:
    there = {"sh": "dash", "/etc/passwd": "base-passwd"}
    lacking = {"no-such-program": "a", "/usr/include/no-such.h": "b"}
    assert packages.missing({**there, **lacking}) == list(lacking)


def test_a_checker_that_a_release_has_not_does_not_keep_the_tests_from_starting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Debian 11 has no shfmt. (L2)"""
    apt = tmp_path / "apt-get"
    apt.write_text("#!/bin/sh\necho E: Unable to locate package >&2\nexit 100\n")
    apt.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setattr(packages, "PATH", "/nowhere")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(packages, "_no_service_starts", contextlib.nullcontext)
    said: list[str] = []
    packages.ensure_if_possible(packages.STYLE_TOOLS, said.append)
    assert [line.partition(":")[0] for line in said if line.startswith("without")] == [
        "without shellcheck",
        "without shfmt",
    ]
    assert "Unable to locate package" in said[-1]
    assert not set(packages.STYLE_TOOLS) & set(packages.TEST_TOOLS)


@pytest.mark.parametrize(
    ("program", "says", "taken"),
    [
        ("shfmt", "3.6.0", True),
        ("shfmt", "v3.10.0", True),
        ("shfmt", "3.14.1", False),  # Debian 14's
        ("shellcheck", "ShellCheck - shell script analysis tool\nversion: 0.10.0", True),
        ("shellcheck", "ShellCheck - shell script analysis tool\nversion: 0.7.1", False),  # Debian 11's
        ("shfmt", "", False),
    ],
)
def test_the_style_is_checked_by_those_that_it_is_of(
    program: str, says: str, taken: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What another release's checker says of it is no failure. (T2)"""
    if says:
        (tmp_path / program).write_text(f"#!/bin/sh\nprintf '%s\\n' '{says}'\n")
        (tmp_path / program).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    command = style.shfmt if program == "shfmt" else style.shellcheck
    if taken:
        assert [command("-d")[0], command("-d")[-1]] == [program, "-d"]
    else:
        with pytest.raises(pytest.skip.Exception, match=f"the style is of {program} "):
            command("-d")


@pytest.mark.parametrize(
    ("version", "says"),
    [((20, 11), "\n"), ((21, 8), "CgroupPlugin=cgroup/v1\n"), ((22, 5), "CgroupPlugin=cgroup/v1\n")]
    + [((version, 11), "CgroupPlugin=disabled\n") for version in (23, 24, 25)],
)
def test_cgroup_conf_has_what_its_slurm_knows(
    version: tuple[int, int], says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """20.11 does not begin with a key that it does not know. (L1)"""
    monkeypatch.setattr(slurm, "version", lambda _machine: version)
    assert slurm._cgroup_conf(cast("Machine", None), LabSpec(name="x")) == says


@pytest.mark.parametrize(
    ("line", "slurms"),
    [
        ("slurmstepd-c1: error: *** JOB 1 ON c1 CANCELLED AT 2026-11-29T20:01:02 ***", True),
        ("[2026-11-29T20:01:02.345] error: *** JOB 1 ON c1 CANCELLED AT 2026-11-29T20:01:02 ***", True),
        ("[2026-12-01T01:49:40.859] error: StepId=27.2 exceeded memory limit (321716224 > 157286400)", True),
        ("srun: Step created for StepId=1.1", True),
        ("hpcproxy: no tunnel: busy", False),
        ("error: the job's own", False),
        ("203.0.113.10", False),
    ],
)
def test_what_slurm_says_in_a_jobs_output_is_told_apart(line: str, slurms: bool) -> None:
    """slurmstepd names itself by the moment from 26.05 on. (T3)"""
    assert (SLURMS_VOICE.match(line) is not None) is slurms

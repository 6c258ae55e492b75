"""What works on which release: the lab's hosts take a Debian release's files, and each feature's tests run on them.

    python bench/reach.py [--suites bullseye,trixie/bullseye,…] [--features demo,jobs,…] [--write] [--reports DIR]
        [--within S]

`trixie` is all hosts'; `trixie/bullseye` is trixie with jump hosts of bullseye. As root. Prints a table; with `--write`
docs/reach.md has each cell that was run, dated, as soon as it is known, and the others as they were. DIR has what the
tests said. Ends with 1 if anything failed. With `--within` a release whose files cannot be had here, and what is not
done after S seconds, is left out with a line that says so, and is no failure.
"""

from __future__ import annotations

import argparse
import math
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from xml.etree import ElementTree as ET

from hpcproxy.errors import LabError
from hpcproxy.lab import Lab, LabSpec, parse_release
from hpcproxy.lab.command import PATH
from hpcproxy.lab.release import fetch, wheels
from hpcproxy.lab.spec import RELEASE_VARIABLE

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "reach.md"
BEGIN, END = "<!-- releases: begin -->\n", "<!-- releases: end -->"
SUITES = ("bullseye", "trixie", "forky", "bullseye/trixie", "trixie/bullseye")
UNIT = "unit tests"
# A feature, and the tests that show it; the demo has its own program.
FEATURES = {
    "demo": (),
    "jobs": ("tests/lab/test_jobs.py",),
    "second user": ("tests/lab/test_second_user.py",),
    "undisturbed": ("tests/lab/test_undisturbed.py", "tests/lab/test_no_tunnel.py"),
    "deploy": ("tests/lab/test_deploy.py", "tests/lab/test_deploy_badluck.py"),
    "outages": ("tests/lab/test_outages.py",),
    "ends": ("tests/lab/test_ends.py", "tests/lab/test_ends_site.py"),
    "RunInJob": ("tests/lab/run_in_job.py",),
    "penalties": ("tests/lab/penalties.py",),
    UNIT: (),
}
# What the tests without a lab need on a host, whose Python may be older than ours (the last five).
UNIT_TOOLS = ("pytest>=8,<10", "pytest-xdist>=3.5,<4", "hypothesis>=6.100,<7", "httpx>=0.28,<1", "requests>=2.32,<3")
UNIT_TOOLS += ("vermin>=1.6,<2", "werkzeug>=3,<4", "wsproto>=1.2,<2", "build>=1.2,<2", "setuptools>=77")
UNIT_TOOLS += ("exceptiongroup", "tomli", "typing_extensions", "importlib_metadata", "async-timeout")
# What meets a release's own Python, bash, coreutils and OpenSSH; the rest is the same everywhere.
UNIT_TESTS = ("tests/node", "tests/contract", "tests/openssh", "tests/templates", "tests/test_floors.py")
UNIT_TESTS += ("tests/files/test_install.py", "tests/cluster/test_logins.py", "tests/cluster/test_field.py")
VERSIONS = "versions"
TIMEOUT_S = 2400.0
ENDING_S = 120.0
LATE = 124  # timeout(1) has it too
UNFINISHED = "**failed**: it did not come to its end"
FAILED = re.compile(r"\*\*(\d+ )?failed\*\*")
Cells = dict[tuple[str, str], str]


@dataclass(frozen=True)
class Asked:
    """What the command line says; `end` is when all must be done, on the clock of time.monotonic()."""

    suites: Sequence[str]
    features: Sequence[str]
    write: bool
    reports: Path | None
    end: float

    @property
    def left_s(self) -> float:
        """How long the next thing may take."""
        return max(0.0, min(TIMEOUT_S, self.end - time.monotonic()))


class LeftOutError(Exception):
    """It is not run, or not to its end, and why; no failure."""


def main() -> None:
    """Run what is asked for and say what came out."""
    asked = _asked()
    cells: Cells = {}
    for suite in asked.suites:
        _try(suite, asked, cells)
    print("\n".join(_table(cells)) if cells else "reach: nothing was run")
    sys.exit(any(FAILED.search(cell) for cell in cells.values()))


def _asked() -> Asked:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--suites", default=",".join(SUITES))
    parser.add_argument("--features", default=",".join(FEATURES))
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--reports", type=Path, default=None)
    parser.add_argument("--within", type=float, default=math.inf, metavar="S")
    found = parser.parse_args()
    features = found.features.split(",")
    if not set(features) <= set(FEATURES):
        parser.error(f"features are {', '.join(FEATURES)}")
    return Asked(found.suites.split(","), features, found.write, found.reports, time.monotonic() + found.within)


def _try(suite: str, asked: Asked, cells: Cells) -> None:
    """Add to `cells` what comes out for `suite`."""
    try:
        _add(suite, asked, cells)
    except LeftOutError as reason:
        print(f"reach: {suite} is left out from here on: {reason}", file=sys.stderr)


def _add(suite: str, asked: Asked, cells: Cells) -> None:
    _fetch(suite, asked)
    cells[VERSIONS, suite] = _versions(suite)
    # On a mixed lab the tests without one are those of the release alone.
    for feature in (name for name in asked.features if name != UNIT or "/" not in suite):
        cells[feature, suite] = _run(feature, suite, asked)
        print(f"{suite}, {feature}: {cells[feature, suite]}", file=sys.stderr)
        if asked.write:
            PAGE.write_text(with_cells(PAGE.read_text(), cells, f"{datetime.now().astimezone():%Y-%m-%d}"))


def _fetch(suite: str, asked: Asked) -> None:
    """The files of `suite` are here. They come from elsewhere: where they cannot be had nothing of ours has failed."""
    try:
        for name in sorted(set(parse_release(release(suite)).values())):
            fetch(name, lambda step: print(step, file=sys.stderr), timeout_s=asked.left_s)
    except LabError as error:
        if asked.end < math.inf:
            raise LeftOutError(str(error)) from None
        raise


def release(suite: str) -> str:
    """Return which role has which release, in the words of LabSpec."""
    cluster, slash, jump = suite.partition("/")
    return f"{cluster},jump={jump}" if slash else cluster


def _versions(suite: str) -> str:
    """Return what `suite` has, asked of a lab of it."""
    name = f"reach-{os.getpid()}"
    try:
        lab = Lab.up(LabSpec(name=name, nodes=1, release=parse_release(release(suite))))
        said = [lab.run("c1", ["sbatch", "--version"]).stdout.split()[-1], *_programs(lab, "c1")]
        if "/" in suite:
            said[-1] += f"; jump host: {', '.join(_programs(lab, 'jump1'))}"
    finally:
        Lab.remove(name)
    return f"Slurm {', '.join(said)}"


def _programs(lab: Lab, host: str) -> Iterator[str]:
    yield lab.run(host, ["ssh", "-V"]).stderr.split()[0].strip(",").replace("_", " ")
    yield lab.run(host, ["python3", "--version"]).stdout.strip()
    yield "bash " + lab.run(host, ["bash", "-c", 'echo "${BASH_VERSION%%(*}"']).stdout.strip()


def _run(feature: str, suite: str, asked: Asked) -> str:
    """Return the outcome as a cell of the table."""
    if feature == UNIT:
        done, cell = _unit(suite, asked.left_s)
    elif feature == "demo":
        done = _call([str(Path(sys.executable).parent / "invoke"), "demo"], suite, asked.left_s)
        last = (done.stdout.strip().splitlines() or [""])[-1]
        ends = {0: "10 of 10 steps", LATE: UNFINISHED}
        cell = ends.get(done.returncode, f"**failed**: {last}")
    else:
        with tempfile.NamedTemporaryFile(suffix=".xml") as report:
            command = [sys.executable, "-m", "pytest", "-q", f"--junitxml={report.name}", *FEATURES[feature]]
            done = _call(command, suite, asked.left_s)
            cell = outcome(Path(report.name))
            if done.returncode not in (0, 1, LATE):  # interrupted, or at fault itself: what passed is not all
                cell = f"{UNFINISHED}: {cell}"
    if done.returncode == LATE:
        if asked.end < math.inf and not FAILED.search(cell.replace(UNFINISHED, "")):
            raise LeftOutError(f"{feature} was not done in the time that there is")
        cell = cell if cell == UNFINISHED else f"{UNFINISHED}: {cell}"
    _keep(asked.reports, suite, feature, done.stdout)
    if asked.reports is None and FAILED.search(cell):
        print(done.stdout, file=sys.stderr)
    return cell


def _unit(suite: str, limit_s: float) -> tuple[subprocess.CompletedProcess[str], str]:
    """Return what the tests without a lab come to, and say, on a host of `suite`: with its Python, bash and OpenSSH."""
    name, report = f"reach-{os.getpid()}", "/tmp/report.xml"  # noqa: S108  the host's own
    tools = wheels(suite, UNIT_TOOLS)
    try:
        lab = Lab.up(LabSpec(name=name, nodes=1, release=parse_release(release(suite)), expose=(ROOT, tools)))
        # Where nothing of Slurm's runs, whose daemons tests look for. The checkout is there to be read only.
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--junitxml={report}"]
        command += ["-n", "2", "--dist", "loadfile", *UNIT_TESTS]
        environ = {"PYTHONPATH": str(tools), "PATH": f"{tools}/bin:{PATH}", "HYPOTHESIS_STORAGE_DIRECTORY": "/run/h"}
        done = lab.run("jump2", command, env=environ, cwd=str(ROOT), timeout_s=limit_s)
        return done, outcome(lab.path_on("jump2", report))
    finally:
        Lab.remove(name)


def _keep(reports: Path | None, suite: str, feature: str, said: str) -> None:
    if reports is not None:
        reports.mkdir(parents=True, exist_ok=True)
        (reports / f"{suite}-{feature}.txt".replace("/", "+").replace(" ", "-")).write_text(said)


def _call(command: Sequence[str], suite: str, limit_s: float) -> subprocess.CompletedProcess[str]:
    """Return how `command` ended, and what it said, with labs of `suite`.

    One that is not done after `limit_s` is told to end, as by Ctrl-C, for it has labs to remove; its code is LATE.
    """
    environ = {**{name: value for name, value in os.environ.items() if name != "CI"}, RELEASE_VARIABLE: release(suite)}
    with tempfile.TemporaryFile("w+", errors="replace") as said:
        process = subprocess.Popen(
            command, cwd=ROOT, env=environ, stdin=subprocess.DEVNULL, stdout=said, stderr=subprocess.STDOUT
        )
        try:
            code = process.wait(limit_s)
        except subprocess.TimeoutExpired:
            code = LATE
            process.send_signal(signal.SIGINT)
            try:
                process.wait(ENDING_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        said.seek(0)
        return subprocess.CompletedProcess(command, code, said.read(), "")


def outcome(report: Path) -> str:
    """Return how many passed; those that did not, by name; those that cannot be on this release, with the reason."""
    try:
        cases = list(ET.parse(report).getroot().iter("testcase"))  # noqa: S314 - written by pytest a moment ago
    except ET.ParseError:
        return UNFINISHED
    passed, bad, absent = 0, [], []
    for case in cases:
        skipped = case.find("skipped")
        if case.find("failure") is not None or case.find("error") is not None:
            bad.append(f"`{case.get('name')}`")
        elif skipped is not None:
            absent.append(str(skipped.get("message")))
        else:
            passed += 1
    words = [f"{passed} passed"] if passed or not absent else []
    if absent:
        words.append(f"{len(absent)} absent: {'; '.join(sorted(set(absent)))}")
    if bad or not (passed or absent):
        words.append(f"**{len(bad)} failed**: {', '.join(bad)}")
    return ", ".join(words)


def with_cells(page: str, cells: Cells, day: str) -> str:
    """Return `page` with `cells` in its table, each with the day; what was not run now is as it was."""
    before, begin, rest = page.partition(BEGIN)
    table, end, after = rest.partition(END)
    dated = {place: text if place[0] == VERSIONS else f"{text} ({day})" for place, text in cells.items()}
    lines = _table({**_cells(table), **dated})
    return before + begin + "".join(f"{line}\n" for line in lines) + end + after


def _cells(table: str) -> Cells:
    """Return what a table has that `_table` wrote."""
    rows = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in table.splitlines() if "|" in line]
    (_, *suites), *rest = rows or [[""]]
    return {(feature, suite): cell for feature, *row in rest[1:] for suite, cell in zip(suites, row) if cell}


def _table(cells: Cells) -> list[str]:
    suites = sorted({suite for _, suite in cells}, key=SUITES.index)
    features = [feature for feature in (VERSIONS, *FEATURES) if any(place[0] == feature for place in cells)]
    rows = [["", *suites], ["---"] * (len(suites) + 1)]
    rows += [[feature, *(cells.get((feature, suite), "") for suite in suites)] for feature in features]
    return [f"| {' | '.join(row)} |" for row in rows]


if __name__ == "__main__":
    main()

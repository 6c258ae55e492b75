"""What works on which release: the lab's hosts take a Debian release's files, and each feature's tests run on them.

    python bench/reach.py [--suites bullseye,trixie/bullseye,…] [--features demo,jobs,…] [--write] [--reports DIR]

`trixie` is all hosts'; `trixie/bullseye` is trixie with jump hosts of bullseye. As root. Prints a table; with `--write`
docs/reach.md has each cell that was run, dated, as soon as it is known, and the others as they were. DIR has what the
tests said. Ends with 1 if anything failed.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from xml.etree import ElementTree as ET

from hpcproxy.lab import Lab, LabSpec, parse_release
from hpcproxy.lab.spec import RELEASE_VARIABLE

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "reach.md"
BEGIN, END = "<!-- releases: begin -->\n", "<!-- releases: end -->"
SUITES = ("bullseye", "trixie", "forky", "bullseye/trixie", "trixie/bullseye")
# A feature, and the tests that show it; the demo has its own program.
FEATURES = {
    "demo": (),
    "jobs": ("tests/lab/test_jobs.py",),
    "second user": ("tests/lab/test_second_user.py",),
    "undisturbed": ("tests/lab/test_undisturbed.py", "tests/lab/test_no_way_out.py"),
    "deploy": ("tests/lab/test_deploy.py", "tests/lab/test_deploy_badluck.py"),
    "outages": ("tests/lab/test_outages.py",),
    "ends": ("tests/lab/test_ends.py", "tests/lab/test_ends_site.py"),
    "RunInJob": ("tests/lab/run_in_job.py",),
    "penalties": ("tests/lab/penalties.py",),
}
VERSIONS = "versions"
TIMEOUT_S = 2400
Cells = dict[tuple[str, str], str]


def main() -> None:
    """Run what is asked for and say what came out."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--suites", default=",".join(SUITES))
    parser.add_argument("--features", default=",".join(FEATURES))
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--reports", type=Path, default=None)
    asked = parser.parse_args()
    suites, features = asked.suites.split(","), asked.features.split(",")
    if not set(features) <= set(FEATURES):
        parser.error(f"features are {', '.join(FEATURES)}")
    cells: Cells = {}
    for suite in suites:
        cells[VERSIONS, suite] = _versions(suite)
        for feature in features:
            cells[feature, suite] = _run(feature, suite, asked.reports)
            print(f"{suite}, {feature}: {cells[feature, suite]}", file=sys.stderr)
            if asked.write:
                PAGE.write_text(with_cells(PAGE.read_text(), cells, f"{datetime.now().astimezone():%Y-%m-%d}"))
    print("\n".join(_table(cells)))
    sys.exit(any("failed" in cell for cell in cells.values()))


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


def _run(feature: str, suite: str, reports: Path | None) -> str:
    """Return the outcome as a cell of the table."""
    environ = {**{name: value for name, value in os.environ.items() if name != "CI"}, RELEASE_VARIABLE: release(suite)}
    if feature == "demo":
        done = _call([str(Path(sys.executable).parent / "invoke"), "demo"], environ)
        last = (done.stdout.strip().splitlines() or [""])[-1]
        cell = "10 of 10 steps" if done.returncode == 0 else f"**failed**: {last}"
    else:
        with tempfile.NamedTemporaryFile(suffix=".xml") as report:
            command = [sys.executable, "-m", "pytest", "-q", f"--junitxml={report.name}", *FEATURES[feature]]
            done = _call(command, environ)
            cell = outcome(Path(report.name))
    if reports is not None:
        reports.mkdir(parents=True, exist_ok=True)
        name = f"{suite}-{feature}".replace("/", "+").replace(" ", "-")
        (reports / f"{name}.txt").write_text(done.stdout + done.stderr)
    return cell


def _call(command: Sequence[str], environ: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, cwd=ROOT, env=environ, capture_output=True, text=True, timeout=TIMEOUT_S, check=False
    )


def outcome(report: Path) -> str:
    """Return how many passed; those that did not, by name; those that cannot be on this release, with the reason."""
    try:
        cases = list(ET.parse(report).getroot().iter("testcase"))  # noqa: S314 - written by pytest a moment ago
    except ET.ParseError:
        return "**failed**: pytest did not come to its end"
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

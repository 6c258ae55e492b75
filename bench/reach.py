"""What works on which release: the lab's hosts take each Debian release, and each feature's tests run on them.

    python bench/reach.py [--suites bullseye,trixie,forky] [--features demo,jobs,…] [--write]

As root. Prints a table; with `--write` docs/reach.md has it, dated. Ends with 1 if anything failed.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from xml.etree import ElementTree as ET

from hpcproxy.lab import Lab, LabSpec, parse_release
from hpcproxy.lab.spec import RELEASE_VARIABLE

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "reach.md"
BEGIN, END = "<!-- releases: begin -->\n", "<!-- releases: end -->"
SUITES = ("bullseye", "trixie", "forky")
# A feature, and the tests that show it; the demo has its own program.
FEATURES = {
    "demo": (),
    "jobs": ("tests/lab/test_jobs.py",),
    "second user": ("tests/lab/test_second_user.py",),
    "undisturbed": ("tests/lab/test_undisturbed.py", "tests/lab/test_no_way_out.py"),
    "deploy": ("tests/lab/test_deploy.py", "tests/lab/test_deploy_badluck.py"),
    "outages": ("tests/lab/test_outages.py",),
    "ends": ("tests/lab/test_ends.py", "tests/lab/test_ends_site.py"),
}
TIMEOUT_S = 1800


def main() -> None:
    """Run what is asked for and say what came out."""
    known = list(FEATURES)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--suites", default=",".join(SUITES))
    parser.add_argument("--features", default=",".join(known))
    parser.add_argument("--write", action="store_true")
    asked = parser.parse_args()
    suites, features = asked.suites.split(","), asked.features.split(",")
    if not set(features) <= set(known):
        parser.error(f"features are {', '.join(known)}")
    versions = {suite: _versions(suite) for suite in suites}
    cells = {(feature, suite): _told(_run(feature, suite), feature, suite) for suite in suites for feature in features}
    lines = _table(suites, features, versions, cells)
    print("\n".join(lines))
    if asked.write:
        before, _, rest = PAGE.read_text().partition(BEGIN)
        head = f"{datetime.now().astimezone():%Y-%m-%d}\n\n"
        PAGE.write_text(before + BEGIN + head + "\n".join(lines) + "\n" + END + rest.partition(END)[2])
    sys.exit(any("failed" in cell for cell in cells.values()))


def _told(cell: str, feature: str, suite: str) -> str:
    print(f"{suite}, {feature}: {cell}", file=sys.stderr)
    return cell


def _versions(suite: str) -> str:
    """Return what `suite` has, asked of a lab of it."""
    name = f"reach-{os.getpid()}"
    try:
        lab = Lab.up(LabSpec(name=name, nodes=1, release=parse_release(suite)))
        said = [
            lab.run("c1", ["sbatch", "--version"]).stdout.split()[-1],
            lab.run("c1", ["ssh", "-V"]).stderr.split()[0].strip(",").replace("_", " "),
            lab.run("c1", ["python3", "--version"]).stdout.strip(),
            "bash " + lab.run("c1", ["bash", "-c", 'echo "${BASH_VERSION%%(*}"']).stdout.strip(),
        ]
    finally:
        Lab.remove(name)
    return f"Slurm {said[0]}, {', '.join(said[1:])}"


def _run(feature: str, suite: str) -> str:
    """Return the outcome as a cell of the table."""
    environ = {**{name: value for name, value in os.environ.items() if name != "CI"}, RELEASE_VARIABLE: suite}
    if feature == "demo":
        done = _call([str(Path(sys.executable).parent / "invoke"), "demo"], environ)
        last = (done.stdout.strip().splitlines() or [""])[-1]
        return "10 of 10 steps" if done.returncode == 0 else f"**failed**: {last}"
    with tempfile.NamedTemporaryFile(suffix=".xml") as report:
        _call([sys.executable, "-m", "pytest", "-q", f"--junitxml={report.name}", *FEATURES[feature]], environ)
        return outcome(Path(report.name))


def _call(command: Sequence[str], environ: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, cwd=ROOT, env=environ, capture_output=True, text=True, timeout=TIMEOUT_S, check=False
    )


def outcome(report: Path) -> str:
    """Return how many passed; those that did not, by name; those that cannot be on this release, with the reason."""
    cases = ET.parse(report).getroot().iter("testcase")  # noqa: S314 - written by pytest a moment ago
    passed, bad, absent = 0, [], []
    for case in cases:
        skipped = case.find("skipped")
        if case.find("failure") is not None or case.find("error") is not None:
            bad.append(f"`{case.get('name')}`")
        elif skipped is not None:
            absent.append(str(skipped.get("message")))
        else:
            passed += 1
    words = [f"{passed} passed"]
    if absent:
        words.append(f"{len(absent)} not possible: {'; '.join(sorted(set(absent)))}")
    if bad or not passed:
        words.append(f"**{len(bad)} failed**: {', '.join(bad)}")
    return ", ".join(words)


def _table(
    suites: Sequence[str], features: Sequence[str], versions: dict[str, str], cells: dict[tuple[str, str], str]
) -> list[str]:
    rows = [["", *suites], ["---"] * (len(suites) + 1), ["versions", *(versions[suite] for suite in suites)]]
    rows += [[feature, *(cells[feature, suite] for suite in suites)] for feature in features]
    return [f"| {' | '.join(row)} |" for row in rows]


if __name__ == "__main__":
    main()

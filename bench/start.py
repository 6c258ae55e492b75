"""How long `hpcproxy --help` and `hpcproxy status` take, beside `python3 -c pass` in the same run.

    python bench/start.py [--times N] [--programs DIRECTORY]

The commands take turns, so that a busy moment meets all of them, and the median counts. `status` is that of an account
with nothing set up, and of one with our files installed, whose stamp fits. DIRECTORY has another `hpcproxy`. Ends with
1 where a median is beyond its bound: 150 ms for --help, 200 ms for status.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

BOUNDS_MS = {"hpcproxy --help": 150.0, "hpcproxy status": 200.0, "hpcproxy status, set up": 200.0}


def took_ms(argv: list[str], environ: dict[str, str]) -> float:
    """Return how long `argv` takes from its start to its end."""
    began = time.perf_counter()
    subprocess.run(argv, env=environ, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    return 1000 * (time.perf_counter() - began)


def main() -> int:
    """Measure and print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--times", type=int, default=21)
    parser.add_argument("--programs", default=str(Path(sys.executable).parent))
    asked = parser.parse_args()
    program = str(Path(asked.programs) / "hpcproxy")
    with tempfile.TemporaryDirectory(prefix="hpcproxy-bench-") as directory:
        fresh, set_up = (Path(directory, name) for name in ("fresh", "set-up"))
        for home in (fresh, set_up):
            home.mkdir()
        clean = {name: os.environ[name] for name in ("PATH", "LANG", "LC_ALL", "PYTHONPATH") if name in os.environ}
        environs = {home: {**clean, "HOME": str(home), "TMPDIR": directory} for home in (fresh, set_up)}
        installed = [program, "install-bashrc", "--jump", "me@login.example.org"]
        subprocess.run(installed, env=environs[set_up], stdin=subprocess.DEVNULL, capture_output=True, check=True)
        cases = {
            "python3 -c pass": ([sys.executable, "-c", "pass"], fresh),
            "hpcproxy --help": ([program, "--help"], fresh),
            "hpcproxy status": ([program, "status"], fresh),
            "hpcproxy status, set up": ([program, "status"], set_up),
        }
        found: dict[str, list[float]] = {name: [] for name in cases}
        for _ in range(asked.times):
            for name, (argv, home) in cases.items():
                found[name].append(took_ms(argv, environs[home]))
    print(f"{'':26}{'median':>9}{'least':>9}{'bound':>9}   ({asked.times} times each, by turns)")
    for name, values in found.items():
        bound = f"{BOUNDS_MS[name]:.0f} ms" if name in BOUNDS_MS else ""
        print(f"{name:26}{statistics.median(values):6.0f} ms{min(values):6.0f} ms{bound:>9}")
    late = [name for name, bound in BOUNDS_MS.items() if statistics.median(found[name]) > bound]
    for name in late:
        print(f"{name} takes longer than its bound")
    return 1 if late else 0


if __name__ == "__main__":
    sys.exit(main())

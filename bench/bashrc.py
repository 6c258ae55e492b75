"""How much longer does a shell take to start with our block in its .bashrc? Prints milliseconds and the ratio.

    python bench/bashrc.py [RUNS]

Interactive bash with and without the block, in turn, so that what the machine does meanwhile meets both alike.
The promise is at most 2 ms, with a tunnel up or not (docs/design.md).
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

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from hpcproxy.account import verbs  # noqa: E402  not installed where a checkout is measured
from hpcproxy.account.account import Account  # noqa: E402

RUNS = 300
PROMISE_MS = 2.0


def main() -> None:
    """Measure both and say whether the promise holds."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("runs", type=int, nargs="?", default=RUNS, help=f"of each (default {RUNS})")
    runs = parser.parse_args().runs
    with tempfile.TemporaryDirectory() as name:
        plain, ours = Path(name, "plain"), Path(name, "ours")
        for home in (plain, ours):
            home.mkdir()
            (home / ".bashrc").write_text("export A=1\n")
        account = Account.of({"HOME": str(ours)})
        verbs.install_bashrc(account, verbs.settings_of(account, {"jump": ["u@h"]}), dry_run=False)
        times = [(_start_ms(plain), _start_ms(ours)) for _ in range(runs)]
    without, with_ours = (statistics.median(column) for column in zip(*times))
    more = with_ours - without
    ratio = with_ours / without
    print(f"without {without:.2f} ms, with {with_ours:.2f} ms: {more:+.2f} ms, ratio {ratio:.2f}, {runs} runs")
    sys.exit(0 if more <= PROMISE_MS else 1)


def _start_ms(home: Path) -> float:
    """Return how long an interactive bash with this home takes from start to end."""
    environ = {"HOME": str(home), "PATH": os.environ["PATH"], "TMPDIR": str(home)}
    begin = time.perf_counter()
    argv = ["bash", "-i", "-c", ":"]
    subprocess.run(argv, env=environ, check=True, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return (time.perf_counter() - begin) * 1000


if __name__ == "__main__":
    main()

"""Short jobs while an admin enables, deploys, rolls back and undeploys: does one fail, is a node drained? As root.

`python bench/churn.py [--jobs 600] [--rounds 3]`. Prints how many jobs ended during each command, and ends with code 1
if one failed, was held or begun anew, or if a node was drained.
"""

import argparse
import os
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT)]

from hpcproxy.lab import Lab, LabSpec  # noqa: E402
from tests.lab.admin import Admin  # noqa: E402
from tests.lab.churn import churn  # noqa: E402


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", type=int, default=600, help="how many in all (default 600)")
    parser.add_argument("--rounds", type=int, default=3, help="how often the four commands come (default 3)")
    told = parser.parse_args()
    name = f"churn-{os.getpid()}"
    wrong, began = [], time.monotonic()
    try:
        admin = Admin(Lab.up(LabSpec(name=name, nodes=3, node_sshd=True, expose=(ROOT,))))
        for number in range(told.rounds):
            admin.describe()
            print(f"round {number + 1}", flush=True)
            wrong += churn(admin, told.jobs // told.rounds, lambda line: print(f"  {line}", flush=True))
    finally:
        Lab.remove(name)
    for text in wrong:
        print(f"wrong: {text}")
    print(f"{told.jobs} jobs in {time.monotonic() - began:.0f} s, {told.rounds} rounds; wrong: {len(wrong)}")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()

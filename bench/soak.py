"""Many jobs in a row on three nodes: is anything left, does slurmd grow? `python bench/soak.py [--jobs 200]`, as root.

First as many jobs without the hook, then with it, so that what Slurm itself keeps of a job is known. Prints a table and
ends with code 1 if a process, a socket, a file or a drained node is left, or if slurmd grew by more than 4 KiB a job
beyond what the jobs without the hook made it grow.
"""

import argparse
import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT)]

from hpcproxy.lab import Lab, LabSpec  # noqa: E402
from tests.lab import soak  # noqa: E402
from tests.lab.researcher import Researcher, until  # noqa: E402

WARM_UP = 12
MOST_KIB = 4


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", type=int, default=200, help="how many (default 200)")
    jobs = parser.parse_args().jobs
    name = f"soak-{os.getpid()}"
    try:
        lab = Lab.up(LabSpec(name=name, nodes=3, expose=(ROOT,)))
        Researcher(lab).set_up()
        soak.run(lab, WARM_UP)
        looks = [soak.look(lab)]
        for hook in (False, True):
            seconds = soak.run(lab, jobs, hook, lambda left: print(f"\r{left:4} ", end="", file=sys.stderr))
            until(lambda: not soak.difference(looks[0], soak.look(lab)), "nothing is left")
            looks.append(soak.look(lab))
            print(f"\r{jobs} jobs {'with' if hook else 'without'} the hook: {seconds:.0f} s", file=sys.stderr)
        left = soak.difference(looks[0], looks[-1])
    finally:
        Lab.remove(name)
    worst = 0.0
    print("| node | slurmd at first, KiB | after jobs without | after jobs with | more per job with |")
    print("|---|---|---|---|---|")
    for node in looks[0].slurmd_kib:
        first, plain, ours = (look.slurmd_kib[node] for look in looks)
        more = ((ours - plain) - (plain - first)) / jobs
        worst = max(worst, more)
        print(f"| {node} | {first} | {plain} | {ours} | {more:.1f} KiB |")
    for text in left:
        print(f"left: {text}")
    print(f"{jobs} jobs with the hook; left: {len(left)}; {worst:.1f} KiB a job more than without it")
    sys.exit(1 if left or worst > MOST_KIB else 0)


if __name__ == "__main__":
    main()

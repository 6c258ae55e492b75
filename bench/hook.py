"""What does the hook cost a job, beside as many fresh logins at once on the same machine? Needs root.

    python bench/hook.py [--rounds 7] [--nodes 1,8] [--parts]

In a lab (hpcproxy/lab), for each number of nodes N one job that does in turn, some rounds: N times `ssh jump true` at
once from one node, by hand; and the hook on N nodes, from its first command to the job's next. The hook's median may be
at most 1.3 times that of the logins, plus 150 ms, and plus one login by itself where one node goes first (more than
four). `--parts` adds where the time goes: an empty step of N nodes, and the
same with a login in it. Exit code 1 if a bound is missed.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import statistics
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from hpcproxy.lab import Lab, LabSpec  # noqa: E402  not installed where a checkout is measured
from tests.lab.researcher import JUMP1, Researcher  # noqa: E402

FACTOR, GRACE_MS = 1.3, 150
AT_ONCE = 4  # hold_others_back in templates/lib/step/waiting.sh
KNOWN_HOSTS = "/home/alice/.hpcproxy/known_hosts"
LOGIN = f"ssh -o BatchMode=yes -o StrictHostKeyChecking=yes -o UserKnownHostsFile={KNOWN_HOSTS} {JUMP1} true"
BODY = """
now() { now=${EPOCHREALTIME/[.,]/}; }
took() { local begun=$now; now; printf '%s %d\\n' "$1" $((now - begun)); }
logins() {
    local n pids=()
    for ((n = 0; n < nodes; n++)); do
        $login &
        pids+=($!)
    done
    for n in "${pids[@]}"; do wait "$n" || exit 1; done
}
options="--overlap --mem=0 --gres=none --mpi=none --cpu-bind=none --ntasks-per-node=1"
step() { srun $options -n "$nodes" -N "$nodes" "$@" </dev/null; }
for ((round = 0; round < rounds; round++)); do
    now; logins; took logins
    now; $login || exit 1; took first
    now; . ~/.hpcproxy/prologue.sh; took hook
    if [[ -z ${http_proxy-} ]]; then exit 1; fi
    . ~/.hpcproxy/epilogue.sh 2>/dev/null
    if ((parts)); then
        now; step true; took step
        now; step $login || exit 1; took "step+login"
    fi
done
"""


def main() -> None:
    """Print the table; 1 if a bound is missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7, help="of each number of nodes (default 7)")
    parser.add_argument("--nodes", default="1,8", help="numbers of nodes (default 1,8)")
    parser.add_argument("--parts", action="store_true", help="also where the time goes")
    options = parser.parse_args()
    counts = [int(word) for word in options.nodes.split(",")]
    good = True
    with _lab(max(counts)) as lab:
        alice = Researcher(lab)
        alice.set_up()
        print(f"medians of {options.rounds} rounds")
        print(f"{'nodes':>5} {'logins ms':>10} {'hook ms':>10} {'ratio':>6} {'bound ms':>9}")
        for count in counts:
            times = _measure(alice, count, options.rounds, options.parts)
            logins, first, hook = (statistics.median(times[name]) for name in ("logins", "first", "hook"))
            bound = FACTOR * (logins + (first if count > AT_ONCE else 0)) + GRACE_MS
            kept = hook <= bound
            good = good and kept
            print(
                f"{count:5} {logins:10.0f} {hook:10.0f} {hook / logins:6.2f} {bound:9.0f}  {'ok' if kept else 'missed'}"
            )
            for name, values in times.items():
                shown = " ".join(f"{value:.0f}" for value in sorted(values))
                print(f"      {name:12} {statistics.median(values):6.0f} ms  ({shown})")
    sys.exit(0 if good else 1)


@contextlib.contextmanager
def _lab(nodes: int) -> Iterator[Lab]:
    name = f"bench-hook-{os.getpid()}"
    try:
        yield Lab.up(LabSpec(name=name, nodes=nodes, expose=(ROOT,)), lambda step: print(step, file=sys.stderr))
    finally:
        Lab.remove(name)


def _measure(alice: Researcher, count: int, rounds: int, parts: bool) -> dict[str, list[float]]:
    """Milliseconds of each part in each round."""
    head = f"#!/bin/bash\n#SBATCH -N{count} --ntasks-per-node=1 --exclusive\n"
    given = f"nodes={count} rounds={rounds + 1} parts={int(parts)} login='{LOGIN}'\n"
    result = alice.lab.wait_job(alice.lab.submit(head + given + BODY), timeout_s=600)
    if result.state != "COMPLETED":
        sys.exit(f"the job is {result.state}: {result.output}")
    times: dict[str, list[float]] = {}
    for line in result.output.splitlines():
        name, _, micro = line.partition(" ")
        if micro.isdecimal():
            times.setdefault(name, []).append(int(micro) / 1000)
    return {name: values[1:] for name, values in times.items()}  # the first warms up


if __name__ == "__main__":
    main()

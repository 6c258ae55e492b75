"""Eight curl at once in a real job: the agent beside plain `ssh -D`, same cipher. `python bench/job.py`, as root.

    python bench/job.py [--streams 8] [--mb 256] [--rounds 6]

In a lab (hpcproxy/lab) one job on one node: real Slurm, a real login through a real sshd, real curl. In each round the
ways take turns (one `ssh -D`, CONNECT, plain http, another `ssh -D`; in the next round the other way round), each with
so many downloads of so many MB at once. A round's ratio is a way's rate by the mean of the two `ssh -D`; the figure is
the median of the rounds. `ssh -D by itself` shows what such a ratio is worth in that run. Exit code 1 if one with a
bound is missed.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from hpcproxy.lab import Lab, LabSpec  # noqa: E402  not installed where a checkout is measured
from tests.lab.researcher import JUMP1, Researcher  # noqa: E402

BOUNDS = {"CONNECT": 0.98, "plain http": 1.0}
# Runs in the job; prints a line of JSON for each round: seconds of [one ssh -D, CONNECT, plain http, another ssh -D].
CLIENT = r"""
import json, os, pathlib, signal, socket, subprocess, sys, time

jump, streams, mb, rounds = sys.argv[1], *map(int, sys.argv[2:])
url = f"http://internet.test/bytes/{mb * 1000000}"
agent = os.environ.pop("http_proxy")
for name in ("HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "no_proxy", "NO_PROXY"):
    os.environ.pop(name, None)

def cipher():
    for path in pathlib.Path("/proc").glob("[0-9]*/cmdline"):
        for word in path.read_bytes().split(b"\0"):
            if word.startswith(b"Ciphers="):
                return word.decode()
    raise SystemExit("the tunnel names no cipher")

def plain(port):
    words = ["ssh", "-F", "none", "-N", "-D", f"127.0.0.1:{port}", "-o", cipher(), "-o", "BatchMode=yes"]
    words += ["-o", "UserKnownHostsFile=" + os.path.expanduser("~/.hpcproxy/known_hosts"), jump]
    process = subprocess.Popen(words, stdin=subprocess.DEVNULL, start_new_session=True)
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return process
        except OSError:
            time.sleep(0.05)

def seconds(options):
    began = time.monotonic()
    words = ["curl", "-sS", "--fail", "-o", "/dev/null", *options, url]
    curls = [subprocess.Popen(words) for _ in range(streams)]
    assert [curl.wait() for curl in curls] == [0] * streams
    return time.monotonic() - began

held = [plain(11080), plain(11081)]
one, other = (["--socks5-hostname", f"127.0.0.1:{port}"] for port in (11080, 11081))
ways = [one, ["-p", "-x", agent], ["-x", agent], other]
for number in range(rounds + 1):
    took = [0.0] * 4
    for way in (range(4), reversed(range(4)))[number % 2]:
        took[way] = seconds(ways[way])
    if number:  # the first is to warm up
        print(json.dumps(took), flush=True)
for process in held:
    process.terminate()
"""


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--streams", type=int, default=8, help="downloads at once (default 8)")
    parser.add_argument("--mb", type=int, default=256, help="MB of each (default 256)")
    parser.add_argument("--rounds", type=int, default=6, help="rounds (default 6)")
    options = parser.parse_args()
    rounds = measure(options)
    size = options.streams * options.mb
    plain = [size * (1 / took[0] + 1 / took[3]) / 2 for took in rounds]
    ratios = {
        "CONNECT": [size / took[1] / rate for took, rate in zip(rounds, plain)],
        "plain http": [size / took[2] / rate for took, rate in zip(rounds, plain)],
        "ssh -D by itself": [took[3] / took[0] for took in rounds],
    }
    print(f"{options.streams} curl of {options.mb} MB in a job; ssh -D: {statistics.median(plain):.0f} MB/s")
    print("| way | by ssh -D | quartiles | bound | |")
    print("|---|---|---|---|---|")
    for name, each in ratios.items():
        each.sort()
        value, bound = statistics.median(each), BOUNDS.get(name)
        verdict = "" if bound is None else "ok" if value >= bound else "MISSED"
        spread = f"{each[len(each) // 4]:.3f} - {each[-1 - len(each) // 4]:.3f}"
        print(f"| {name} | {value:.3f} | {spread} | {bound or ''} | {verdict} |")
    return int(any(statistics.median(ratios[name]) < bound for name, bound in BOUNDS.items()))


def measure(options: argparse.Namespace) -> list[list[float]]:
    """Return for each round the seconds that each way took."""
    name = f"job-{os.getpid()}"
    try:
        lab = Lab.up(LabSpec(name=name, nodes=1, expose=(ROOT,)))
        alice = Researcher(lab)
        alice.set_up()
        numbers = f"{options.streams} {options.mb} {options.rounds}"
        body = f"python3 - {JUMP1} {numbers} <<'END'\n{CLIENT}END\n"
        result = lab.wait_job(alice.submit(body, "#SBATCH -N1 --exclusive --time=30"), 1800)
    finally:
        Lab.remove(name)
    if result.state != "COMPLETED":
        raise SystemExit(f"the job ended as {result.state}:\n{result.output}")
    return [json.loads(line) for line in result.output.splitlines() if line.startswith("[")]


if __name__ == "__main__":
    sys.exit(main())

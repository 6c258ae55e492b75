"""Many tunnels opened at the same moment against one stock sshd, MaxStartups 10:30:100. Needs root.

    python bench/many_tunnels.py [--count 512] [--without-agent N] [--wait 900]

Four crowds in turn, each in the same network namespace, of `--count` tunnels:
  naive     plain `ssh -N -D`, all at once, as a script would
  paced     plain `ssh -N -D`, never more than eight on their way: what nobody can do who knows nothing of the others
  one job   real supervisors (tunnel.sh and the agent), which believe to be the nodes of one job
  jobs      real supervisors, each of a job of one node
Printed: how many came up, seconds until the last did, connections that sshd saw and how many of them it refused,
and the memory of all that the crowd is (PSS). Exit code 1 unless every supervisor came up. `--without-agent` gives that
many supervisors of the last two crowds no agent (ssh itself listens), for machines with little memory.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import resource
import selectors
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tests.sshd import make_key  # noqa: E402
from tests.supervisor import write_script  # noqa: E402  not installed where a checkout is measured

PORT, SSH_PORT = 2015, 2222
WINDOW = 8
FIRST_JOB = 100_000


@dataclass(frozen=True)
class Row:
    """What became of one crowd."""

    name: str
    up: int
    seconds: float
    seen: int
    refused: int
    megabytes: float


class Server:
    """The sshd, and what it wrote down since `mark`."""

    def __init__(self, work: Path) -> None:
        self.work, self.log = work, work / "sshd.log"
        for name in ("host_key", "id"):
            make_key(work / name)
        shutil.copy(work / "id.pub", work / "authorized_keys")
        key = " ".join((work / "host_key.pub").read_text().split()[:2])
        self.known_hosts = f"[127.0.0.1]:{SSH_PORT} {key}\n"
        (work / "known_hosts").write_text(self.known_hosts)
        # Stock but for where things are and what is written down: MaxStartups, LoginGraceTime and all else as built in.
        lines = [f"Port {SSH_PORT}", "ListenAddress 127.0.0.1", f"HostKey {work}/host_key", "PidFile none", "UsePAM no"]
        lines += [f"AuthorizedKeysFile {work}/authorized_keys", "StrictModes no", "LogLevel VERBOSE"]
        (work / "sshd_config").write_text("".join(f"{line}\n" for line in lines))
        Path("/run/sshd").mkdir(exist_ok=True)
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        argv = ["/usr/sbin/sshd", "-D", "-E", str(self.log), "-f", str(self.work / "sshd_config")]
        self.log.write_text("")
        self.process = subprocess.Popen(argv)
        _until(lambda: "listening" in self.log.read_text(), "sshd listens", 20)

    def stop(self) -> None:
        assert self.process is not None
        self.process.terminate()
        self.process.wait()

    def counts(self) -> tuple[int, int]:
        """Connections seen, and those of them that were refused."""
        text = self.log.read_text()
        refused = len(re.findall(r"(?m)drop connection #", text))
        return len(re.findall(r"(?m)^Connection from ", text)) + refused, refused


def main() -> None:
    """Print the table; 1 unless all supervisors came up."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=512)
    parser.add_argument("--without-agent", type=int, default=0)
    parser.add_argument("--wait", type=float, default=900, help="seconds a crowd is waited for at most (default 900)")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if not options.inside:
        # Everything in namespaces of this process: nothing of the bench outlives it, and nothing is seen outside.
        words = ["unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", sys.executable]
        raise SystemExit(subprocess.call([*words, *sys.argv, "--inside"]))
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    print(f"{'crowd':10} {'up':>9} {'last after s':>13} {'connections':>12} {'refused':>8} {'memory MB':>10}")
    rows = []
    with tempfile.TemporaryDirectory(prefix="crowd-", dir="/tmp") as name:  # short: sockets have names there
        work = Path(name)
        crowds: list[tuple[str, Callable[[Path, argparse.Namespace], Iterator[int]]]] = [
            ("naive", _naive),
            ("paced", _paced),
            ("one job", lambda work, options: _supervisors(work, options, options.count)),
            ("jobs", lambda work, options: _supervisors(work, options, 1)),
        ]
        for crowd_name, crowd in crowds:
            rows.append(_run(crowd_name, work / crowd_name.replace(" ", "-"), crowd, options))
            _print(rows[-1], rows, options.count)
    sys.exit(0 if all(row.up == options.count for row in rows[2:]) else 1)


def _print(row: Row, rows: list[Row], count: int) -> None:
    """One line; for the supervisors with what it is beside the paced crowd."""
    words = (
        f"{row.name:10} {row.up:>4}/{count:<4} {row.seconds:13.1f} {row.seen:12} {row.refused:8} {row.megabytes:10.0f}"
    )
    if len(rows) > 2:
        paced = rows[1]
        words += (
            f"  {row.seconds / paced.seconds:.2f} x the time, {row.seen / paced.seen:.2f} x the connections of paced"
        )
        words += f"  {'ok' if row.up == count else 'missed'}"
    print(words, flush=True)


def _run(
    name: str, work: Path, crowd: Callable[[Path, argparse.Namespace], Iterator[int]], options: argparse.Namespace
) -> Row:
    """Let the crowd run: it yields how many are up, again and again, until it has nothing more to hope for."""
    work.mkdir()
    server = Server(work)
    server.start()
    begun = time.monotonic()
    up, last = 0, begun
    for now in crowd(work, options):
        if now > up:
            up, last = now, time.monotonic()
        if up == options.count or time.monotonic() - begun > options.wait:
            break
    memory = _memory()
    seen, refused = server.counts()
    server.stop()
    _end_all()
    return Row(name, up, last - begun, seen, refused, memory)


def _plain(work: Path, number: int) -> list[str]:
    options = [
        "BatchMode=yes",
        "StrictHostKeyChecking=yes",
        f"UserKnownHostsFile={work}/known_hosts",
        "IdentityAgent=none",
    ]
    options += ["IdentitiesOnly=yes", "ExitOnForwardFailure=yes"]
    words = [word for option in options for word in ("-o", option)]
    listen = f"127.{64 + number // 250}.1.{number % 250 + 1}:{PORT}"
    return ["ssh", "-F", "none", "-N", "-D", listen, "-i", f"{work}/id", *words, "-p", str(SSH_PORT), "root@127.0.0.1"]


def _listeners() -> int:
    """How many of the plain tunnels' ports are there."""
    lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
    return sum(1 for line in lines if f":{PORT:04X} 00000000:0000 0A" in line)


def _naive(work: Path, options: argparse.Namespace) -> Iterator[int]:
    started = [_start(_plain(work, number), work) for number in range(options.count)]
    while True:
        alive = sum(1 for process in started if process.poll() is None)
        up = _listeners()
        yield up
        if up == alive:
            return
        time.sleep(0.05)


def _paced(work: Path, options: argparse.Namespace) -> Iterator[int]:
    started: list[subprocess.Popen[bytes]] = []
    while True:
        up = _listeners()
        yield up
        while len(started) < options.count and len(started) - up < WINDOW:
            started.append(_start(_plain(work, len(started)), work))
        time.sleep(0.01)


def _supervisors(work: Path, options: argparse.Namespace, nodes: int) -> Iterator[int]:
    """Supervisors whose job has so many nodes. Their jobs differ, for they are all on one node and need addresses."""
    known = (work / "known_hosts").read_text()
    # As configured by default; QUICK is for tests.
    times = {"connect_timeout_s": 10, "retry_max_s": 30, "alive_interval_s": 5, "alive_count": 3}
    shared = {"jump": f"root@127.0.0.1:{SSH_PORT}", "identity": str(work / "id"), "port": PORT, **times}
    scripts = [write_script(work / f"agent-{agent}", known, agent=agent, **shared) for agent in (True, False)]
    (work / "t").mkdir()
    inner, outer = os.pipe()
    for number in range(options.count):
        environ = {"TMPDIR": str(work / "t"), "HOME": str(work), "SLURMD_NODENAME": f"n{number}"}
        environ |= {
            "SLURM_JOB_NUM_NODES": str(nodes),
            "SLURM_NNODES": str(nodes),
            "SLURM_JOB_ID": str(FIRST_JOB + number),
        }
        script = scripts[number < options.without_agent]
        argv = ["/bin/bash", "-p", str(script), "hold", str(FIRST_JOB + number), "0"]
        _start(argv, work, stdout=outer, env={"PATH": os.environ["PATH"], **environ})
    os.close(outer)
    ready: set[bytes] = set()
    rest = b""
    with selectors.DefaultSelector() as selector:
        selector.register(inner, selectors.EVENT_READ)
        while True:
            yield len(ready)
            if not selector.select(0.5):
                continue
            data = os.read(inner, 65536)
            if not data:
                return  # not one supervisor is left
            *lines, rest = (rest + data).split(b"\n")
            ready |= {line.split()[1] for line in lines if line.startswith(b"ready ")}


def _start(argv: list[str], work: Path, **options: object) -> subprocess.Popen[bytes]:
    with (work / "stderr").open("ab") as errors:
        return subprocess.Popen(argv, stdin=subprocess.DEVNULL, stderr=errors, start_new_session=True, **options)  # type: ignore[call-overload]


def _others() -> list[int]:
    """The processes of this PID namespace, all of which the bench has made: it is the first itself."""
    return [int(path.name) for path in Path("/proc").glob("[0-9]*") if path.name != "1"]


def _memory() -> float:
    """Proportional set size of all processes here but this one, sshd's included; megabytes."""
    total = 0
    for pid in _others():
        try:
            text = Path(f"/proc/{pid}/smaps_rollup").read_text()
        except OSError:
            continue
        found = re.search(r"(?m)^Pss:\s+(\d+)", text)
        total += int(found[1]) if found else 0
    return total / 1024


def _end_all() -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        for pid in _others():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
        deadline = time.monotonic() + 20
        while _others() and time.monotonic() < deadline:
            with contextlib.suppress(ChildProcessError):
                while os.waitpid(-1, os.WNOHANG)[0]:
                    pass
            time.sleep(0.05)


def _until(condition: Callable[[], object], what: str, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            sys.exit(f"not within {seconds:g} s: {what}")
        time.sleep(0.02)


if __name__ == "__main__":
    main()

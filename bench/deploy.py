"""Deploy to many sshd at once and compare with a loop over ssh that sends the same archive, in one session. Needs root.

    python bench/deploy.py [--hosts 64,256] [--rounds 3] [--fanout 16] [--others]

All hosts are addresses of one sshd in a network namespace; each gives its sessions a file system of its own (an overlay
on `/`, by `ForceCommand unshare`), so that every host is written to for real. The loop runs `tar -x` there.

Runs of both are interleaved. A ratio is the median over the rounds of one round's ratio; CPU and memory are the
client's, children included, the median; round trips a host are counted as direction changes of TCP payload. The bounds
are the project's own; the exit code is 0 only if all hold. `--others` adds what admins use today, installed from PyPI
into a directory that goes afterwards, and takes some minutes.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import socket
import statistics
import struct
import subprocess
import sys
import sysconfig
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from others import Others, install_others

# Nothing of the package is imported here: a child begins with its parent's peak memory.
ROOT = Path(__file__).resolve().parent.parent
NETWORK = "10.99"
PORT = 22
LIMIT_S = 300
OTHERS_LIMIT_S = 1800
OURS, LOOP = "hpcproxy", "loop over ssh"
FIRST, AGAIN = "first", "again"


@dataclass(frozen=True)
class Run:
    """One run of a tool: wall seconds, the client's CPU seconds, its peak memory."""

    wall_s: float
    cpu_s: float
    peak_mb: float


def main() -> None:
    """Print the tables; exit code 1 if a bound is missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--hosts", default="64,256", help="how many, one or several numbers")
    parser.add_argument("--rounds", type=int, default=3, help="how often each is run")
    parser.add_argument("--fanout", type=int, default=16, help="how many at once")
    parser.add_argument("--others", action="store_true", help="with clush, pyinfra and Ansible, with the first --hosts")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if not options.inside:
        # Everything in namespaces of this process: nothing of the bench outlives it, and nothing is seen outside. What
        # comes from PyPI is fetched before, for there is no network inside.
        with tempfile.TemporaryDirectory() as name:
            installed = _install(Path(name))
            others = install_others(Path(name)) if options.others else ""
            words = ["unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", sys.executable]
            environ = {**os.environ, "BENCH_INSTALLED": installed, "BENCH_OTHERS": others}
            raise SystemExit(subprocess.call([*words, *sys.argv, "--inside"], env=environ))
    held = True
    others = Path(os.environ["BENCH_OTHERS"]) if os.environ.get("BENCH_OTHERS") else None
    for count in map(int, options.hosts.split(",")):
        with tempfile.TemporaryDirectory() as name, _servers(Path(name), count) as hosts:
            bench = Bench(Path(name), hosts, options.rounds, options.fanout)
            held = bench.compare() and held
            if others:
                bench.compare_others(others)
                others = None
    raise SystemExit(0 if held else 1)


# ---- hosts


@contextmanager
def _servers(work: Path, count: int) -> Iterator[list[str]]:
    """Addresses of `count` hosts, each with a file system of its own, behind one sshd."""
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    hosts = [f"{NETWORK}.{number // 250}.{number % 250 + 1}" for number in range(count)]
    for host in hosts:
        subprocess.run(["ip", "address", "replace", f"{host}/32", "dev", "lo"], check=True)
    # Each host of a cluster has a disk of its own; here they would all wait for one.
    (work / "hosts").mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "none", str(work / "hosts")], check=True)
    for key in ("host_key", "id"):
        argv = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(work / key)]
        subprocess.run(argv, check=True, stdin=subprocess.DEVNULL)
    shutil.copy(work / "id.pub", work / "authorized_keys")
    key = " ".join((work / "host_key.pub").read_text().split()[:2])
    (work / "known_hosts").write_text("".join(f"{host} {key}\n" for host in hosts) + f"192.0.2.1 {key}\n")
    (work / "session").write_text(SESSION.format(hosts=work / "hosts"))
    (work / "session").chmod(0o755)
    config = [
        *(f"ListenAddress 0.0.0.0:{PORT}", f"HostKey {work}/host_key", f"AuthorizedKeysFile {work}/authorized_keys"),
        *("UsePAM no", "StrictModes no", "PermitRootLogin yes", "MaxStartups 1000", "PidFile none", "UseDNS no"),
        *(f"ForceCommand {work}/session", "Subsystem sftp internal-sftp", "MaxSessions 100"),
    ]
    subprocess.run(["mount", "--bind", "/dev/null", "/root/.bashrc"], check=False)
    (work / "sshd_config").write_text("".join(f"{line}\n" for line in config))
    Path("/run/sshd").mkdir(exist_ok=True)
    server = subprocess.Popen(
        ["/usr/sbin/sshd", "-D", "-e", "-f", str(work / "sshd_config")], stderr=subprocess.DEVNULL
    )
    try:
        _await(hosts[0])
        yield hosts
    finally:
        server.terminate()
        server.wait()
        subprocess.run(["umount", "--lazy", str(work / "hosts")], check=True)


# What every session runs in: a root of the host's own, and nothing of what this machine's root has in .bashrc.
# ForceCommand comes before sftp, so it is asked for here.
SESSION = """#!/bin/bash
read -r _ _ host _ <<<"$SSH_CONNECTION"
command=$SSH_ORIGINAL_COMMAND
[[ $command != internal-sftp ]] || command=/usr/lib/openssh/sftp-server
exec unshare --mount /bin/bash --norc -c '
mount -t overlay overlay -o lowerdir=/,upperdir="$0"/up,workdir="$0"/work "$0"/root &&
    mount --rbind /proc "$0"/root/proc && mount --rbind /dev "$0"/root/dev &&
    exec chroot "$0"/root /bin/bash --norc -c "$1"
' {hosts}/"$host" "$command"
"""


def _await(host: str) -> None:
    deadline = time.monotonic() + 10
    while not _greets(host):
        if time.monotonic() > deadline:
            raise SystemExit("sshd does not answer")
        time.sleep(0.01)


def _greets(host: str) -> bool:
    try:
        with socket.create_connection((host, PORT), timeout=1) as client:
            return bool(client.recv(4))
    except OSError:
        return False


# ---- the runs


# The yardstick: ssh to every host, so many at once, the archive on stdin, unpacked by tar.
LOOP_SCRIPT = """#!/bin/bash
work=$1 fanout=$2 code=0 running=0
shift 2
for host; do
    if ((running >= fanout)); then wait -n || code=1; else running=$((running + 1)); fi
    ssh -F /dev/null -i "$work/id" -o BatchMode=yes -o UserKnownHostsFile="$work/known_hosts" \\
        -o KexAlgorithms=curve25519-sha256 -o StrictHostKeyChecking=yes -l root "$host" \\
        'mkdir -p /usr/libexec/hpcproxy && tar -xzf - -C /usr/libexec/hpcproxy' <"$work/archive.tar.gz" &
done
for ((; running > 0; running--)); do wait -n || code=1; done
exit "$code"
"""

# Writes the loop's archive, and for the other tools each file with its place and mode.
WRITE_FILES = """
import json, sys
from pathlib import Path
from hpcproxy import run, wire
work = Path(sys.argv[1])
files = run.read_site(run.Request(work / "site.yaml")).bundle.files
(work / "archive.tar.gz").write_bytes(wire.archive(files, wire.Place(wire.STORE, wire.LOCK_FILE)))
(work / "files").mkdir()
for number, file in enumerate(files):
    (work / "files" / str(number)).write_bytes(file.content)
places = [(str(file.artifact.path), f"{file.artifact.mode:04o}") for file in files]
(work / "files.json").write_text(json.dumps(places))
"""


def _run(argv: Sequence[str], environ: dict[str, str] | None = None, limit_s: int = LIMIT_S) -> Run:
    """Run a tool to its end; one that hangs is ended, and what each of a Python program's threads did is shown."""
    environ = {**(environ or os.environ), "PYTHONFAULTHANDLER": "1"}
    began = time.monotonic()
    process = subprocess.Popen(
        argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environ, cwd="/", start_new_session=True
    )
    ends = {limit_s: signal.SIGABRT, limit_s + 5: signal.SIGKILL}
    limits = [threading.Timer(after_s, os.killpg, (process.pid, number)) for after_s, number in ends.items()]
    for limit in limits:
        limit.start()
    try:
        said = process.stdout.read() if process.stdout else b""
        _, status, usage = os.wait4(process.pid, 0)
    finally:
        for limit in limits:
            limit.cancel()
    process.returncode = os.waitstatus_to_exitcode(status)
    wall_s = time.monotonic() - began
    if status:
        raise SystemExit(f"{argv[:5]} failed after {wall_s:.0f} s: {said.decode(errors='replace')[-8000:]}")
    return Run(wall_s, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)


class Bench:
    """Both tools on the same hosts."""

    def __init__(self, work: Path, hosts: list[str], rounds: int, fanout: int) -> None:
        self.work, self.hosts, self.rounds, self.fanout = work, hosts, rounds, fanout
        told = {"nodes": ",".join(hosts), "identity": str(work / "id"), "settings": {"jump": "192.0.2.1"}}
        (work / "site.yaml").write_text(json.dumps(told))  # which is YAML too
        (work / "loop").write_text(LOOP_SCRIPT)
        programs = os.environ["BENCH_INSTALLED"]
        subprocess.run([f"{programs}/python", "-c", WRITE_FILES, str(work)], check=True, cwd="/")
        self.ours = [f"{programs}/hpcproxy", "deploy", "--inventory", str(work / "site.yaml")]
        self.ours += ["--fanout", str(fanout)]
        self.loop = ["/bin/bash", str(work / "loop"), str(work), str(fanout), *hosts]

    def reset(self) -> None:
        """No host has anything."""
        for host in self.hosts:
            shutil.rmtree(self.work / "hosts" / host, ignore_errors=True)
            for part in ("up", "work", "root"):
                (self.work / "hosts" / host / part).mkdir(parents=True)

    def compare(self) -> bool:
        """Print the table of both tools and the bounds; return whether all hold."""
        tools = {OURS: self.ours, LOOP: self.loop}
        runs: dict[tuple[str, str], list[Run]] = {}
        self.reset()
        for argv in (self.loop, self.ours):  # once for the page cache
            _run(argv)
        for number in range(self.rounds):
            for tool in sorted(tools, reverse=bool(number % 2)):
                self.reset()
                for which in (FIRST, AGAIN):
                    runs.setdefault((tool, which), []).append(_run(tools[tool]))
        cores = f"{os.cpu_count()} cores for both ends"
        print(f"\n{len(self.hosts)} hosts, {self.fanout} at once, median of {self.rounds}, {cores}")
        print(f"{'':26} {'wall s':>8} {'CPU s':>8} {'peak MB':>8}")
        for (tool, which), found in sorted(runs.items()):
            _show(f"{tool}, {which}", found)
        return self._judge(runs)

    def _judge(self, runs: dict[tuple[str, str], list[Run]]) -> bool:
        def ratio(which: str) -> float:
            pairs = zip(runs[OURS, which], runs[LOOP, which])
            return statistics.median(ours.wall_s / loop.wall_s for ours, loop in pairs)

        def worst(value: Callable[[Run], float]) -> float:
            return max(statistics.median(map(value, runs[OURS, which])) for which in (FIRST, AGAIN))

        trips = _round_trips(self.hosts[0], [*self.ours, "--limit", self.hosts[0]])
        rows = [
            ("first deploy, times the loop", ratio(FIRST), 1.25, "{:.2f}"),
            ("nothing to change, times the loop", ratio(AGAIN), 1.0, "{:.2f}"),
            ("client's CPU, s", worst(lambda run: run.cpu_s), 0.2 + 0.005 * len(self.hosts), "{:.2f}"),
            ("client's memory, MB", worst(lambda run: run.peak_mb), 60, "{:.0f}"),
            ("round trips a host", trips, 8, "{:.0f}"),
        ]
        print(f"{'':38} {'measured':>8} {'bound':>8}")
        for name, value, bound, form in rows:
            verdict = "ok" if value <= bound else "missed"
            print(f"{name:38} {form.format(value):>8} {form.format(bound):>8}  {verdict}", flush=True)
        return all(value <= bound for _, value, bound, _ in rows)

    def compare_others(self, tools: Path) -> None:
        """Print what others take for the same files, once each.

        The directories are there already: an sftp session has a mount of its own and sees none that is made later.
        """
        others = Others(tools, self.work, self.hosts, self.fanout)
        for name, argv in others.commands().items():
            self.reset()
            for host in self.hosts:
                for path, _ in others.places:
                    (self.work / "hosts" / host / "up" / path.lstrip("/")).parent.mkdir(parents=True, exist_ok=True)
            try:
                for which in (FIRST, AGAIN):
                    _show(f"{name}, {which}", [_run(argv, others.environ, OTHERS_LIMIT_S)])
            except SystemExit as error:  # the others' figures are wanted all the same
                print(f"{name}: {error}", flush=True)


def _show(name: str, found: list[Run]) -> None:
    fields = ("wall_s", "cpu_s", "peak_mb")
    wall, cpu, peak = (statistics.median(getattr(run, field) for run in found) for field in fields)
    print(f"{name:26} {wall:8.2f} {cpu:8.2f} {peak:8.0f}", flush=True)


def _install(place: Path) -> str:
    """Return where the programs of an environment are that has the package as `pip install` leaves it.

    What it needs is taken from the one that runs this, which has the package editable: every start of it pays for that.
    """
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(place / "installed")], check=True)
    (packages,) = (place / "installed").glob("lib/python3*/site-packages")
    (packages / "needs.pth").write_text(f"{sysconfig.get_path('purelib')}\n")
    shutil.copytree(ROOT / "hpcproxy", packages / "hpcproxy")  # with the templates, to which a link leads
    subprocess.run([sys.executable, "-m", "compileall", "-q", str(packages / "hpcproxy")], check=True)
    programs = place / "installed/bin"
    (programs / "hpcproxy").write_text(f"#!{programs}/python\nfrom hpcproxy.__main__ import main\n\nmain()\n")
    (programs / "hpcproxy").chmod(0o755)
    return str(programs)


def _round_trips(host: str, argv: list[str]) -> int:
    """How often the direction of payload turns from the host's to ours, in a run that finds nothing to change."""
    _run(argv)
    sniffer = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(0x0800))
    sniffer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 24)
    sniffer.bind(("lo", 0x0800))
    turns: list[bool] = []
    ended = threading.Event()
    address = socket.inet_aton(host)

    def listen() -> None:
        sniffer.settimeout(0.2)
        while not ended.is_set():
            try:
                packet, origin = sniffer.recvfrom(65536)
            except TimeoutError:
                continue
            header = (packet[0] & 15) * 4
            if packet[9] != socket.IPPROTO_TCP or origin[2] == socket.PACKET_OUTGOING:
                continue
            source, target = struct.unpack("!HH", packet[header : header + 4])
            payload = len(packet) - header - (packet[header + 12] >> 4) * 4
            from_host = packet[12:16] == address and source == PORT
            to_host = packet[16:20] == address and target == PORT
            if payload > 0 and (from_host or to_host):
                turns.append(to_host)

    thread = threading.Thread(target=listen)
    thread.start()
    try:
        _run(argv)
        time.sleep(0.3)
    finally:  # else a run that fails would leave a bench that never ends
        ended.set()
        thread.join()
        sniffer.close()
    return sum(1 for before, after in zip(turns, turns[1:]) if before and not after)


if __name__ == "__main__":
    main()

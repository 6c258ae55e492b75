"""Deploy to many sshd at once and compare with a loop over ssh that sends the same archive, in one session. Needs root.

    python bench/deploy.py [--hosts 64] [--rounds 3] [--fanout 16]

All hosts are addresses of one sshd in a network namespace of its own; each gives its sessions files of its own by a
mount namespace (`ForceCommand unshare`), so that every host is written to for real. The loop runs `tar -x` there.
Printed for both, the best of some rounds, interleaved: wall seconds of the first deploy and of one with nothing to
change, CPU seconds and peak memory of the client; and round trips a host, counted as direction changes of TCP payload.
"""

from __future__ import annotations

import argparse
import os
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import yaml

from hpcproxy import rollout, wire

NAMESPACE = "hpcproxy-bench"
NETWORK = "10.99"
PORT = 22


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--hosts", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--fanout", type=int, default=16)
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if not options.inside:
        # Everything in namespaces of this process: nothing of the bench outlives it, and nothing is seen outside.
        words = ["unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", sys.executable]
        raise SystemExit(subprocess.call([*words, *sys.argv, "--inside"]))
    with tempfile.TemporaryDirectory() as name, _servers(Path(name), options.hosts) as hosts:
        _compare(Path(name), hosts, options.rounds, options.fanout)


@contextmanager
def _servers(work: Path, count: int) -> Iterator[list[str]]:
    """Addresses of `count` hosts, each with a store of its own, behind one sshd."""
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    hosts = [f"{NETWORK}.{number // 250}.{number % 250 + 1}" for number in range(count)]
    for host in hosts:
        subprocess.run(["ip", "address", "add", f"{host}/32", "dev", "lo"], check=True)
    # Each host of a cluster has a disk of its own; here they would all wait for one.
    (work / "hosts").mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "none", str(work / "hosts")], check=True)
    for key in ("host_key", "id"):
        argv = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(work / key)]
        subprocess.run(argv, check=True, stdin=subprocess.DEVNULL)
    shutil.copy(work / "id.pub", work / "authorized_keys")
    key = " ".join((work / "host_key.pub").read_text().split()[:2])
    (work / "known_hosts").write_text("".join(f"{host} {key}\n" for host in hosts) + f"192.0.2.1 {key}\n")
    _write_session(work)
    config = [
        *(f"ListenAddress 0.0.0.0:{PORT}", f"HostKey {work}/host_key", f"AuthorizedKeysFile {work}/authorized_keys"),
        *("UsePAM no", "StrictModes no", "PermitRootLogin yes", "MaxStartups 1000", "PidFile none", "UseDNS no"),
        f"ForceCommand {work}/session",
    ]
    subprocess.run(["mount", "--bind", "/dev/null", "/root/.bashrc"], check=False)
    (work / "sshd_config").write_text("".join(f"{line}\n" for line in config))
    Path("/run/sshd").mkdir(exist_ok=True)
    server = subprocess.Popen(["/usr/sbin/sshd", "-D", "-f", str(work / "sshd_config")])
    _await(hosts[0])
    try:
        yield hosts
    finally:
        server.terminate()
        server.wait()
        subprocess.run(["umount", "--lazy", str(work / "hosts")], check=True)


def _write_session(work: Path) -> None:
    """What every session runs in: directories of the host's own where a deployment writes."""
    lines = ["#!/bin/bash", 'read -r _ _ host _ <<<"$SSH_CONNECTION"', f"root={work}/hosts/$host"]
    for place in ("/etc", "/usr/libexec", "/var/lib", "/run"):
        name = place.strip("/").replace("/", "-")
        lines.append(f'mkdir -p "$root/{name}/up" "$root/{name}/work"')
    mounts = "; ".join(
        f'mount -t overlay overlay -o lowerdir={place},upperdir="$0"/{n}/up,workdir="$0"/{n}/work {place}'
        for place in ("/etc", "/usr/libexec", "/var/lib", "/run")
        for n in [place.strip("/").replace("/", "-")]
    )
    lines.append(
        f'exec unshare --mount /bin/bash -c \'{mounts}; exec /bin/bash -c "$1"\' "$root" "$SSH_ORIGINAL_COMMAND"'
    )
    (work / "session").write_text("".join(f"{line}\n" for line in lines))
    (work / "session").chmod(0o755)


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


def _compare(work: Path, hosts: list[str], rounds: int, fanout: int) -> None:
    inventory = work / "site.yaml"
    told = {"nodes": ",".join(hosts), "identity": str(work / "id"), "settings": {"jump": "192.0.2.1"}}
    inventory.write_text(yaml.safe_dump(told))
    archive = work / "archive.tar.gz"
    archive.write_bytes(_archive(inventory))
    ours = [sys.executable, "-m", "hpcproxy", "deploy", "--inventory", str(inventory), "--fanout", str(fanout)]
    loop = [sys.executable, __file__, "--loop", str(work), str(fanout), *hosts]
    rows: dict[str, list[tuple[float, float, float]]] = {}
    for _ in range(rounds):
        for host in hosts:
            shutil.rmtree(work / "hosts" / host, ignore_errors=True)
        rows.setdefault("hpcproxy deploy, first", []).append(_run(ours))
        rows.setdefault("hpcproxy deploy, nothing to change", []).append(_run(ours))
        for host in hosts:
            shutil.rmtree(work / "hosts" / host)
        rows.setdefault("loop over ssh, first", []).append(_run(loop))
        rows.setdefault("loop over ssh, again", []).append(_run(loop))
    print(f"{len(hosts)} hosts, {fanout} at once, best of {rounds}, {os.cpu_count()} cores for both ends")
    print(f"{'':38} {'wall s':>8} {'CPU s':>8} {'peak MB':>8}")
    for name, found in rows.items():
        wall, cpu, peak = (min(row[column] for row in found) for column in range(3))
        print(f"{name:38} {wall:8.2f} {cpu:8.2f} {peak:8.0f}")
    wall = {name: min(row[0] for row in found) for name, found in rows.items()}
    first = wall["hpcproxy deploy, first"] / wall["loop over ssh, first"]
    again = wall["hpcproxy deploy, nothing to change"] / wall["loop over ssh, again"]
    print(f"first deploy {first:.2f} times the loop, nothing to change {again:.2f} times")
    print(f"round trips a host: {_round_trips(hosts[0], ours)}")


def _archive(inventory: Path) -> bytes:
    return wire.archive(rollout.read_site(rollout.Request(inventory)).bundle.files)


def _run(argv: list[str]) -> tuple[float, float, float]:
    """Wall seconds, CPU seconds of the client with its children, and the largest process's peak memory in MB."""
    began = time.monotonic()
    process = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    errors = process.stderr.read() if process.stderr else b""
    _, status, usage = os.wait4(process.pid, 0)
    wall = time.monotonic() - began
    if status:
        raise SystemExit(f"{argv[:5]} failed: {errors.decode()[-1000:]}")
    return wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


def _loop(work: str, fanout: str, *hosts: str) -> None:
    """The yardstick: ssh to every host, so many at once, the archive on stdin, unpacked by tar."""
    argv = [
        "ssh",
        "-F",
        "/dev/null",
        "-i",
        f"{work}/id",
        "-o",
        "BatchMode=yes",
        "-o",
        f"UserKnownHostsFile={work}/known_hosts",
    ]
    argv += ["-o", "KexAlgorithms=curve25519-sha256", "-o", "StrictHostKeyChecking=yes", "-l", "root"]
    running: list[subprocess.Popen[bytes]] = []
    for host in hosts:
        while len(running) >= int(fanout):
            pid, status = os.wait()
            running = [process for process in running if process.pid != pid]
            if status:
                raise SystemExit("ssh failed")
        with Path(work, "archive.tar.gz").open("rb") as archive:
            command = "mkdir -p /usr/libexec/hpcproxy && tar -xzf - -C /usr/libexec/hpcproxy"
            running.append(subprocess.Popen([*argv, host, command], stdin=archive))
    for process in running:
        if process.wait():
            raise SystemExit("ssh failed")


def _round_trips(host: str, ours: list[str]) -> int:
    """How often the direction of payload turns from the host's to ours, in one deploy with nothing to change."""
    _run([*ours, "--limit", host])
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
    _run([*ours, "--limit", host])
    time.sleep(0.3)
    ended.set()
    thread.join()
    return sum(1 for before, after in zip(turns, turns[1:]) if before and not after)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--loop"]:
        _loop(*sys.argv[2:])
    else:
        main()

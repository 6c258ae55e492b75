"""The gate beside plain `ssh -D`, same machine, same cipher, one run: `python bench/gate.py [--json] [--gb N]`.

Everything is on loopback: an sshd, a far end that sends as much as it is asked for, the agent, and `ssh -D`. Each
figure of the gate stands beside that of `ssh -D` and their ratio. The two take turns, so that what else the machine
does hits both.
"""

import argparse
import contextlib
import importlib
import json
import os
import shutil
import socket
import ssl
import statistics
import struct
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
harness = importlib.import_module("node.harness")

CIPHER = "aes128-gcm@openssh.com"
HOST = harness.random_loopback(1, 63)
DATA, TLS = (HOST, 8080), (HOST, 8443)  # ports that the gate hands over at once
BLOCK = bytes(262144)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of a table")
    parser.add_argument("--gb", type=float, default=4.0, help="gigabytes moved per throughput figure (default 4)")
    parser.add_argument("--rounds", type=int, default=8, help="rounds of every throughput figure (default 8)")
    parser.add_argument("--requests", type=int, default=300, help="small HTTPS requests (default 300)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="gb", dir="/tmp") as folder, contextlib.ExitStack() as stack:
        figures = measure(Path(folder), stack, options)
    if options.json:
        print(json.dumps(figures, indent=1))
        return
    print("{:44} {:>10} {:>10} {:>7}".format("", "gate", "ssh -D", "ratio"))
    for name, row in figures.items():
        cells = ["{:.4g}".format(row[key]) if row.get(key) is not None else "" for key in ("gate", "plain", "ratio")]
        print("{:44} {:>10} {:>10} {:>7}".format(name, *cells))


def measure(folder, stack, options):
    """All figures: name to {gate, plain, ratio}."""
    sshd = harness.Sshd(folder / "jump", "MaxSessions 1000").start()
    stack.callback(sshd.stop)
    stack.callback(harness.FarEnd(send_as_asked, DATA[1], HOST).close)
    stack.callback(harness.FarEnd(https(folder, sshd), TLS[1], HOST).close)
    agent = harness.Agent(folder / "agent", [sshd.jump(extra=("-c", CIPHER))]).start().ready()
    stack.callback(agent.stop)
    plain = start_plain(sshd)
    stack.callback(plain.stop)
    gate = Way(lambda target: via_connect(agent, target), agent.worker_pid())
    figures = {"agent memory, idle (MB)": {"gate": agent.memory_kb() / 1024.0}}
    for streams in (1, 32):
        throughput(figures, streams, gate, plain, options)
    latency(figures, gate, plain, options.requests)
    memory(figures, agent, gate)
    return figures


class Way:
    """A way out: `connect(target)` gives a socket; `pid` is the process that serves it."""

    def __init__(self, connect, pid, process=None):
        self.connect, self.pid, self.process = connect, pid, process

    def cpu_s(self):
        with open("/proc/{}/stat".format(self.pid)) as file:
            fields = file.read().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def stop(self):
        self.process.terminate()
        self.process.wait()


def start_plain(sshd):
    port = harness.free_port()
    words = sshd.argv("-c", CIPHER, "-D", "127.0.0.1:{}".format(port))
    # In a session of its own, as the agent's ssh is: the kernel shares the cores out among sessions (autogroup).
    environment = harness.clean_environment(sshd.folder)
    process = subprocess.Popen(words, env=environment, stdin=subprocess.DEVNULL, start_new_session=True)

    def connect(target):
        sock = socket.create_connection(("127.0.0.1", port), 30)
        host = target[0].encode()
        sock.sendall(b"\5\1\0")
        assert sock.recv(2) == b"\5\0"
        sock.sendall(b"\5\1\0\3" + bytes([len(host)]) + host + struct.pack(">H", target[1]))
        assert sock.recv(10)[1:2] == b"\0"
        return sock

    def up():
        with contextlib.suppress(OSError), connect(DATA):
            return True

    harness.until(up, "ssh -D is up")
    return Way(connect, process.pid, process)


def via_connect(agent, target):
    sock = agent.connect(30)
    sock.sendall("CONNECT {}:{} HTTP/1.1\r\n\r\n".format(*target).encode())
    head = sock.recv(4096)  # the far ends here wait for the client, so this is the answer and nothing else
    assert b" 200 " in head and head.endswith(b"\r\n\r\n"), head
    return sock


def send_as_asked(sock):
    """The far end: reads a line with a number, sends that many bytes."""
    left = int(harness.read_head(sock) or b"0")
    while left > 0:
        left -= sock.send(BLOCK[: min(left, len(BLOCK))])


def https(folder, sshd):
    """A far end that answers small HTTPS requests."""
    name = str(folder / "tls")
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    command += ["-keyout", name + ".key", "-out", name + ".crt", "-days", "2", "-subj", "/CN=localhost"]
    subprocess.run(command, check=True, stderr=subprocess.DEVNULL, env=harness.clean_environment(folder))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(name + ".crt", name + ".key")

    def serve(sock):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with context.wrap_socket(sock, server_side=True) as tls:
            tls.recv(4096)
            tls.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello")

    return serve


def fetch(way, size, failures):
    with way.connect(DATA) as sock:
        sock.sendall("{}\r\n\r\n".format(size).encode())
        buffer, left = bytearray(1 << 20), size
        while left:
            got = sock.recv_into(buffer)
            if not got:
                failures.append(left)
                return
            left -= got


def run(way, streams, size):
    """(seconds, CPU seconds of the way's process) for `size` bytes over `streams` connections."""
    failures = []
    threads = [threading.Thread(target=fetch, args=(way, size // streams, failures)) for _ in range(streams)]
    began, cpu = time.monotonic(), way.cpu_s()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    return time.monotonic() - began, way.cpu_s() - cpu


def throughput(figures, streams, gate, plain, options):
    size = int(options.gb * 1e9 / options.rounds)
    for way in (gate, plain):
        run(way, streams, size // 4)  # to warm up
    rounds = []
    for index in range(options.rounds):
        first, second = ((gate, plain), (plain, gate))[index % 2]  # whoever comes second has it a little easier
        times = {way: run(way, streams, size) for way in (first, second)}
        rounds.append((times[gate], times[plain]))
    rates = [statistics.median(size / 1e6 / each[side][0] for each in rounds) for side in (0, 1)]
    ratio = statistics.median(each[1][0] / each[0][0] for each in rounds)
    figures["{} stream{} (MB/s)".format(streams, "s"[: streams - 1])] = {
        "gate": rates[0],
        "plain": rates[1],
        "ratio": ratio,
    }
    cpu = sum(each[0][1] for each in rounds)
    figures["agent CPU per GB, {} stream{} (s)".format(streams, "s"[: streams - 1])] = {"gate": cpu / options.gb}


def request(way, context):
    began = time.monotonic()
    with way.connect(TLS) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with context.wrap_socket(sock, server_hostname="localhost") as tls:
            tls.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
            answer = b""
            while not answer.endswith(b"hello"):
                part = tls.recv(4096)
                assert part
                answer += part
    return time.monotonic() - began


def latency(figures, gate, plain, count):
    context = ssl.create_default_context()
    # A TLS 1.3 client ends its handshake and asks in two small packets, which sshd writes under Nagle: a delayed ACK of
    # this server's would add 40 ms to most requests of both ways, and hide what differs.
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    times = [[], []]
    for _ in range(count):
        for side, way in enumerate((gate, plain)):
            times[side].append(request(way, context))
    medians = [1000 * statistics.median(each) for each in times]
    row = {"gate": medians[0], "plain": medians[1], "ratio": medians[0] / medians[1]}
    figures["small HTTPS request, median (ms)"] = row


def memory(figures, agent, gate):
    with contextlib.ExitStack() as stack:
        for _ in range(500):
            stack.enter_context(gate.connect(DATA))
        figures["agent memory, 500 connections handed over (MB)"] = {"gate": agent.memory_kb() / 1024.0}
    harness.until(lambda: agent.status().get("active") == 0, "all are closed", 30)
    slow = harness.FarEnd(harness.echo)
    with contextlib.ExitStack() as stack:
        for _ in range(500):
            stack.enter_context(gate.connect(slow.target))
        figures["agent memory, 500 connections relayed (MB)"] = {"gate": agent.memory_kb() / 1024.0}
    slow.close()


if __name__ == "__main__":
    if not shutil.which("openssl"):
        sys.exit("bench/gate.py needs openssl for its certificate")
    main()

"""Far ends that speak first, through the agent and through plain `ssh -D`: `python bench/first_word.py`, as root.

    python bench/first_word.py [--count 50] [--ms 0,1,5,50]

A far end that greets at once (as ssh, smtp and databases do) listens on ports where most wait for the client; between
node and jump host lies a link of so many milliseconds each way. Each connection goes to an address that the agent has
not seen before, so that nothing it has learned helps. Right is: our answer to CONNECT first and alone, then every byte
of the greeting. Prints a table; the exit code is 1 if a single connection through the agent was not right.
"""

import argparse
import collections
import contextlib
import importlib
import itertools
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import sitting
from sitting import harness

from tests.servers import free_port
from tests.sshd import prepare

answer = importlib.import_module("hpcproxy.node.proxy.replies")

PORTS = (22, 80, 443, 8080, 8443)
GREETING = b"SSH-2.0-Greeting_1.0 " + b"x" * 40 + b"\r\n"
INSIDE = "FIRST_WORD_INSIDE"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=50, help="connections to each port (default 50)")
    parser.add_argument("--ms", default="0,1,5,50", help="milliseconds each way (default 0,1,5,50)")
    options = parser.parse_args()
    if INSIDE not in os.environ:  # the ports of a network of our own are nobody else's
        words = ["unshare", "--net", "sh", "-c", 'ip link set lo up && exec "$@"', "sh", sys.executable, *sys.argv]
        return subprocess.run(words, env={**os.environ, INSIDE: "1"}, check=False).returncode
    print("| ms each way | ports | agent: right | wrong | median ms | ssh -D: right | wrong | median ms |")
    print("|---|---|---|---|---|---|---|---|")
    wrong = 0
    for milliseconds in options.ms.split(","):
        with both(float(milliseconds) / 1000) as (agent, plain):
            rows = [greeted(connect, options.count, side) for side, connect in enumerate((agent, plain))]
            wrong += sum(rows[0][1].values())
            ports = ", ".join(map(str, PORTS))
            print("| {} | {} | {} | {} |".format(milliseconds, ports, *map(shown, rows)), flush=True)
    return 1 if wrong else 0


def shown(row):
    times, failures = row
    said = ", ".join("{} {}".format(count, what) for what, count in failures.items()) or "0"
    return "{} | {} | {:.1f}".format(len(times), said, 1000 * statistics.median(times or [0]))


@contextlib.contextmanager
def both(seconds):
    """(connect through the agent, connect through ssh -D), with a link of `seconds` each way before the jump host."""
    with tempfile.TemporaryDirectory(prefix="fw", dir="/tmp") as name, contextlib.ExitStack() as stack:
        for port in PORTS:
            stack.callback(harness.FarEnd(greet, port, "0.0.0.0").close)  # noqa: S104 - a network of our own
        sshd = prepare(Path(name) / "jump", "MaxSessions 1000").start()
        stack.callback(sshd.stop)
        if seconds:
            real, sshd.port = sshd.port, free_port()
            stack.callback(link(sshd.port, real, seconds).close)
            sshd.known.write_text(sshd.known.read_text().replace(str(real), str(sshd.port)))
        agent = harness.Agent(Path(name) / "agent", [harness.jump_of(sshd)], python=shutil.which("/usr/bin/python3"))
        stack.callback(agent.start().ready().stop)
        plain = sitting.start_plain(sshd, ("127.0.0.1", PORTS[0]))
        stack.callback(plain.stop)
        yield (lambda target: through(agent, target)), plain.connect


def greet(sock):
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.sendall(GREETING)
    sock.recv(1)


def through(agent, target):
    """A connection by CONNECT: whatever stands where our answer should be is wrong."""
    sock = agent.connect(30)
    sock.sendall("CONNECT {}:{} HTTP/1.1\r\n\r\n".format(*target).encode())
    head = harness.read_head(sock)
    if head != answer.CONNECTED:
        raise ValueError("another answer")
    return sock


def greeted(connect, count, side):
    """(seconds from asking to the whole greeting, what else happened), one connection after the other."""
    times, failures = [], collections.Counter()
    for port, number in itertools.product(PORTS, range(count)):
        target = ("127.{}.{}.{}".format(1 + side, port % 250, 1 + number), port)
        began = time.monotonic()
        try:
            with connect(target) as sock:
                sock.settimeout(10)
                heard = b""
                while len(heard) < len(GREETING) and (part := sock.recv(4096)):
                    heard += part
        except (OSError, ValueError, AssertionError) as error:
            failures["{} at {}".format(str(error) or type(error).__name__, port)] += 1
            continue
        if heard == GREETING:
            times.append(time.monotonic() - began)
        else:
            failures["{} at {}".format("cut" if heard else "nothing", port)] += 1
    return times, failures


def link(port, to, seconds):
    """A listener at `port` whose connections lead to port `to`, every byte so many seconds later."""
    listener = socket.create_server(("127.0.0.1", port))

    def accept():
        while True:
            try:
                sock = listener.accept()[0]
            except OSError:
                return  # closed: the bench is over with it
            far = socket.create_connection(("127.0.0.1", to))
            for source, sink in ((sock, far), (far, sock)):
                source.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                carry(source, sink, seconds)

    threading.Thread(target=accept, daemon=True).start()
    return listener


def carry(source, sink, seconds):
    waiting, there = collections.deque(), threading.Semaphore(0)

    def read():
        data = b"-"
        while data:
            with contextlib.suppress(ConnectionError):
                data = source.recv(65536)
            waiting.append((time.monotonic() + seconds, data))
            there.release()

    def write():
        while there.acquire():
            due, data = waiting.popleft()
            time.sleep(max(0, due - time.monotonic()))
            with contextlib.suppress(OSError):
                if not data:
                    sink.shutdown(socket.SHUT_WR)
                    return
                sink.sendall(data)

    for work in (read, write):
        threading.Thread(target=work, daemon=True).start()


if __name__ == "__main__":
    sys.exit(main())

"""Each way of the agent's beside what it stands in front of, one run: `python bench/ways.py [--json]`; about 180 s.

For the proxies of a site's (tinyproxy, squid, microsocks) that is the same proxy asked straight, for the node's own
route a connection with nothing between; and all of them beside one `ssh -D`. Everything is on loopback, with a far end
that sends as much as it is asked for. In each round the ways take turns, and in the next one the other way round; a
figure is the median of the rounds' ratios. CPU is the agent's, in seconds per GB. Each figure that has a bound is `ok`
or `missed`; the exit code is 0 if none is missed. Run it on a machine that does nothing else, for the proxies want all
the cores that there are: what their ratio is worth, a proxy beside itself shows.
"""

import argparse
import contextlib
import importlib
import json
import socket
import statistics
import sys
import tempfile
import threading
import time
from pathlib import Path

import sitting
from sitting import DATA, harness

proxies = importlib.import_module("node.site_proxies")

FEWEST_ROUNDS = 3
RATIO, CPU = 0.95, 0.8  # of going straight to the proxy, at least; seconds of the agent's CPU per GB, at most


class Straight:
    """A proxy asked without the agent: `connect(target)` gives a socket, `url` and `headers` begin a request."""

    def __init__(self, connect, url="", headers=""):
        self.connect, self.url, self.headers = connect, url, headers


def login(name):
    """What alice's file holds for the proxy `name`: tinyproxy's own configuration has no colon in a password."""
    return "{}:{}".format(proxies.USER, proxies.PASSWORD.replace(":", "") if name == "tinyproxy" else proxies.PASSWORD)


def basic(name):
    return "Proxy-Authorization: Basic {}\r\n".format(proxies.base64.b64encode(login(name).encode()).decode())


def by_connect(port, headers):
    def connect(target):
        sock = socket.create_connection(("127.0.0.1", port), 30)
        sock.sendall("CONNECT {0}:{1} HTTP/1.1\r\nHost: {0}:{1}\r\n{2}\r\n".format(*target, headers).encode())
        assert b" 200 " in harness.read_head(sock)
        return sock

    return connect


def by_socks(port):
    user, word = proxies.USER.encode(), proxies.PASSWORD.encode()

    def connect(target):
        sock = socket.create_connection(("127.0.0.1", port), 30)
        sock.sendall(b"\5\1\2")
        assert sock.recv(2) == b"\5\2"
        sock.sendall(bytes([1, len(user)]) + user + bytes([len(word)]) + word)
        assert sock.recv(2) == b"\1\0"
        sock.sendall(sitting.socks_request(target))
        assert sock.recv(10)[1] == 0
        return sock

    return connect


def to(port):
    return lambda _target: socket.create_connection(("127.0.0.1", port), 30)


@contextlib.contextmanager
def pairs(folder, python):
    """Name to (agent, how it is asked, what it stands in front of)."""
    with contextlib.ExitStack() as stack:

        def agent(name, way):
            found = harness.Agent(folder / name, [way], python=python).start().ready()
            stack.callback(found.stop)
            return found

        def proxy(name):
            found = getattr(proxies, name)(folder / name)
            stack.callback(found.stop)
            path = folder / (name + ".login")
            path.write_text(login(name) + "\n")
            path.chmod(0o600)
            kind = "socks5" if name == "microsocks" else "http"
            way = {"kind": kind, "name": name, "host": "127.0.0.1", "port": found.port}
            return found.port, agent(name + " agent", dict(way, auth_file="" if name == "squid" else str(path)))

        url = "http://{}:{}".format(*DATA)
        made = {}
        direct = agent("direct", {"kind": "direct"})
        straight = Straight(lambda target: socket.create_connection(target, 30))
        made["direct"] = (direct, connect_by(direct), straight)
        if not proxies.missing("tinyproxy"):
            port, ours = proxy("tinyproxy")
            made["http, CONNECT (tinyproxy)"] = (ours, connect_by(ours), Straight(by_connect(port, basic("tinyproxy"))))
            made["http, GET (tinyproxy)"] = (ours, get_by(ours), Straight(to(port), url, basic("tinyproxy")))
        if not proxies.missing("squid"):
            port, ours = proxy("squid")
            made["http, GET (squid)"] = (ours, get_by(ours), Straight(to(port), url))
        if not proxies.missing("microsocks"):
            port, ours = proxy("microsocks")
            made["socks5 (microsocks)"] = (ours, connect_by(ours), Straight(by_socks(port)))
        yield made


def connect_by(agent):
    return Straight(lambda target: sitting.via_connect(agent, target))


def get_by(agent):
    return Straight(lambda _target: agent.connect(30), "http://{}:{}".format(*DATA))


def rate(way, streams, size):
    """Bytes per second over so many connections at once."""
    failures = []
    threads = [threading.Thread(target=sitting.fetch, args=(way, size // streams, failures)) for _ in range(streams)]
    began = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    return size / (time.monotonic() - began)


def cpu_s(pid):
    return int(Path("/proc/{}/schedstat".format(pid)).read_text().split()[0]) / 1e9


def measure(pair, plain, options):
    """The row of one way."""
    agent, ours, straight = pair
    size = int(options.gb * 1e9)
    for way in (ours, straight, plain):
        rate(way, options.streams, size // 4)  # to warm up
    rounds, cpu = [], 0.0
    end = time.monotonic() + options.seconds
    while time.monotonic() < end or len(rounds) < FEWEST_ROUNDS:
        order = [straight, ours, straight, plain]
        if len(rounds) % 2:
            order.reverse()
        found = {}
        for way in order:
            before = cpu_s(agent.worker_pid())
            found.setdefault(way, []).append(rate(way, options.streams, size))
            if way is ours:
                cpu += cpu_s(agent.worker_pid()) - before
        rounds.append((found[ours][0], found[straight], found[plain][0]))
    return {
        "to straight": statistics.median(2 * one / sum(two) for one, two, _ in rounds),
        "straight by itself": statistics.median(two[0] / two[1] for _, two, _ in rounds),
        "to ssh -D": statistics.median(one / three for one, _, three in rounds),
        "CPU s/GB": cpu / options.gb / len(rounds),
        "MB/s": statistics.median(one for one, _, _ in rounds) / 1e6,
        "rounds": len(rounds),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of a table")
    parser.add_argument("--seconds", type=float, default=30, help="time for each way (default 30)")
    parser.add_argument("--gb", type=float, default=0.25, help="GB per transfer (default 0.25)")
    parser.add_argument("--streams", type=int, default=1, help="connections at once (default 1)")
    parser.add_argument("--only", default="", help="only ways whose name has this in it")
    parser.add_argument("--python", help="what runs the agents (default: as on a node)")
    options = parser.parse_args()
    rows = {}
    with tempfile.TemporaryDirectory(prefix="ways", dir="/tmp") as name, sitting.start(options.python) as (ways, _):
        python = options.python or "/usr/bin/python3"
        with pairs(Path(name), python) as made:
            for each, pair in made.items():
                if options.only in each:
                    rows[each] = measure(pair, ways[1], options)
                    rows[each]["ok"] = rows[each]["CPU s/GB"] <= CPU and (
                        each == "direct" or rows[each]["to straight"] >= RATIO
                    )
    if options.json:
        print(json.dumps(rows, indent=1))
    else:
        show(rows)
    return 0 if all(row["ok"] for row in rows.values()) else 1


def show(rows):
    names = ("to straight", "straight by itself", "to ssh -D", "CPU s/GB", "MB/s", "rounds")
    print(("{:28}" + "{:>20}" * len(names)).format("", *names))
    for name, row in rows.items():
        values = ["{:.3g}".format(row[key]) for key in names]
        print(("{:28}" + "{:>20}" * len(names) + "  {}").format(name, *values, "ok" if row["ok"] else "MISSED"))


if __name__ == "__main__":
    sys.exit(main())

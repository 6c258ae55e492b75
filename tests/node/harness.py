"""A real sshd, a real agent and small far ends on loopback, each ready when it answers; nothing of the caller's."""

import contextlib
import functools
import json
import os
import random
import signal
import socket
import socketserver
import subprocess
import sys
import threading
from pathlib import Path

from hpcproxy.node.build import build
from tests.sshd import USER
from tests.waiting import until

PORT = 2015
# What a client says first decides who carries it: the agent, or ssh itself (node/proxy/first_speaker.py).
RELAYED, HANDED_OVER = b"hi ", b"PUT "
OPENINGS = [RELAYED, HANDED_OVER]
FAILURES = [
    {"pattern": pattern, "layer": layer, "reason": reason, "permanent": permanent, "phase": "", "more": False}
    for pattern, layer, reason, permanent in (
        ("^Authenticated to ", "phase", "up", False),
        ("^(bind .*: )?Address already in use", "port", "the port is somebody else's", True),
        ("Permission denied", "key", "the jump host refuses the key%k", True),
        ("^Host key verification failed", "hostkey", "the host key changed", True),
        ("Connection refused", "tcp", "nobody listens at the jump host", False),
        ("^Connection closed by", "login", "the jump host hung up", False),
    )
]


def clean_environment(home):
    """The environment of every process of a test: no agent, no proxy, no HOME of the caller's."""
    return {"PATH": os.environ["PATH"], "HOME": str(home), "LANG": "C.UTF-8"}


def children(pid):
    """The pids of its child processes."""
    try:
        with open("/proc/{0}/task/{0}/children".format(pid)) as file:
            return [int(word) for word in file.read().split()]
    except OSError:
        return []


def pss_kb(pid):
    """The memory of a process, in kB, its part of what it shares included."""
    with open("/proc/{}/smaps_rollup".format(pid)) as file:
        return next(int(line.split()[1]) for line in file if line.startswith("Pss:"))


def read_rest(sock, seconds=10):
    """All that comes until the end."""
    sock.settimeout(seconds)
    data = b""
    while True:
        part = sock.recv(65536)
        if not part:
            return data
        data += part


def random_loopback(low, high):
    """127.x.y.z with x from `low` to `high`."""
    return "127.{}.{}.{}".format(random.randint(low, high), random.randint(0, 255), random.randint(1, 254))


def jump_of(server, name="jump", extra=()):
    """A jump host of agent.json: `server`, with a complete `argv`."""
    return {"name": name, "argv": argv_of(server, *extra)}


def argv_of(server, *extra):
    """The words of an ssh to `server`."""
    options = {
        "IdentityFile": server.identity,
        "IdentitiesOnly": "yes",
        "IdentityAgent": "none",
        "BatchMode": "yes",
        "UserKnownHostsFile": server.known,
        "GlobalKnownHostsFile": "/dev/null",
        "StrictHostKeyChecking": "yes",
        "ExitOnForwardFailure": "yes",
        "ClearAllForwardings": "yes",
        "LogLevel": "VERBOSE",
        "ServerAliveInterval": "5",
        "ServerAliveCountMax": "3",
        "ConnectTimeout": "10",
    }
    words = [word for key, value in options.items() for word in ("-o", "{}={}".format(key, value))]
    return ["ssh", "-N", "-F", "none", *words, *extra, "-p", str(server.port), "-l", USER, "--", "127.0.0.1"]


@functools.lru_cache(1)
def log_verbose():
    """What tunnel.sh says of an ssh that knows LogVerbose, which came with OpenSSH 8.5."""
    argv = ["ssh", "-F", "/dev/null", "-G", "-o", "IgnoreUnknown=*", "-o", "LogVerbose=none", "--", "h"]
    asked = subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=20, check=False)
    return ("--log-verbose", "yes") if b"\nlogverbose " in asked.stdout else ()


def ways_of(jumps):
    """What agent.json says of these jump hosts; what has a kind already is there as it is."""
    return [way if "kind" in way else dict(way, kind="ssh") for way in jumps]


class Agent:
    """One agent, with a state directory and an address of its own."""

    def __init__(self, folder, jumps, python=None, uid=None, flags=("-I",), **settings):
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.state = self.folder / "st"
        self.state.mkdir(mode=0o700)
        self.address = random_loopback(64, 127)
        self.config = self.folder / "agent.json"
        self.words = settings.pop("words", ())  # more arguments
        self.environ = settings.pop("environ", {})  # more variables
        # Here all far ends are on loopback.
        self.settings = dict({"version": 2, "ways": ways_of(jumps), "failures": FAILURES, "closed": []}, **settings)
        self.config.write_text(json.dumps(self.settings))
        self.pyz = self.folder / "agent.pyz"
        self.pyz.write_bytes(build())
        self.python = [python or sys.executable, *flags]
        self.uid = uid
        self.process = None

    def start(self):
        argv = [*self.python, str(self.pyz), "hold", "--config", str(self.config), "--address", self.address]
        argv += ["--port", str(PORT), "--state", str(self.state), "--node", "c1", *log_verbose()]
        if self.uid is not None:
            argv += ["--uid", str(self.uid)]
        argv += self.words
        self.out = self.folder / "out"
        self.err = self.folder / "err"
        with open(str(self.out), "wb") as out, open(str(self.err), "wb") as err:
            self.process = subprocess.Popen(
                argv,
                env=dict(clean_environment(self.folder), **self.environ),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
            )
        return self

    def lines(self):
        return self.out.read_text().splitlines()

    def ready(self, seconds=20):
        until(lambda: any(line.startswith("ready ") for line in self.lines()), "the agent is ready", seconds)
        return self

    def status(self):
        with contextlib.suppress(OSError):
            return json.loads((self.state / "status.json").read_text())
        return {}

    def log(self):
        with contextlib.suppress(FileNotFoundError):
            return (self.state / "log").read_text()
        return ""

    def access(self, lines=1):
        """The access log, once it has `lines` lines."""
        path = self.state / "access.log"
        until(lambda: path.read_text().count("\n") >= lines, "{} lines in access.log".format(lines))
        return path.read_text().splitlines()

    def connect(self, seconds=10):
        return socket.create_connection((self.address, PORT), seconds)

    def ask(self, data, seconds=10):
        """Everything that is answered to `data` until the connection ends."""
        with self.connect() as sock:
            sock.sendall(data)
            return read_rest(sock, seconds)

    def tunnel(self, target, seconds=10):
        """(socket, reply) after a CONNECT to (host, port)."""
        sock = self.connect(seconds)
        sock.sendall("CONNECT {}:{} HTTP/1.1\r\nHost: x\r\n\r\n".format(*target).encode())
        return sock, read_head(sock)

    @property
    def proxy(self):
        return "http://{}:{}".format(self.address, PORT)

    def worker_pid(self):
        """The pid of the process that serves: the supervisor's child. 0 while there is none."""
        return next(iter(children(self.process.pid)), 0)

    def ssh_pid(self):
        """The pid of the ssh that the agent holds."""
        for pid in children(self.worker_pid()):
            with contextlib.suppress(OSError), open("/proc/{}/cmdline".format(pid), "rb") as words:
                if b"-M" in words.read().split(b"\0"):
                    return pid
        return 0

    def memory_kb(self):
        """What the agent's two processes take, memory that they share counted once (smaps_rollup: Pss)."""
        return sum(pss_kb(pid) for pid in (self.process.pid, self.worker_pid()))

    def fds(self):
        return len(os.listdir("/proc/{}/fd".format(self.worker_pid())))

    def stop(self):
        """Ended by SIGTERM; returns the exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=15)


def read_head(sock):
    """Bytes up to the empty line, not one more."""
    data = b""
    while not data.endswith(b"\r\n\r\n"):
        part = sock.recv(1)
        if not part:
            break
        data += part
    return data


class FarEnd:
    """A TCP server on loopback whose `serve(sock)` runs in a thread per connection."""

    def __init__(self, serve, port=0, host=None):
        far = self
        # A given port is one that the agent has an opinion on. An address of its own keeps it from other processes and
        # from what the agent has learned in other tests.
        host = host or (random_loopback(1, 63) if port else "127.0.0.1")

        class Handler(socketserver.BaseRequestHandler):
            def handle(self):
                far.connections += 1
                with contextlib.suppress(OSError):
                    serve(self.request)

        class Server(socketserver.ThreadingTCPServer):
            daemon_threads = True
            block_on_close = False
            allow_reuse_address = True
            request_queue_size = 256

        self.connections = 0
        self.server = Server((host, port), Handler)
        self.host, self.port = self.server.server_address[:2]
        self.target = (self.host, self.port)
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def close(self):
        self.server.shutdown()
        self.server.server_close()


def echo(sock):
    """Sends back what comes."""
    while True:
        data = sock.recv(65536)
        if not data:
            return
        sock.sendall(data)

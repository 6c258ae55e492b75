"""The ways that bench/agent.py compares, all of them just started.

An sshd and far ends on loopback, the agent in front of ssh, two `ssh -D`, and an ssh that gets its connections handed
over with no agent there.
"""

import array
import contextlib
import importlib
import os
import shutil
import socket
import ssl
import struct
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from tests.servers import free_port  # noqa: E402 - not installed where a checkout is measured
from tests.sshd import prepare  # noqa: E402

harness = importlib.import_module("node.harness")
mux = importlib.import_module("hpcproxy.node.upstream.mux")

CIPHER = "aes128-gcm@openssh.com"
HOST = harness.random_loopback(1, 63)
DATA, TLS = (HOST, 8080), (HOST, 8443)
BLOCK = bytes(262144)


@contextlib.contextmanager
def start(python):
    """The ways (the agent, ssh -D, another, the bare hand-over) and the agent, all of them just started."""
    with tempfile.TemporaryDirectory(prefix="gb", dir="/tmp") as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        sshd = prepare(folder / "jump", "MaxSessions 1000").start()
        stack.callback(sshd.stop)
        stack.callback(harness.FarEnd(send_as_asked, DATA[1], HOST).close)
        stack.callback(harness.FarEnd(https(folder, sshd), TLS[1], HOST).close)
        python = python or shutil.which("/usr/bin/python3") or sys.executable
        agent = (
            harness.Agent(folder / "agent", [harness.jump_of(sshd, extra=("-c", CIPHER))], python=python)
            .start()
            .ready()
        )
        stack.callback(agent.stop)
        ways = [Way(lambda target: via_connect(agent, target), agent.ssh_pid()), start_plain(sshd), start_plain(sshd)]
        ways.append(start_bare(sshd, str(folder / "bare")))
        for way in ways[1:]:
            stack.callback(way.stop)
        yield ways, agent


class Way:
    """A tunnel: `connect(target)` gives a socket; `pid` is its ssh. `url` begins what is asked for on it."""

    def __init__(self, connect, pid, process=None, url=""):
        self.connect, self.pid, self.process, self.url = connect, pid, process, url

    def stop(self):
        self.process.terminate()
        self.process.wait()


def start_ssh(sshd, *options):
    words = harness.argv_of(sshd, "-c", CIPHER, *options)
    if "-D" in options:  # which the options of the agent's ssh take back
        words[words.index("ClearAllForwardings=yes")] = "ClearAllForwardings=no"
    # In a session of its own, as the agent's ssh is: the kernel shares the cores out among sessions (autogroup).
    environment = harness.clean_environment(sshd.directory)
    return subprocess.Popen(words, env=environment, stdin=subprocess.DEVNULL, start_new_session=True)


GREETING, METHOD, GRANTED = b"\5\1\0", b"\5\0", b"\5\0\0\1\0\0\0\0\0\0"


def socks_request(target):
    host = target[0].encode()
    return b"\5\1\0\3" + bytes([len(host)]) + host + struct.pack(">H", target[1])


def start_plain(sshd, probe=DATA):
    port = free_port()
    process = start_ssh(sshd, "-D", "127.0.0.1:{}".format(port))

    def connect(target):
        sock = socket.create_connection(("127.0.0.1", port), 30)
        sock.sendall(GREETING)
        assert sock.recv(2) == METHOD
        sock.sendall(socks_request(target))
        assert sock.recv(10) == GRANTED
        return sock

    def up():
        with contextlib.suppress(OSError), connect(probe):
            return True

    harness.until(up, "ssh -D is up")
    return Way(connect, process.pid, process)


class Handed(socket.socket):
    """A connection whose other end is ssh's as long as `control` is open."""

    control = None

    def close(self):
        super().close()
        self.control.close()


def start_bare(sshd, path):
    """ssh that is given what is accepted here, over the control socket at `path` (PROTOCOL.mux).

    Client and accepted socket say to each other what they would with `ssh -D`: how the kernel treats a connection
    depends on what it has seen there, by 5 % of ssh's CPU time.
    """
    process = start_ssh(sshd, "-M", "-S", path)
    harness.until(lambda: os.path.exists(path), "ssh takes requests")
    listener, one_at_a_time = socket.socket(), threading.Lock()
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # what is accepted has it, as with ssh -D
    listener.bind(("127.0.0.1", 0))
    listener.listen(100)

    def connect(target):
        with one_at_a_time:
            sock = Handed()
            sock.connect(listener.getsockname())
            accepted = listener.accept()[0]
        with accepted:
            say(sock, GREETING, accepted)
            say(accepted, METHOD, sock)
            say(sock, socks_request(target), accepted)
            sock.control = hand_over(path, accepted, target)
            say(accepted, GRANTED, sock)
        return sock

    return Way(connect, process.pid, process)


def say(sender, words, receiver):
    sender.sendall(words)
    assert receiver.recv(1000) == words


def hand_over(path, accepted, target):
    """The control connection, once ssh has the far end connected to the socket."""
    control = socket.socket(socket.AF_UNIX)
    control.connect(path)
    control.sendall(mux.hello() + mux.open_channel(1, *target))
    for _ in range(2):
        control.sendmsg([b"\0"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [accepted.fileno()]))])
    heard = b""
    for kind in (mux.HELLO, mux.SESSION_OPENED):
        while mux.parse(heard) is None:
            heard += control.recv(4096)
        size, reply = mux.parse(heard)
        assert reply.kind == kind, reply
        heard = heard[size:]
    return control


def via_connect(agent, target):
    sock = agent.connect(30)
    sock.sendall("CONNECT {}:{} HTTP/1.1\r\n\r\n".format(*target).encode())
    head = sock.recv(4096)  # the far ends here wait for the client, so this is the answer and nothing else
    assert b" 200 " in head and head.endswith(b"\r\n\r\n"), head
    return sock


def http_way(agent):
    """The agent once more, asked for http:// URLs."""
    return Way(lambda _: agent.connect(30), agent.ssh_pid(), url="http://{}:{}".format(*DATA))


def fetch(way, size, failures):
    """Ask the far end for `size` bytes; what is missing of them where they end early goes to `failures`."""
    with way.connect(DATA) as sock:
        request = "GET {}/{} HTTP/1.1\r\nHost: h\r\n{}\r\n".format(way.url, size, getattr(way, "headers", ""))
        sock.sendall(request.encode())
        assert b" 200 " in harness.read_head(sock)  # a proxy may say 1.0
        buffer, left = bytearray(1 << 20), size
        while left:
            got = sock.recv_into(buffer)
            if not got:
                failures.append(left)
                return
            left -= got


def send_as_asked(sock):
    """The far end: GET /NUMBER, and so many bytes. HTTP, so that the agent sees who speaks first and hands over."""
    head = harness.read_head(sock).split()
    left = int(head[1][1:]) if head else 0
    sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % left)
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

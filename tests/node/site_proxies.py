"""Proxies of a site's: real ones (tinyproxy, squid, microsocks), and small ones that do what those do on bad days."""

import base64
import contextlib
import os
import shutil
import socket
import struct
import subprocess
import threading

from tests.sshd import free_port
from tests.waiting import until

from .harness import FarEnd, clean_environment, read_head

USER, PASSWORD = "alice", "s3cret:word"
TINYPROXY = """
Port {port}
Listen 127.0.0.1
Timeout 60
MaxClients 200
LogFile "{folder}/log"
LogLevel Info
BasicAuth {user} {password}
Filter "{folder}/filter"
"""
SQUID = """
http_port 127.0.0.1:{port}
acl ssl_ports port 443
acl CONNECT method CONNECT
http_access deny CONNECT !ssl_ports
http_access allow localhost
http_access deny all
cache deny all
cache_log /dev/null
access_log none
pid_filename none
shutdown_lifetime 1 second
pinger_enable off
netdb_filename none
"""


def missing(*programs):
    """Those of `programs` that are not on this machine."""
    return [each for each in programs if shutil.which(each, path=os.environ["PATH"] + ":/usr/sbin") is None]


class Real:
    """A proxy's own program, run until the end of the test."""

    def __init__(self, argv, port, folder):
        self.port, self.folder = port, folder
        with open(str(folder / "out"), "wb") as out:
            self.process = subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, stdout=out, stderr=out, env=clean_environment(folder)
            )
        until(self._listens, "{} listens".format(argv[0]))

    def _listens(self):
        assert self.process.poll() is None, (self.folder / "out").read_text()
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
            return True
        return False

    def stop(self):
        self.process.kill()
        self.process.wait()


def tinyproxy(folder, port=0):
    folder.mkdir(exist_ok=True)
    port = port or free_port()
    config = folder / "tinyproxy.conf"
    (folder / "filter").write_text("denied\\.test\n")
    # Its own syntax has no colon in a password.
    config.write_text(TINYPROXY.format(port=port, folder=folder, user=USER, password=PASSWORD.replace(":", "")))
    return Real(["tinyproxy", "-d", "-c", str(config)], port, folder)


def microsocks(folder, port=0, login=True):
    folder.mkdir(exist_ok=True)
    port = port or free_port()
    words = ["-u", USER, "-P", PASSWORD] if login else []
    return Real(["microsocks", "-i", "127.0.0.1", "-p", str(port), *words], port, folder)


def squid(folder, port=0):
    """As its stock configuration has it: CONNECT to 443 only; without a login."""
    folder.mkdir(exist_ok=True)
    port = port or free_port()
    config = folder / "squid.conf"
    config.write_text(SQUID.format(port=port))
    config.chmod(0o644)
    program = shutil.which("squid", path="/usr/sbin:" + os.environ["PATH"])
    return Real([program, "-N", "-f", str(config)], port, folder)


class Mock(FarEnd):
    """A proxy in a few lines. `mood` says what it does with the next request."""

    def __init__(self, host="127.0.0.1"):
        self.mood, self.asked = "good", []
        super().__init__(self.serve, 0, host)

    def serve(self, sock):
        raise NotImplementedError

    def join(self, sock, target):
        """Both ways, until both are done."""
        with socket.create_connection(target, 5) as far:
            far.settimeout(None)
            upward = threading.Thread(target=pass_on, args=(sock, far), daemon=True)
            upward.start()
            pass_on(far, sock)
            upward.join(5)


def pass_on(source, sink):
    with contextlib.suppress(OSError):
        while True:
            data = source.recv(65536)
            if not data:
                break
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)


CHALLENGE = b"Proxy-Authenticate: Basic realm=x\r\n"
ANSWERS = {
    "401": b"HTTP/1.0 401 Unauthorized\r\n" + CHALLENGE + b"\r\n<html>no</html>",
    "403": b"HTTP/1.1 403 Filtered\r\nContent-Type: text/html\r\nContent-Length: 2\r\n\r\nno",
    "407": b"HTTP/1.1 407 Proxy Authentication Required\r\n" + CHALLENGE + b"Content-Length: 0\r\n\r\n",
    "500": b"HTTP/1.0 500 Unable to connect\r\nConnection: close\r\n\r\n<html>" + b"page " * 2000 + b"</html>",
    "504": b"HTTP/1.1 504 Gateway Timeout\r\nContent-Length: 0\r\n\r\n",
    "dns": b"HTTP/1.1 503 Service Unavailable\r\nX-Squid-Error: ERR_DNS_FAIL 0\r\nContent-Length: 0\r\n\r\n",
    "squid": b"HTTP/1.1 503 Service Unavailable\r\nX-Squid-Error: ERR_CONNECT_FAIL 111\r\nContent-Length: 0\r\n\r\n",
    "ssh": b"SSH-2.0-OpenSSH_9.2p1\r\n",
    "half": b"HTTP/1.1 200 Conn",
    "close": b"",
}


class HttpMock(Mock):
    """CONNECT and absolute form, answered as `mood` says; `asked` has the heads."""

    header = "Basic " + base64.b64encode("{}:{}".format(USER, PASSWORD).encode()).decode()

    def serve(self, sock):
        head = read_head(sock)
        self.asked.append(head.decode())
        lines = head.decode().split("\r\n")
        method, target, _ = lines[0].split(" ")
        if self.mood == "hang":
            sock.recv(1)
        elif self.mood in ANSWERS:
            sock.sendall(ANSWERS[self.mood])
        elif self.header and "Proxy-Authorization: " + self.header not in lines:
            sock.sendall(ANSWERS["407"])
        elif target == "127.0.0.1:1":  # the question at the start
            sock.sendall(ANSWERS["403"])
        elif method == "CONNECT":
            host, _, port = target.rpartition(":")
            sock.sendall(b"HTTP/1.0 200 Connection established\r\nProxy-agent: mock\r\n\r\n")
            self.join(sock, (host, int(port)))
        else:
            where, _, path = target[len("http://") :].partition("/")
            host, _, port = where.rpartition(":")
            with socket.create_connection((host, int(port)), 5) as far:
                passed = [each for each in lines[1:] if not each.lower().startswith("proxy-")]
                far.sendall("\r\n".join(["{} /{} HTTP/1.1".format(method, path), *passed]).encode())
                pass_on(far, sock)


class SocksMock(Mock):
    """SOCKS 5 with a password, answered as `mood` says: a code, or one of the words below."""

    def serve(self, sock):
        if self.mood == "close":
            return
        if self.mood == "hang":
            sock.recv(1000)
            sock.recv(1)
            return
        if self.mood == "ssh":
            sock.sendall(ANSWERS["ssh"])
            return
        count = sock.recv(2)[1]
        methods = sock.recv(count, socket.MSG_WAITALL)
        if self.mood == "no-method" or 2 not in methods:
            sock.sendall(b"\5\xff")
            return
        sock.sendall(b"\5\2")
        user = sock.recv(sock.recv(2, socket.MSG_WAITALL)[1], socket.MSG_WAITALL)
        password = sock.recv(sock.recv(1)[0], socket.MSG_WAITALL)
        good = (user, password) == (USER.encode(), PASSWORD.encode()) and self.mood != "refuse"
        sock.sendall(b"\1" + bytes([not good]))
        if not good:
            return
        _, _, _, kind = sock.recv(4, socket.MSG_WAITALL)
        size = {1: 4, 4: 16}.get(kind) or sock.recv(1)[0]
        host = sock.recv(size, socket.MSG_WAITALL)
        port = struct.unpack(">H", sock.recv(2, socket.MSG_WAITALL))[0]
        self.asked.append((kind, host, port))
        code = self.mood if isinstance(self.mood, int) else 0
        if port == 1:
            code = 5
        # An answer with a name in it, which few send and the protocol allows.
        sock.sendall(bytes([5, code, 0, 3, 4]) + b"mock" + b"\0\0")
        if not code:
            self.join(sock, (host.decode() if kind == 3 else socket.inet_ntoa(host), port))

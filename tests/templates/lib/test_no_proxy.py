"""The no_proxy list that a node makes, replayed against those who read it: each by the reader's own code or program.

Goes straight: what every reader must reach without the tunnel. Goes out: what none may reach directly. Networks are
known to some readers only; that is why the list has names and addresses as well.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import socket
import subprocess
import threading
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
import requests.utils

from hpcproxy.files.render import TEMPLATES

_MORE = ["tracker.internal", ".site.example"]
_GETENT = """#!/bin/sh
printf '10.1.0.1     STREAM c1\\n10.1.0.2     STREAM c2\\n192.168.31.103     STREAM c3\\n'
"""
_LIST = 'set -euo pipefail; . "$0"; no_proxy_list "$@"; printf "%s" "$direct"'

STRAIGHT = (
    "localhost", "127.0.0.1", "::1", "0.0.0.0", "127.0.1.1", "localhost.",
    socket.gethostname(), f"{socket.gethostname()}.",
    "c1", "c2", "c3", "10.1.0.1", "10.1.0.2", "192.168.31.103", "169.254.169.254",
    "printer.local", "tracker.internal", "a.site.example", "a.b.site.example",
)  # fmt: skip
OUT = (
    "internet.test", "c10", "xc1", "c1.elsewhere.example", "11.1.0.1", "203.0.113.80", "2001:db8::1",
    "mytracker.internal", "notsite.example", "local.example", "github.com",
)  # fmt: skip
# Addresses that are in a network of the list and nowhere else.
IN_NETWORKS = ("127.9.9.9", "10.200.3.4", "172.31.255.1", "192.168.7.7")


@pytest.fixture
def direct(tmp_path: Path) -> str:
    """The list as lib/any/nodes.sh makes it for a job on c1 to c3."""
    (tmp_path / "getent").write_text(_GETENT)
    (tmp_path / "getent").chmod(0o755)
    argv = ["bash", "-c", _LIST, str(TEMPLATES / "lib" / "any" / "nodes.sh"), "1", *_MORE]
    environ = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "SLURM_JOB_NODELIST": "c[1-3]"}
    return subprocess.run(argv, capture_output=True, text=True, check=True, env=environ).stdout


def test_the_list_of_a_heterogeneous_job_names_the_nodes_of_all_its_components() -> None:
    argv = [
        "bash",
        "-c",
        'set -euo pipefail; . "$0"; job_nodes; echo "${nodes[*]}"',
        str(TEMPLATES / "lib" / "any" / "nodes.sh"),
    ]
    environ = {
        "PATH": os.environ["PATH"],
        "SLURM_JOB_NODELIST": "c[1-2]",
        "SLURM_JOB_NODELIST_HET_GROUP_0": "c[1-2]",
        "SLURM_JOB_NODELIST_HET_GROUP_1": "g3",
    }
    done = subprocess.run(argv, capture_output=True, text=True, check=True, env=environ)
    assert done.stdout == "c1 c2 g3\n"


# ------------------------------------------------------------------------------------------------ readers


def _url(host: str) -> str:
    return f"http://[{host}]:8080/" if ":" in host else f"http://{host}:8080/"


def _standard_library(direct: str, host: str) -> bool:
    netloc = urlsplit(_url(host)).netloc
    return bool(urllib.request.proxy_bypass_environment(netloc, {"no": direct, "http": "http://127.64.0.1:2015"}))


def _requests(direct: str, host: str) -> bool:
    return bool(requests.utils.should_bypass_proxies(_url(host), no_proxy=direct))


def _httpx(direct: str, host: str) -> bool:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("no_proxy", direct)
        patch.setenv("NO_PROXY", direct)
        for name in ("http_proxy", "https_proxy"):
            patch.setenv(name, "http://127.64.0.1:2015")
        # A malformed entry raises InvalidURL here, for every URL.
        with httpx.Client() as client:
            return client._transport_for_url(httpx.URL(_url(host))) is client._transport


def _go(direct: str, host: str) -> bool:
    """golang.org/x/net/http/httpproxy, Config.NoProxy and useProxy, as its documentation has the rules."""
    if host == "localhost":
        return True
    address: ipaddress.IPv4Address | ipaddress.IPv6Address | None = None
    with contextlib.suppress(ValueError):
        address = ipaddress.ip_address(host)
        if address.is_loopback:
            return True
    return any(_go_matches(entry.strip().lower(), host, address) for entry in direct.split(",") if entry.strip())


def _go_matches(entry: str, host: str, address: ipaddress.IPv4Address | ipaddress.IPv6Address | None) -> bool:
    if entry == "*":
        return True
    with contextlib.suppress(ValueError):  # a prefix in CIDR notation, or one address
        network = ipaddress.ip_network(entry, strict=False)
        return address is not None and address in network
    if address is not None:
        return False
    # "foo.com" matches itself and its subdomains, ".foo.com" (and "*.foo.com") its subdomains only.
    if entry.startswith("*."):
        entry = entry[1:]
    return host.endswith(entry) if entry.startswith(".") else host == entry or host.endswith(f".{entry}")


READERS: dict[str, Callable[[str, str], bool]] = {
    "standard library": _standard_library,
    "requests": _requests,
    "httpx": _httpx,
    "Go": _go,
}
KNOW_NETWORKS = ("requests", "Go")
# It compares `[::1]` with the entries, and the entry that would match makes httpx fail for every URL.
KNOWN_LIMITS = {("standard library", "::1")}


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("host", STRAIGHT)
def test_the_jobs_own_hosts_are_reached_straight(reader: str, host: str, direct: str) -> None:
    assert READERS[reader](direct, host) == ((reader, host) not in KNOWN_LIMITS)


# The last requests for Python 3.9 takes every name that ends like an entry for one of it.
TAKES_ENDS = requests.utils.should_bypass_proxies("http://xc1/", no_proxy="c1")
KNOWN_STRAIGHT = {("requests", host) for host in ("xc1", "2001:db8::1", "mytracker.internal") if TAKES_ENDS}


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("host", OUT)
def test_all_else_takes_the_tunnel(reader: str, host: str, direct: str) -> None:
    assert READERS[reader](direct, host) == ((reader, host) in KNOWN_STRAIGHT)


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("host", IN_NETWORKS)
def test_private_networks_are_straight_for_those_who_know_networks(reader: str, host: str, direct: str) -> None:
    assert READERS[reader](direct, host) == (reader in KNOW_NETWORKS)


# ------------------------------------------------------------------------------------------------ curl itself


class RecordingProxy:
    """A proxy on loopback that notes the host of each request and refuses it."""

    def __init__(self, server: socket.socket) -> None:
        self.server = server
        self.url = f"http://127.0.0.1:{server.getsockname()[1]}"
        self.asked: list[str] = []

    def serve(self) -> None:
        """Until the socket is shut down."""
        with contextlib.suppress(OSError):
            while True:
                client = self.server.accept()[0]
                with client, client.makefile("rb") as lines:
                    self.asked.append(urlsplit(lines.readline().decode().split()[1]).hostname or "")
                    client.sendall(b"HTTP/1.1 403 no\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")


@pytest.fixture
def proxy() -> Iterator[RecordingProxy]:
    with socket.create_server(("127.0.0.1", 0), backlog=64) as server:
        recording = RecordingProxy(server)
        thread = threading.Thread(target=recording.serve)
        thread.start()
        yield recording
        server.shutdown(socket.SHUT_RDWR)
        thread.join()


def _curl(hosts: tuple[str, ...], direct: str, proxy: RecordingProxy) -> list[str]:
    """The hosts that curl asks the proxy for; a direct connection goes to a port where nothing listens."""
    options = [word for host in hosts for word in ("--output", "/dev/null", _url(host).replace("8080", "1"))]
    # No name is looked up, and from a loopback address nothing leaves the machine.
    resolve = [word for host in hosts if not _is_address(host) for word in ("--resolve", f"{host}:1:127.0.0.1")]
    argv = ["curl", "-q", "--silent", "--max-time", "20", "--interface", "127.0.0.1", *resolve, *options]
    environ = {"PATH": os.environ["PATH"], "http_proxy": proxy.url, "no_proxy": direct, "NO_PROXY": direct}
    subprocess.run(argv, env=environ, capture_output=True, timeout=60, check=False)
    return proxy.asked


def _is_address(host: str) -> bool:
    with contextlib.suppress(ValueError):
        return bool(ipaddress.ip_address(host))
    return False


def test_curl_reaches_the_jobs_own_hosts_straight(direct: str, proxy: RecordingProxy) -> None:
    assert _curl(STRAIGHT, direct, proxy) == []


def test_curl_takes_the_tunnel_for_all_else(direct: str, proxy: RecordingProxy) -> None:
    assert _curl(OUT, direct, proxy) == list(OUT)


# ------------------------------------------------------------------------------------------------ what no entry may be


def test_no_entry_is_of_a_kind_that_some_reader_chokes_on(direct: str) -> None:
    for entry in direct.split(","):
        assert entry
        assert not set(entry) & set("[]* \t\n")  # [::1] makes httpx raise InvalidURL for every client
        if ":" in entry:
            assert ipaddress.IPv6Address(entry)  # an address; never a port, never a network
        if "/" in entry:
            assert ipaddress.IPv4Network(entry)
    assert len(direct.split(",")) == len(set(direct.split(",")))


def test_the_check_above_would_catch_the_entry_that_breaks_httpx() -> None:
    with pytest.raises(httpx.InvalidURL):
        _httpx("localhost,[::1]", "internet.test")


_HOSTS = """127.0.0.1 localhost
127.0.1.1 here.example here # as Debian has it
::1 six
10.9.8.7 mine mine.site
192.0.2.9 stranger
"""


@pytest.mark.skipif(
    subprocess.run(["unshare", "-m", "true"], stderr=subprocess.DEVNULL, check=False).returncode != 0,
    reason="needs root, for a mount namespace",
)
def test_a_node_has_the_names_that_its_hosts_file_gives_to_it_and_no_others(tmp_path: Path) -> None:
    (tmp_path / "hosts").write_text(_HOSTS)
    ask = '. "$0"; HOSTNAME=c7.site own=(10.9.8.7); own_names; printf "%s\\n" "${own[@]}"'
    inside = f"mount --bind {tmp_path}/hosts /etc/hosts && exec bash -c '{ask}' {TEMPLATES}/lib/any/nodes.sh"
    done = subprocess.run(["unshare", "-m", "sh", "-c", inside], capture_output=True, text=True, check=True)
    ours = ["c7.site", "c7", "c7.", "localhost", "here.example", "here", "six", "mine", "mine.site"]
    assert done.stdout.split() == ["10.9.8.7", *ours]

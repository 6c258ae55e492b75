"""Read-only: is what is there what the Bundle says, do the jump hosts let us out, does the tunnel answer."""

from __future__ import annotations

import contextlib
import ipaddress
import os
import socket
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from hpcproxy import floors, heard, process
from hpcproxy.account.connect import connect
from hpcproxy.changes import Outcome, preview
from hpcproxy.errors import Reason, TunnelError
from hpcproxy.files.install import bundle_steps
from hpcproxy.files.render import Bundle

_HTTP_OK = 200
_ADDRESS_MAX_BYTES = 200
_NODE_WAIT_S = 60
_ON_NODE = (
    *("srun", "--nodes=1", "--ntasks=1", "--time=5", "--job-name=hpcproxy-init"),
    *("--quiet", f"--immediate={_NODE_WAIT_S}"),  # whoever waits at a terminal gives up sooner than a job does
)
# What a login node or a job asks of this machine, and how each says its version.
_ASKED = (
    (floors.OPENSSH, ("ssh", "-V")),
    (floors.BASH, ("/bin/bash", "--version")),
    (floors.COREUTILS, ("env", "--version")),
    (floors.SLURM, ("srun", "--version")),
)
_SAY_S = 10


def drift(bundle: Bundle) -> list[Path]:
    """Return the files that are not as `bundle` says, missing ones too."""
    return [result.path for result in preview(bundle_steps(bundle)) if result.outcome is not Outcome.UNCHANGED]


def too_old(environ: Mapping[str, str]) -> list[str]:
    """Return a sentence for each program of this machine that is too old for us; what is not there says nothing."""
    words = [floors.LINUX.too_old(os.uname().release)]
    for floor, argv in _ASKED:
        try:
            said = process.run(argv, timeout_s=_SAY_S, environ=environ)
        except (OSError, process.TooMuchError, subprocess.TimeoutExpired):
            continue
        words.append(floor.too_old((said.stdout + said.stderr).decode(errors="replace")))
    return [heard.line(each) for each in words if each]


@dataclass(frozen=True)
class Probe:
    """One login to one jump host: why it failed, None if login, forwarding and the way back all work; else a `note`."""

    jump: str
    why: Reason | None
    note: str = ""


def probe(script: bytes, environ: Mapping[str, str], timeout_s: float, *, on_node: bool = False) -> list[Probe]:
    """Return one Probe for each jump host, made by `script`, the very one and the options that will hold the tunnel.

    `on_node`: from a compute node that Slurm gives for it, within `_NODE_WAIT_S` seconds.
    """
    try:
        done = process.run(
            [*(_ON_NODE if on_node else ()), "/bin/bash", "-p", "-s", "probe"],
            script,
            timeout_s=timeout_s + (_NODE_WAIT_S if on_node else 0),
            environ=environ,
        )
    except OSError as error:
        if not on_node:
            raise TunnelError("ssh", f"/bin/bash cannot be run: {error.strerror}") from None
        why = "is not on PATH" if isinstance(error, FileNotFoundError) else f"cannot be run: {error.strerror}"
        raise TunnelError("slurm", f"srun {why}", "use --on-node where jobs are submitted") from None
    except subprocess.TimeoutExpired:
        raise TunnelError("route", f"no answer within {timeout_s:g} s") from None
    except process.TooMuchError as error:
        raise TunnelError("ssh", f"the probe {error}") from None
    probes = [_parse(heard.line(line, 1000)) for line in done.stdout.splitlines()]
    if not probes:
        where = "slurm" if on_node else "ssh"
        raise TunnelError(where, heard.last_line(done.stderr) or "the probe ended without a word")
    return probes


def _parse(line: str) -> Probe:
    verb, _, rest = line.partition(" ")
    if verb == "ok":
        jump, _, note = rest.partition(" ")
        return Probe(jump, None, note)
    layer, _, text = rest.partition(" ")
    jump, _, reason = text.partition(": ")
    return Probe(jump if reason else "", Reason(layer, reason or text))


@dataclass(frozen=True)
class Answer:
    """What the internet sees: our `address`, after `latency_ms` milliseconds from connect to answer."""

    address: str
    latency_ms: float


@dataclass(frozen=True)
class Said:
    """What a far end answered: its status, the beginning of its text, and how long that took."""

    status: int
    body: str
    latency_ms: float


def fetch_address(proxy_url: str, check_url: str, timeout_s: float) -> Answer:
    """Return the address that `check_url` sees when asked through `proxy_url`; raises TunnelError naming the layer."""
    said = ask(proxy_url, check_url, timeout_s)
    if said.status != _HTTP_OK:
        raise TunnelError("answer", f"{check_url} answered with status {said.status}")
    try:
        ipaddress.ip_address(said.body)
    except ValueError:
        advice = "is check_url right, or does a portal stand between here and there?"
        raise TunnelError("answer", f"{check_url} answered with something that is no address", advice) from None
    return Answer(said.body, said.latency_ms)


def ask(proxy_url: str, url: str, timeout_s: float) -> Said:
    """Return what `url` answers when asked through `proxy_url`; raises TunnelError naming the layer."""
    import http.client  # noqa: PLC0415 - 20 ms that only who connects should pay
    import ssl  # noqa: PLC0415

    target = urlsplit(url)
    host, tls = target.hostname or "", target.scheme == "https"
    port = target.port or (443 if tls else 80)
    begin = time.monotonic()
    late = TunnelError("answer", f"{host} did not answer within {timeout_s:g} s")
    try:
        with connect(proxy_url, host, port, timeout_s) as raw, _ended_after(raw, begin + timeout_s):
            stream = ssl.create_default_context().wrap_socket(raw, server_hostname=host) if tls else raw
            with stream:
                path = (target.path or "/") + (f"?{target.query}" if target.query else "")
                status, body = _get(stream, host, None if port == (443 if tls else 80) else port, path)
    except (OSError, http.client.HTTPException) as error:
        if time.monotonic() >= begin + timeout_s:
            raise late from None
        if not isinstance(error, ssl.SSLError):
            words = f"{host} did not answer through the tunnel: {error or 'it hung up'}"
            raise TunnelError("answer", words) from None
        raise TunnelError("TLS", f"{host}: {error.reason or error}", "is something between here and there?") from None
    if time.monotonic() >= begin + timeout_s:
        raise late
    return Said(status, body, (time.monotonic() - begin) * 1000)


@contextlib.contextmanager
def _ended_after(sock: socket.socket, deadline: float) -> Iterator[None]:
    """Have the connection cut at `deadline`: a far end that says a byte now and then keeps every wait short."""
    with sock.dup() as same:  # TLS takes the other

        def cut() -> None:
            with contextlib.suppress(OSError):
                same.shutdown(socket.SHUT_RDWR)

        timer = threading.Timer(max(0.0, deadline - time.monotonic()), cut)
        timer.start()
        try:
            yield
        finally:
            timer.cancel()
            timer.join()


def _get(stream: socket.socket, host: str, port: int | None, path: str) -> tuple[int, str]:
    import http.client  # noqa: PLC0415 - as above

    connection = http.client.HTTPConnection(host, port)
    connection.sock = stream
    connection.request("GET", path, headers={"User-Agent": "hpcproxy", "Accept": "text/plain", "Connection": "close"})
    response = connection.getresponse()
    return response.status, response.read(_ADDRESS_MAX_BYTES).decode(errors="replace").strip()


def failures(probes: Sequence[Probe]) -> list[Probe]:
    """Return those of `probes` that failed."""
    return [probe for probe in probes if probe.why is not None]

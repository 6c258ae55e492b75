"""A tunnel for as long as doctor looks, where none is up. Runs processes; writes to a directory of its own, then gone.

It is what `hpcproxy up` starts, but for its place: files, state and port are its own, so no shell of the user's finds
it, and what is installed stays as it is. It ends with doctor, however that ends.
"""

from __future__ import annotations

import shutil
import socket
import tempfile
import threading
from dataclasses import dataclass, field
from pathlib import Path

from hpcproxy import changes
from hpcproxy.account import tunnels
from hpcproxy.account.account import Account
from hpcproxy.account.tunnels import Tunnel
from hpcproxy.config.model import Config
from hpcproxy.config.places import Home
from hpcproxy.errors import HpcproxyError, TunnelError
from hpcproxy.files.install import bundle_steps
from hpcproxy.files.plan import account_plan
from hpcproxy.files.render import render

_END_S = 15


@dataclass
class Temporary:
    """At most one temporary tunnel; `end` is to be called whatever happens."""

    _ended: threading.Event = field(default_factory=threading.Event)
    _begun: threading.Event = field(default_factory=threading.Event)
    _supervisor: threading.Thread | None = None
    _found: Tunnel | None = None
    _error: HpcproxyError | None = None

    def start(self, config: Config, account: Account) -> Tunnel:
        """Return a tunnel with the settings `config`, once it is ready; TunnelError, and then another may be tried."""
        self._begun.clear()
        self._error = None
        self._supervisor = threading.Thread(target=self._keep, args=(config, account), daemon=True)
        self._supervisor.start()
        self._begun.wait()
        if self._found is None:
            raise self._error or TunnelError("tunnel", "did not come up")
        return self._found

    def end(self) -> None:
        """The tunnel is gone, with all that it had written."""
        self._ended.set()
        if self._supervisor is not None:
            self._supervisor.join(_END_S)

    def _keep(self, config: Config, account: Account) -> None:
        """Have it until the end, in one thread: the kernel ends the supervisor with the thread that started it."""
        try:
            place = Path(tempfile.mkdtemp(prefix="hpcproxy-doctor-"))
        except OSError as error:
            self._error = TunnelError("state", f"no directory can be made in {tempfile.gettempdir()}: {error.strerror}")
            self._begun.set()
            return
        try:
            tunnel = _up(config, account, place)
            self._found = tunnel
            self._begun.set()
            self._ended.wait()
            tunnels.stop(tunnel)
        except HpcproxyError as error:
            self._error = error
        finally:
            shutil.rmtree(place, ignore_errors=True)
            self._begun.set()


def _up(config: Config, account: Account, place: Path) -> Tunnel:
    home = Home(place)
    bundle = render(account_plan(config.model_copy(update={"port": _free_port()}), home))
    known = changes.read(account.home.known_hosts) or b""
    changes.apply([*bundle_steps(bundle), changes.Write(home.known_hosts, known, 0o600)])
    script = bundle.named("tunnel.sh")
    if script is None:
        raise TunnelError("configuration", "the bundle has no tunnel.sh")
    kept_out = ("SSH_AUTH_SOCK", "HPCPROXY_STATE")
    environ = {name: value for name, value in account.environ.items() if name not in kept_out}
    environ["TMPDIR"] = str(place)
    tunnels.start(script.artifact.path, environ, config.ready_timeout_s, lambda _text: None, ends_with_us=True)
    for tunnel in tunnels.find(environ, "shell"):
        if place in tunnel.directory.parents:
            return tunnel
    raise TunnelError("tunnel", "came up and was gone again")


def _free_port() -> int:
    """Return a port at which nobody listens now; the kernel takes it from those that it gives to clients."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port

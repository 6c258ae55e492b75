"""The keys of all hosts of an inventory: asked for side by side, through its gateway too, kept together. Connects."""

from __future__ import annotations

import contextlib
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Union

from hpcproxy.cluster import inventory
from hpcproxy.cluster.inventory import Inventory
from hpcproxy.cluster.pool import Pool
from hpcproxy.cluster.run import Request, limit
from hpcproxy.config.model import Jump
from hpcproxy.errors import ConfigError, Reason, TunnelError
from hpcproxy.openssh import configuration, hops, host_key, known_hosts, recognition
from hpcproxy.openssh.host_key import Way
from hpcproxy.openssh.known_hosts import KnownHosts
from hpcproxy.openssh.recognition import Consent, Shown
from hpcproxy.quoting import word

_PRIVATE_MODE = 0o600
_LOOK_S = 0.05
OnKey = Callable[[Union[Shown, int]], None]


def trust(request: Request, *, replace_key: bool, consent: Consent, on_key: OnKey) -> list[Shown]:
    """Fetch the keys of all hosts and jump hosts, before any login, and keep what `consent` takes.

    A changed key is only asked about with `replace_key`. Hosts behind a gateway are asked through it, by one login
    there, once its own key is kept.
    """
    told, config = inventory.read(request.inventory)
    hosts = inventory.limit(inventory.hosts(told), limit(request))
    if told.known_hosts is None:
        raise ConfigError(str(request.inventory), "known_hosts", "is not set")
    collector = KeyCollector(told, told.known_hosts, request.fanout, request.timeout_s, replace_key)
    return collector.keep(config.jump_hosts, hosts, consent, on_key)


@dataclass(frozen=True)
class KeyCollector:
    """Who asks for keys: with which bounds, and into which list they go."""

    told: Inventory
    path: Path
    fanout: int
    timeout_s: float
    replace_key: bool

    def keep(self, jumps: Sequence[Jump], hosts: Sequence[str], consent: Consent, on_key: OnKey) -> list[Shown]:
        """Ask jump hosts, gateway, hosts and controllers, and keep what `consent` takes."""
        told = self.told
        controllers = inventory.expand(told.controllers) if told.controllers else ()
        # A port that the inventory does not name is for ~/.ssh/config to say.
        port = told.port if "port" in told.model_fields_set else None
        inside = [Jump(host, None, port) for host in dict.fromkeys((*hosts, *controllers))]
        first = list(dict.fromkeys([*jumps, *([told.gateway] if told.gateway else [])]))
        if told.gateway is None:
            return self._group([*first, *inside], None, consent, on_key)
        shown = self._group(first, None, consent, on_key)
        try:
            with self._gateway(told.gateway) as proxy:
                return shown + self._group(inside, proxy, consent, on_key)
        except TunnelError as error:
            why = replace(error.why, reason=f"behind the gateway {told.gateway}: {error.why.reason}")
            away = [TunnelError.of(why, str(host)) for host in inside]
            return shown + [Shown(str(host), error=one) for host, one in zip(inside, away)]

    def _group(self, asked: Sequence[Jump], proxy: str | None, consent: Consent, on_key: OnKey) -> list[Shown]:
        own = KnownHosts.read(self.path)
        on_key(len(asked))

        def ask(jump: Jump) -> Shown:
            shown = self._ask(jump, own, proxy)
            on_key(shown)
            return shown

        with Pool(max_workers=max(1, min(self.fanout, len(asked)))) as pool:
            shown = list(pool.map(ask, asked))
        doubtful = [one for one in shown if one.asks]
        reasons = dict(zip((id(one) for one in doubtful), consent(doubtful) if doubtful else ()))
        decided = [one.refused(reasons[id(one)]) if reasons.get(id(one)) else one for one in shown]
        recognition.keep(self.path, own, decided, _PRIVATE_MODE)
        return decided

    def _ask(self, jump: Jump, own: KnownHosts, proxy: str | None) -> Shown:
        try:
            resolved = configuration.ask(jump, user=self.told.user)
        except TunnelError as error:
            return Shown(str(jump), error=error)
        user = () if jump.user else ("-l", self.told.user)
        shown = recognition.recognise(Way(resolved, proxy, user), own, self.timeout_s)
        return shown if self.replace_key else shown.unless_changed("trust")

    @contextlib.contextmanager
    def _gateway(self, gateway: Jump) -> Iterator[str]:
        """Have one login at the gateway for all hosts behind it: the ProxyCommand that goes through it."""
        with host_key.place("/tmp", str(gateway)) as name:  # noqa: S108 - mkdtemp; short
            socket, log = Path(name, "ctl"), Path(name, "log")
            argv = [
                "ssh",
                "-N",
                "-o",
                "ControlMaster=yes",
                "-o",
                f"ControlPath={socket}",
                *hops.alone(),
                "-E",
                str(log),
            ]
            argv += [*known_hosts.only(self.path), "-o", f"ConnectTimeout={max(1, int(self.timeout_s))}"]
            on_the_way = hops.of(configuration.ask(gateway, user=self.told.user))
            if on_the_way:
                argv += ["-o", f"ProxyCommand={hops.proxy_command(on_the_way, Path(name), self.timeout_s)}"]
            if self.told.identity is not None:
                argv += ["-i", str(self.told.identity), "-o", "IdentitiesOnly=yes"]
            try:
                process = subprocess.Popen(
                    [*argv, *configuration.target(gateway, self.told.user)],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    start_new_session=True,
                )
            except OSError as error:
                raise configuration.cannot_run(error, str(gateway)) from None
            try:
                self._await(process, socket, log)
                # If the socket should be gone it must not log in by itself, once for each host.
                never = "-o ControlMaster=no -o BatchMode=yes -o ProxyCommand=false"
                yield f"ssh -S {socket} {never} -W '[%h]:%p' -- {word(gateway.host)}"
            finally:
                process.terminate()
                process.wait()

    def _await(self, process: subprocess.Popen[bytes], socket: Path, log: Path) -> None:
        deadline = time.monotonic() + 2 * self.timeout_s
        while not socket.exists():
            if process.poll() is not None or time.monotonic() > deadline:
                words = log.read_text(errors="replace").splitlines() if log.exists() else []
                late = Reason("route", f"does not answer within {2 * self.timeout_s:g} s")
                raise TunnelError.of(hops.meaning(words) or late)
            time.sleep(_LOOK_S)

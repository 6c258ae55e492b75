"""The host keys of all hosts and jump hosts: fetched before any login, shown, and kept. Connects."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from hpcproxy import deploy, hostkey, install, inventory
from hpcproxy.config import Jump
from hpcproxy.errors import ConfigError, HpcproxyError, WayOutError
from hpcproxy.install import Write
from hpcproxy.run import Request, limit, login

_PRIVATE_MODE = 0o600


@dataclass(frozen=True)
class Trusted:
    """The key that one host showed: `news` is new, as before, changed, or empty with an error."""

    host: str
    fingerprint: str
    news: str
    error: HpcproxyError | None = None


def trust(request: Request, *, replace: bool, on_key: Callable[[Trusted], None]) -> list[Trusted]:
    """Fetch the keys of all hosts and jump hosts, before any login, and keep new ones; a changed one only on demand.

    Hosts behind a gateway are asked through it, by a login there, once its own key is shown and kept.
    """
    told, config = inventory.read(request.inventory)
    known_hosts = told.known_hosts
    if known_hosts is None:
        raise ConfigError(str(request.inventory), "known_hosts", "is not set")
    hosts = inventory.limit(inventory.hosts(told), limit(request))
    controllers = inventory.expand(told.controllers) if told.controllers else ()
    first = [*config.jump, *([told.gateway] if told.gateway else [])]
    inside = [Jump(host, None, told.port) for host in dict.fromkeys((*hosts, *controllers))]
    if told.gateway is None:
        return _trust(request, known_hosts, [*first, *inside], None, replace=replace, on_key=on_key)
    shown = _trust(request, known_hosts, first, None, replace=replace, on_key=on_key)
    fleet = deploy.Fleet(login(told, known_hosts, request.timeout_s))
    return shown + _trust(request, known_hosts, inside, fleet, replace=replace, on_key=on_key)


def _trust(
    request: Request,
    known_hosts: Path,
    asked: Sequence[Jump],
    fleet: deploy.Fleet | None,
    *,
    replace: bool,
    on_key: Callable[[Trusted], None],
) -> list[Trusted]:
    from concurrent.futures import ThreadPoolExecutor  # noqa: PLC0415 - only this verb asks many hosts by itself

    text = (install.read(known_hosts) or b"").decode(errors="replace")

    def fetch(jump: Jump) -> tuple[Trusted, hostkey.HostKey | None]:
        try:
            key = hostkey.fetch(jump, int(request.timeout_s), fleet.gateway() if fleet else None)
        except (WayOutError, deploy.NoGatewayError) as error:
            return Trusted(str(jump), "", "", error), None
        # A key of another kind than the one we know is no news but a change: a stranger chooses which kind to show.
        before = hostkey.pinned(text, key.name, key.kind)
        news = "as before" if before == key.data else "changed" if hostkey.is_other(text, key) else "new"
        return Trusted(str(jump), f"{key.kind} {key.fingerprint}", news), key

    shown = []
    with ThreadPoolExecutor(max_workers=request.fanout) as pool:
        for trusted, key in pool.map(fetch, asked):
            on_key(trusted)
            shown.append(trusted)
            if key is not None and (trusted.news == "new" or replace):
                text = hostkey.pin(text, key)
    install.apply([Write(known_hosts, text.encode(), _PRIVATE_MODE)])
    return shown

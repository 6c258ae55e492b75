"""What an admin asked for, read and checked, and one action on hosts: inventory, files, logins. Connects."""

from __future__ import annotations

import gc
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from hpcproxy import changes
from hpcproxy.cluster import fan_out, inventory, plugstack, protocol
from hpcproxy.cluster.as_user import Accounts
from hpcproxy.cluster.enable import Enablement
from hpcproxy.cluster.inventory import Inventory
from hpcproxy.cluster.outcome import GOOD, HostOutcome, OnHost, Outcomes
from hpcproxy.cluster.plugin import Plugin
from hpcproxy.cluster.site_plan import site_plan
from hpcproxy.config.model import Config
from hpcproxy.config.places import PROGRAMS
from hpcproxy.errors import ConfigError, FileError, UsageError
from hpcproxy.files.plan import PLUGIN, TASK_PROLOG, Plan
from hpcproxy.files.render import Bundle, render
from hpcproxy.openssh.known_hosts import KnownHosts, lines_for_nodes

FAILED = "@failed"
_BUILT = Path(__file__).resolve().parents[2] / "spank"
LAST_RUN = ".hpcproxy-last-run.json"  # beside the inventory; `--limit @failed` reads it

_SHUT = "; where hosts share it, one that may write it must be among `nodes` too"


@dataclass(frozen=True)
class Request:
    """What the command line asks for; the inventory's path, and bounds."""

    inventory: Path
    limit: str | None = None
    fanout: int = 32
    timeout_s: float = 30
    via: str | None = None

    @property
    def last_run(self) -> Path:
        """Where the outcome of the last run is kept."""
        return self.inventory.absolute().parent / LAST_RUN


@dataclass(frozen=True)
class Site:
    """The inventory, read and checked, with the hosts to work on and the files they shall have."""

    inventory: Inventory
    config: Config
    hosts: tuple[str, ...]
    plan: Plan
    bundle: Bundle
    known_hosts: Path


def read_site(request: Request, *, keys_needed: bool = True) -> Site:
    """Return the site that the inventory describes; everything is checked before the first connection."""
    told, config = inventory.read(request.inventory, via=request.via)
    hosts = inventory.limit(inventory.hosts(told), limit(request))
    known_hosts = told.known_hosts
    if known_hosts is None:
        raise ConfigError(str(request.inventory), "known_hosts", "is not set")
    if told.site_task_prolog == PROGRAMS / TASK_PROLOG:
        raise ConfigError(str(request.inventory), "site_task_prolog", "is ours, which would run itself without end")
    pinned = lines_for_nodes(KnownHosts.read(known_hosts), config.jump_hosts)
    missing = [str(jump) for jump, lines in pinned.items() if not lines]
    if keys_needed and missing:
        raise FileError(known_hosts, f"holds no key of {', '.join(missing)}", "look at it with: hpcproxy trust")
    plan = site_plan(told, config, "".join(pinned.values()), _service_key(told), _plugin(told))
    return Site(told, config, hosts, plan, render(plan), known_hosts)


def limit(request: Request) -> str | None:
    """Return the node set that `--limit` names, with @failed looked up; raises UsageError."""
    if request.limit != FAILED:
        return request.limit
    try:
        failed = json.loads(request.last_run.read_text())["failed"]
    except (OSError, ValueError, LookupError, TypeError):  # it is not there, or somebody else's
        raise UsageError(f"--limit {FAILED}: no earlier run is on record beside {request.inventory}") from None
    if not failed:
        raise UsageError(f"--limit {FAILED}: no host failed in the last run")
    return str(failed)


def _service_key(told: Inventory) -> bytes | None:
    if told.mode != "service" or told.service_key is None:
        return None
    key = changes.read(told.service_key)
    if key is None:
        raise FileError(told.service_key, "does not exist", "make it with: hpcproxy jump-kit")
    return key


def _plugin(told: Inventory) -> bytes | None:
    if told.via != inventory.SPANK:
        return None
    path = told.spank_plugin or _BUILT / PLUGIN
    plugin = changes.read(path)
    if plugin is None:
        raise FileError(path, "does not exist", "build it with make -C spank, or say where it is with `spank_plugin`")
    if plugstack.built_for(plugin) is None:
        raise FileError(path, "is no SPANK plugin of ours", "build it with: make -C spank")
    return plugin


@dataclass
class Run:
    """One action on hosts: what it needs, and whose files it is about: root's, or those of the account logged in to."""

    site: Site
    request: Request
    fleet: fan_out.Fleet
    as_user: bool = False

    def act(
        self,
        action: str,
        hosts: Sequence[str],
        on_host: OnHost,
        *,
        want_content: bool = False,
        in_force: bool | None = None,
        on_trial: bool = False,
    ) -> Outcomes:
        """Carry `action` out on `hosts` and return every host's outcome; `in_force`: as `protocol.SlurmPlace` has it.

        `on_trial`: the others are to stay as they are, whatever these need.
        """
        if self.as_user:
            return self._accounts().act(action, tuple(hosts), on_host, want_content=want_content)
        told = self.site.inventory
        slurm = protocol.SlurmPlace(
            str(told.slurm_bin or ""), f"{told.slurm_directory}/slurm.conf", in_force, port=self.site.config.port
        )

        def messages(place: protocol.SlurmPlace) -> dict[str, bytes]:
            message = protocol.message(
                self.site.bundle, action, self.fleet.token, want_content=want_content, slurm=place
            )
            each = dict.fromkeys(hosts, message)
            if action == "apply":
                # Of the first only, for each program that is run costs: mostly all have the same.
                each[hosts[0]] = protocol.with_facts(message)
            return each

        plugged = tuple(hosts) if on_trial else self.plugged
        return self._ask_again(messages(slurm), lambda: messages(replace(slurm, unplugged=True)), plugged, on_host)

    def _ask_again(
        self,
        given: Mapping[str, bytes],
        unplugged: Callable[[], Mapping[str, bytes]],
        plugged: Sequence[str],
        on_host: OnHost,
    ) -> Outcomes:
        """Send what is `given`, and once more where what was in the way is so no longer.

        That is a directory that cannot be written, which another host may have written since; and the line for a plugin
        that goes, which is taken out of the plugstack.conf of `plugged`: then `unplugged` is what is sent.
        """
        held: dict[str, HostOutcome] = {}

        def hear(outcome: HostOutcome) -> None:
            if outcome.is_shut or outcome.is_plugged:
                held[outcome.host] = outcome
            else:
                on_host(outcome)

        first = self.fleet.ask(given, hear)
        again: dict[str, bytes] = {}
        if any(host.word in GOOD for host in first.hosts):
            again = {host: given[host] for host, outcome in held.items() if outcome.is_shut}
        in_the_way = [host for host, outcome in held.items() if outcome.is_plugged]
        taken_out = self.plugin.off(plugged) if in_the_way else Outcomes(())
        if in_the_way and taken_out.good:
            free = unplugged()
            again.update({host: free[host] for host in in_the_way})
        held = {host: _told(outcome, taken_out) for host, outcome in held.items() if host not in again}
        for outcome in held.values():
            on_host(outcome)
        second = self.fleet.ask(again, on_host)
        return first.replaced(second.joined(Outcomes(tuple(held.values()))))

    @property
    def plugin(self) -> Plugin:
        """What puts the plugin's line into plugstack.conf and takes it out."""
        return Plugin(self.fleet, self.site.inventory)

    @property
    def plugged(self) -> tuple[str, ...]:
        """The hosts whose plugstack.conf is to change: all, and the controllers, from which nodes may get theirs.

        With `--limit` only those: what a controller has is for the others too.
        """
        if self.request.limit is not None:
            return self.site.hosts
        return tuple(dict.fromkeys((*self.site.hosts, *enablement_of(self).controllers)))

    @property
    def asked(self) -> str:
        """The host that is asked how Slurm runs."""
        return (*enablement_of(self).controllers, *self.site.hosts)[0]

    def _accounts(self) -> Accounts:
        site = self.site
        pinned = "".join(lines_for_nodes(KnownHosts.read(site.known_hosts), site.config.jump_hosts).values())
        return Accounts(self.fleet, site.inventory, site.config, pinned)


def _told(outcome: HostOutcome, taken_out: Outcomes) -> HostOutcome:
    """Return `outcome`, of a host that is not asked once more, with what is to be done."""
    if outcome.is_shut:
        return replace(outcome, cause=f"{outcome.cause}{_SHUT}")
    reasons = dict.fromkeys(f"{host.host}: {host.cause}" for host in taken_out.hosts if host.word not in GOOD)
    return replace(outcome, cause=f"the SPANK plugin stays, for plugstack.conf may name it: {'; '.join(reasons)}")


def start(request: Request, *, as_user: bool = False) -> Run:
    """Return a run whose keys are parsed and whose connections are built, none of them open."""
    gc.freeze()  # what is loaded stays; `Fleet.ask` looks for garbage among the rest
    site = read_site(request)
    told = login(site.inventory, site.known_hosts, request.timeout_s, as_user=as_user)
    return Run(site, request, fan_out.Fleet(told, request.fanout), as_user)


def login(told: Inventory, known_hosts: Path, timeout_s: float, *, as_user: bool = False) -> fan_out.Login:
    """Return how the inventory's hosts are logged in to."""
    # What the inventory does not say, ssh's configuration may.
    user = told.user if "user" in told.model_fields_set else None
    port = told.port if "port" in told.model_fields_set else None
    become = "" if as_user else told.become or ""
    return fan_out.Login(user, port, told.identity, told.gateway, known_hosts, timeout_s, become)


def enablement_of(run: Run) -> Enablement:
    """Return what puts our lines into slurm.conf and takes them out."""
    return Enablement(run.fleet, run.site.inventory)

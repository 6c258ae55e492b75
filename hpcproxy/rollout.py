"""One function per verb that an admin types: a few calls, each named for its stage. Returns values; prints nothing."""

from __future__ import annotations

import gc
import json
import secrets
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from hpcproxy import deploy, hostkey, install, inventory, jumpkit, proof, slurmconf, wire
from hpcproxy.asuser import Accounts
from hpcproxy.config import Config, Jump
from hpcproxy.errors import ConfigError, FileError, HpcproxyError, UsageError, WayOutError
from hpcproxy.install import Write
from hpcproxy.inventory import Inventory
from hpcproxy.outcome import HostOutcome, Outcomes
from hpcproxy.plan import Plan
from hpcproxy.render import Bundle, render
from hpcproxy.siteplan import site_plan
from hpcproxy.switch import Switch, read

_PRIVATE_MODE = 0o600
FAILED = "@failed"
LAST_RUN = ".hpcproxy-last-run.json"  # beside the inventory; `--limit @failed` reads it

OnHost = Callable[[HostOutcome], None]


@dataclass(frozen=True)
class Request:
    """What the command line asks for; the inventory's path, and bounds."""

    inventory: Path
    limit: str | None = None
    fanout: int = 32
    timeout_s: float = 30

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
    told, config = inventory.read(request.inventory)
    hosts = inventory.limit(inventory.hosts(told), _limit(request))
    known_hosts = told.known_hosts
    if known_hosts is None:
        raise ConfigError(str(request.inventory), "known_hosts", "is not set")
    text = (install.read(known_hosts) or b"").decode(errors="replace")
    pinned = "".join(_pinned_lines(text, jump) for jump in config.jump)
    if keys_needed and len(pinned.splitlines()) < len(config.jump):
        missing = [str(jump) for jump in config.jump if not _pinned_lines(text, jump)]
        raise FileError(known_hosts, f"holds no key of {', '.join(missing)}", "look at it with: hpcproxy trust")
    plan = site_plan(told, config, pinned, _service_key(told))
    return Site(told, config, hosts, plan, render(plan), known_hosts)


def _limit(request: Request) -> str | None:
    if request.limit != FAILED:
        return request.limit
    try:
        failed = json.loads(request.last_run.read_text())["failed"]
    except (OSError, ValueError, KeyError):
        raise UsageError(f"--limit {FAILED}: no earlier run is on record beside {request.inventory}") from None
    if not failed:
        raise UsageError(f"--limit {FAILED}: no host failed in the last run")
    return str(failed)


def _pinned_lines(text: str, jump: Jump) -> str:
    name = known_name(jump)
    return "".join(f"{line}\n" for line in text.splitlines() if name in line.split(" ", 1)[0].split(","))


def known_name(jump: Jump) -> str:
    """Return what ssh looks up in known_hosts: HOST, or [HOST]:PORT for another port than 22."""
    return jump.host if jump.port in (None, 22) else f"[{jump.host}]:{jump.port}"


def _service_key(told: Inventory) -> bytes | None:
    if told.mode != "service" or told.service_key is None:
        return None
    key = install.read(told.service_key)
    if key is None:
        raise FileError(told.service_key, "does not exist", "make it with: hpcproxy jump-kit")
    return key


# ------------------------------------------------------------------------------------------------ trust


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
    hosts = inventory.limit(inventory.hosts(told), _limit(request))
    controllers = inventory.expand(told.controllers) if told.controllers else ()
    first = [*config.jump, *([told.gateway] if told.gateway else [])]
    inside = [Jump(host, None, told.port) for host in dict.fromkeys((*hosts, *controllers))]
    if told.gateway is None:
        return _trust(request, known_hosts, [*first, *inside], None, replace=replace, on_key=on_key)
    shown = _trust(request, known_hosts, first, None, replace=replace, on_key=on_key)
    fleet = deploy.Fleet(_login(told, known_hosts, request.timeout_s))
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


# ------------------------------------------------------------------------------------------------ the fleet


@dataclass
class Run:
    """One action on hosts: what it needs, and whose files it is about: root's, or those of the account logged in to."""

    site: Site
    request: Request
    fleet: deploy.Fleet
    as_user: bool = False
    token: str = field(default_factory=lambda: f"hpcproxy-{secrets.token_hex(8)}")

    def act(self, action: str, hosts: Sequence[str], on_host: OnHost, *, want_content: bool = False) -> Outcomes:
        """Carry `action` out on `hosts` and return every host's outcome."""
        if self.as_user:
            return self._accounts().act(action, tuple(hosts), on_host, want_content=want_content)
        message = wire.message(self.site.bundle, action, self.token, want_content=want_content)
        messages = dict.fromkeys(hosts, message)
        if action == "apply" and self.asked in messages:
            messages[self.asked] = wire.with_command(message, self._show_config)
        return proof.ask(self.fleet, messages, self.token, self.request.fanout, on_host)

    @property
    def _show_config(self) -> tuple[str, ...]:
        # A Slurm that does not answer must not look like a host that does not.
        limit_s = min(10, self.request.timeout_s / 2)
        return ("timeout", f"{limit_s:g}", *slurmconf.SHOW_CONFIG)

    @property
    def asked(self) -> str:
        """The host that is asked how Slurm runs."""
        return (*switch_of(self).controllers, *self.site.hosts)[0]

    def _accounts(self) -> Accounts:
        site = self.site
        text = (install.read(site.known_hosts) or b"").decode(errors="replace")
        pinned = "".join(_pinned_lines(text, jump) for jump in site.config.jump)
        return Accounts(self.fleet, site.inventory, site.config, pinned, self.token, self.request.fanout)


def start(request: Request, *, as_user: bool = False) -> Run:
    """Return a run whose keys are parsed and whose connections are built, none of them open."""
    gc.freeze()  # what is loaded stays; `Fleet.ask` looks for garbage among the rest
    site = read_site(request)
    return Run(site, request, deploy.Fleet(_login(site.inventory, site.known_hosts, request.timeout_s)), as_user)


def _login(told: Inventory, known_hosts: Path, timeout_s: float) -> deploy.Login:
    return deploy.Login(told.user, told.port, told.identity, told.gateway, known_hosts, timeout_s)


def roll_out(run: Run, on_host: OnHost, *, canary: int = 0) -> Outcomes:
    """Bring all hosts to the bundle's version; with `canary` the rest only if the first ones are right afterwards."""
    hosts = run.site.hosts
    if not canary or canary >= len(hosts):
        return run.act("apply", hosts, on_host)
    first = run.act("apply", hosts[:canary], on_host)
    checked = run.act("look", hosts[:canary], _unheard)
    if not first.good or not checked.as_wanted:
        return first.skipping(hosts[canary:], "left alone: the first hosts are not right")
    return first.joined(run.act("apply", hosts[canary:], on_host))


def _unheard(_outcome: HostOutcome) -> None:
    return None


def look(run: Run, on_host: OnHost, *, want_content: bool = False) -> Outcomes:
    """Return how every host differs from what it shall have; nothing is changed."""
    return run.act("look", run.site.hosts, on_host, want_content=want_content)


def check_contract(run: Run, seen: Outcomes, on_host: OnHost) -> Outcomes:
    """Run the installed scripts as slurmd would on every host that was `seen` to have ours; a breach is a failure."""
    hosts = tuple(host.host for host in seen.hosts if host.word in ("unchanged", "would"))
    message = proof.contract_message(run.site.bundle, run.site.inventory.policy, run.token)
    return proof.ask(run.fleet, dict.fromkeys(hosts, message), run.token, run.request.fanout, on_host)


def prove_key(run: Run, on_host: OnHost) -> Outcomes | None:
    """Prove from the first host what the service key can do at the jump hosts; None in user mode."""
    site = run.site
    if site.inventory.mode != "service":
        return None
    message = proof.key_message(site.inventory, site.config, site.plan.values, run.token)
    return proof.ask(run.fleet, {site.hosts[0]: message}, run.token, 1, on_host)


# ------------------------------------------------------------------------------------------------ jump-kit


@dataclass(frozen=True)
class Kit:
    """What `jump-kit` wrote, and the rules that only the gate can hold."""

    results: list[install.Result]
    beyond_sshd: tuple[str, ...]


def jump_kit(path: Path, directory: Path) -> Kit:
    """Write the service key (an old one is kept), its authorized_keys line and sshd's Match block to `directory`."""
    told, config = inventory.read(path, key_needed=False)
    key = directory / jumpkit.KEY_FILE
    if not key.exists():
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        argv = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "hpcproxy service key", "-f", str(key)]
        done = subprocess.run(argv, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)
        if done.returncode:
            raise FileError(key, f"cannot be made: {done.stderr.strip()}")
    public = (install.read(Path(f"{key}.pub")) or b"").decode()
    line = jumpkit.authorized_keys_line(public, config)
    steps = [
        Write(directory / jumpkit.LINE_FILE, line.encode(), 0o644),
        Write(directory / jumpkit.MATCH_FILE, jumpkit.match_block(told, config).encode(), 0o644),
    ]
    return Kit(install.apply(steps), jumpkit.beyond_sshd(config))


# ------------------------------------------------------------------------------------------------ back and away


def roll_back(run: Run, on_host: OnHost) -> Outcomes:
    """Bring every host back to the version before its present one."""
    return run.act("rollback", run.site.hosts, on_host)


def undeploy(run: Run, on_host: OnHost) -> Outcomes:
    """Remove everything of ours from every host; slurm.conf first, where `--enable` changed it."""
    # A part of the hosts goes only if slurm.conf does not need them, which each of them looks at itself.
    if run.site.inventory.controllers and run.request.limit is None and not run.as_user:
        changed = switch_of(run).off(run.site.hosts)
        if not changed.good:
            return changed
    return run.act("remove", run.site.hosts, on_host)


def switch_of(run: Run) -> Switch:
    """Return what puts our lines into slurm.conf and takes them out."""
    return Switch(run.fleet, run.site.inventory, run.token, run.request.fanout)


def check_enable(run: Run) -> None:
    """Raise UsageError, before anything is done, if the inventory does not say what `enable` needs."""
    if not run.site.inventory.controllers:
        raise UsageError("--enable changes slurm.conf on the controller too: name it with `controllers:`")


def enable(run: Run) -> Outcomes:
    """Put our include line into slurm.conf on all hosts that have one, and let Slurm read it."""
    return switch_of(run).on(run.site.hosts)


def slurm_lines(run: Run, outcomes: Outcomes) -> list[str]:
    """Return what stands in our way in the running configuration and the lines that it lacks, in words.

    `outcomes` are those of `roll_out`; the host that is asked has said it there, if it has changed.
    """
    told = run.site.inventory
    changed = [host.answer for host in outcomes.hosts if host.host == run.asked and host.word == "changed"]
    running = read(changed[0]) if changed else switch_of(run).running(run.asked)
    if running is None:
        return ["slurm.conf could not be looked at; it needs:", *(f"    {line}" for line in slurmconf.lines(told))]
    words = slurmconf.in_the_way(running, told)
    lacking = slurmconf.missing(running, told)
    if lacking:
        words += ["slurm.conf lacks these lines; once all hosts are right, add them, or say deploy --enable:"]
        words += [f"    {line}" for line in lacking]
        words += slurmconf.remarks(running, told)
    return words


def keep_record(request: Request, outcomes: Outcomes) -> None:
    """Remember which hosts failed, for `--limit @failed`; a place that cannot be written costs only that."""
    failed = inventory.fold(outcomes.failed) if outcomes.failed else ""
    try:
        request.last_run.write_text(json.dumps({"failed": failed}) + "\n")
    except OSError:
        return


def write_report(path: Path, verb: str, outcomes: Outcomes) -> None:
    """Write `outcomes` as JSON to `path`; raises FileError."""
    report: Mapping[str, object] = {"version": 1, "verb": verb, "good": outcomes.good, "hosts": outcomes.as_json()}
    install.apply([Write(path, (json.dumps(report, indent=2) + "\n").encode(), None)])

"""One function per verb the user types: a few calls, each named for its stage. Returns values; prints nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hpcproxy import changes
from hpcproxy.account import checks, login_shell, overrides, site_word, tunnels
from hpcproxy.account.account import Account
from hpcproxy.changes import Result, Step, Write
from hpcproxy.config import edit
from hpcproxy.config.layers import Layer, read_layer, resolve
from hpcproxy.config.model import Config, Jump
from hpcproxy.errors import TunnelError, UsageError
from hpcproxy.files import install, modulefile
from hpcproxy.files.plan import TUNNEL, Artifact, account_plan
from hpcproxy.files.render import Bundle, File, render
from hpcproxy.files.stamp import Made
from hpcproxy.openssh import configuration, reasons, recognition
from hpcproxy.openssh.host_key import Way
from hpcproxy.openssh.known_hosts import KnownHosts
from hpcproxy.openssh.recognition import Consent, Shown

Say = Callable[[str], None]

_PRIVATE_MODE = 0o600
_BY = {
    "direct": "their nodes' own route",
    "auto": "the first way that serves",
    "adopt": "the ssh that you have logged in",
    "reverse": "`hpcproxy serve`, which you run where you are logged in",
}
_NEW_CONFIG = "# hpcproxy settings; every key: docs/configuration.md\n"


@dataclass(frozen=True)
class Settings:
    """The configuration in force, read and checked once; the flags in it; both files as they were, None: no file."""

    config: Config
    flags: Mapping[str, Any]
    text: str | None
    site_text: str | None = None


def settings_of(account: Account, flags: Mapping[str, Any] | None = None) -> Settings:
    """Return what is in force: site file, user file, then `flags`; raises ConfigError."""
    site, user = read_layer(account.site_config), read_layer(account.home.config)
    given = Layer("command line", flags or {})
    return Settings(resolve(site, user, given), given.values, user.text, site.text)


def bundle_of(account: Account, config: Config) -> Bundle:
    """Return the files that `config` amounts to in this account."""
    return render(account_plan(config, account.home))


def _config_step(account: Account, flags: Mapping[str, Any], text: str | None) -> Write:
    """Return the step that keeps `flags` in config.yaml, which holds `text`, and everything else in it as it is."""
    changed = edit.change(_NEW_CONFIG if text is None else text, flags, str(account.home.config))
    return Write(account.home.config, changed.encode(), _PRIVATE_MODE)


# ------------------------------------------------------------------------------------------------ init


@dataclass(frozen=True)
class InitReport:
    """What `init` did: the files, the keys, and one login probe for each jump host (none if not asked for)."""

    results: list[Result]
    keys: list[Shown]
    probes: list[checks.Probe]
    ssh_agent_only: bool = False  # the login works by an ssh-agent of this machine, which a job has not
    outdated: bool = False  # the installed files are not as the settings say now

    @property
    def works(self) -> bool:
        """Whether every jump host showed a key that we trust and, if tried, let us through as it would let a job."""
        return not any(key.error for key in self.keys) and not checks.failures(self.probes) and not self.ssh_agent_only


@dataclass(frozen=True)
class Trial:
    """What `init` is to do: try a login, here or `on_node`; `replace_key` takes a changed key for a new one."""

    login: bool = True
    on_node: bool = False
    replace_key: bool = False


def init(account: Account, settings: Settings, trial: Trial, *, consent: Consent, say: Say) -> InitReport:
    """Keep the keys that `consent` takes and write the settings, unless one is refused; try one login."""
    config = settings.config
    for line in checks.too_old(account.environ):
        say(line)
    own = KnownHosts.read(account.home.known_hosts)
    keys = [_recognised(jump, own, config, trial.replace_key, consent, say) for jump in config.jump_hosts]
    if any(key.is_refused for key in keys):
        return InitReport([], keys, [])
    # Read anew: a person was asked meanwhile, who may have looked into it, too.
    results = changes.apply([_config_step(account, settings.flags, read_layer(account.home.config).text)])
    recognition.keep(account.home.known_hosts, own, keys, _PRIVATE_MODE)
    bundle = bundle_of(account, config)
    probes: list[checks.Probe] = []
    ssh_agent_only = False
    if not config.jump_hosts:
        how = _BY.get(config.via, config.via)
        say(f"there is no login to try: jobs get out by {how}")
    elif trial.login and not any(key.error for key in keys):
        say(f"trying one login to each jump host{' from a compute node' if trial.on_node else ''}")
        probes, ssh_agent_only = _try_login(account, config, bundle, on_node=trial.on_node)
    return InitReport(results, keys, probes, ssh_agent_only, outdated=bool(checks.drift(bundle)))


def _recognised(jump: Jump, own: KnownHosts, config: Config, replace_key: bool, consent: Consent, say: Say) -> Shown:
    say(f"asking {jump} for its host key")
    try:
        way = Way(configuration.ask(jump))
    except TunnelError as error:
        return Shown(str(jump), error=error)
    shown = recognition.recognise(way, own, config.connect_timeout_s)
    if not replace_key:
        shown = shown.unless_changed("init")
    if shown.asks:
        (reason,) = consent([shown])
        shown = shown.refused(reason) if reason else shown
    return shown


def _try_login(account: Account, config: Config, bundle: Bundle, *, on_node: bool) -> tuple[list[checks.Probe], bool]:
    """Try one login as a job has it, `on_node` in one; else without this machine's ssh-agent, which no job has.

    Where the key fails then, say whether the agent helps.
    """
    script = next(file for file in bundle.files if file.artifact.name == TUNNEL)
    if on_node:
        return _probe(account.environ, config, script, on_node=True), False
    alone = {name: value for name, value in account.environ.items() if name != "SSH_AUTH_SOCK"}
    probes = _probe(alone, config, script)
    if "SSH_AUTH_SOCK" not in account.environ or not any(probe.why and probe.why.layer == "key" for probe in probes):
        return probes, False
    return probes, not checks.failures(_probe(account.environ, config, script))


def log_in_once(account: Account, config: Config) -> list[checks.Probe]:
    """Return one login on trial for each jump host, by what is rendered now; raises TunnelError."""
    if not config.uses_ssh:
        return []
    return _probe(account.environ, config, render(account_plan(config, account.home).only(TUNNEL)).files[0])


def _probe(environ: Mapping[str, str], config: Config, script: File, *, on_node: bool = False) -> list[checks.Probe]:
    # The script bounds each login itself; this bound is for the script.
    timeout_s = (config.connect_timeout_s + 20) * max(1, len(config.jump)) + 10
    return checks.probe(script.content, environ, timeout_s, on_node=on_node)


# ------------------------------------------------------------------------------------------------ install


def install_bashrc(account: Account, settings: Settings, *, dry_run: bool) -> list[Result]:
    """Put our files and the block in ~/.bashrc in place; every target is checked before the first is written."""
    bundle = bundle_of(account, settings.config)
    config = _config_step(account, settings.flags, settings.text)
    stamp = _stamp_step(account, settings, config, bundle)
    steps = [config, *install.bundle_steps(bundle), stamp, *install.bashrc_steps(account.bashrc)]
    return changes.preview(steps) if dry_run else changes.apply(steps)


def _stamp_step(account: Account, settings: Settings, config: Write, bundle: Bundle) -> Write:
    """Return the step that keeps the stamp of what is installed; it comes behind the files that it speaks of."""
    site = None if settings.site_text is None else settings.site_text.encode()
    made = Made(account.home, account.user_home, (site, config.content))
    files = [(file.artifact.name, file.artifact.mode, file.content) for file in bundle.files]
    with changes.translated(account.home.stamp):
        return Write(account.home.stamp, made.stamp(files), _PRIVATE_MODE)


def ask_shells(account: Account) -> tuple[list[Result], list[str]]:
    """Ask the account's shells whether they read our block; a login bash that does not gets it in its own file.

    Returns what was written and, a line each, what is in the way.
    """
    results: list[Result] = []
    asked = login_shell.ask(account.user_home, account.environ)
    if asked.interactive and not asked.login:
        results = changes.apply(install.bashrc_steps(login_shell.login_file(account.user_home)))
        asked = login_shell.ask(account.user_home, account.environ)
    others = [*overrides.in_rc_file(account.bashrc), *overrides.in_tools(account.user_home, account.environ)]
    return results, [*([asked.why] if asked.why else []), *(str(found) for found in others)]


def _block_removal(account: Account) -> list[Step]:
    """Return the steps that take our block out of every rc file that may hold it; raises BlockError or FileError."""
    names = [account.bashrc, *(account.user_home / name for name in login_shell.LOGIN_FILES)]
    return [step for path in names for step in install.bashrc_removal(path)]


def uninstall_bashrc(account: Account) -> list[Result]:
    """Take our block out of ~/.bashrc and of the login files."""
    return changes.apply(_block_removal(account))


def uninstall(account: Account) -> tuple[list[Result], list[Path]]:
    """End our shell tunnel, take the block out, remove our files; returns also what else lies in our directory."""
    for tunnel in tunnels.find(account.environ, "shell"):
        tunnels.stop(tunnel)
    # Without reading the settings: what cannot be read must not keep anybody from leaving.
    plan = account_plan(resolve(), account.home)
    steps = _block_removal(account) + install.home_removal(plan, account.home)
    return changes.apply(steps), install.remove_directory(account.home)


# ------------------------------------------------------------------------------------------------ render


def artifacts(account: Account) -> list[Artifact]:
    """Return what `install-bashrc` would install."""
    return list(account_plan(settings_of(account).config, account.home).artifacts)


def render_one(account: Account, name: str) -> bytes:
    """Return the bytes of the artifact called `name`; raises UsageError that lists the valid names."""
    plan = modulefile.added(account_plan(settings_of(account).config, account.home), account.home)
    if plan.named(name) is None:
        raise UsageError(f"there is no artifact {name!r}; valid: {', '.join(one.name for one in plan.artifacts)}")
    return render(plan.only(name)).files[0].content


# ------------------------------------------------------------------------------------------------ tunnels


def up(account: Account, say: Say) -> tunnels.Tunnel:
    """Start the tunnel for shells of this machine, unless it is up already, and return it."""
    config = settings_of(account).config
    if config.lacks_jump_host:
        raise TunnelError("configuration", "no jump host is configured", "run: hpcproxy init --jump USER@HOST")
    for tunnel in tunnels.find(account.environ, "shell"):
        return tunnel
    bundle = bundle_of(account, config)
    if checks.drift(bundle):
        reason = "the installed files are missing or older than the settings"
        raise TunnelError("installation", reason, "run: hpcproxy install-bashrc")
    tunnels.start(account.home.directory / TUNNEL, account.environ, config.ready_timeout_s, say)
    for tunnel in tunnels.find(account.environ, "shell"):
        return tunnel
    raise TunnelError("tunnel", "came up and was gone again; see the messages above")


def down(account: Account) -> list[tunnels.Tunnel]:
    """End the tunnel for shells of this machine and return what was ended."""
    found = tunnels.find(account.environ, "shell")
    for tunnel in found:
        tunnels.stop(tunnel)
    return found


@dataclass(frozen=True)
class Checked:
    """The end-to-end check's outcome: what the internet sees, or what one URL said, and through which tunnel."""

    answer: checks.Answer | checks.Said
    url: str
    jump: str
    others: list[str]  # what leads programs elsewhere all the same


def check(account: Account, timeout_s: float, url: str = "") -> Checked:
    """Ask the internet for our address, or `url` for anything, through this job's or shell's tunnel.

    Raises TunnelError naming the layer that failed.
    """
    config = settings_of(account).config
    found = tunnels.find(account.environ, account.environ.get("SLURM_JOB_ID") or "shell")
    if not found:
        raise _why_none(account, config)
    tunnel = found[-1]
    if not tunnel.ready:
        raise TunnelError("tunnel", f"is down: {tunnel.last_error or 'not up yet'}")
    try:
        if url:
            answer: checks.Answer | checks.Said = checks.ask(tunnel.url, url, timeout_s)
        else:
            answer = checks.fetch_address(tunnel.url, config.check_url, timeout_s)
    except TunnelError as error:
        # Through a SOCKS port a failed open is a closed connection; only ssh's own words tell why.
        why = error.why
        if why.layer == reasons.FAR_END and tunnel.log_tail:
            why = replace(why, advice=reasons.open_failure(tunnel.log_tail))
        raise TunnelError.of(why, tunnel.jump or "") from None
    others = [str(found) for found in overrides.in_tools(account.user_home, account.environ)]
    return Checked(answer, tunnel.url, tunnel.jump or "", overrides.in_environment(account.environ) + others)


def _why_none(account: Account, config: Config) -> TunnelError:
    """Return the layer that keeps this account from a tunnel, found by one login to each jump host."""
    why = None if account.home.config.exists() else site_word.why_none(account.environ)
    if why is not None:
        return TunnelError.of(why)
    if config.lacks_jump_host:
        return TunnelError("configuration", "no jump host is configured", "run: hpcproxy init --jump USER@HOST")
    if not config.jump_hosts:
        reason = f"none is up here; with `via: {config.via}` nobody is logged in to for a trial"
        return TunnelError("tunnel", reason, "start it with: hpcproxy up")
    probes = log_in_once(account, config)
    for probe in probes:
        if probe.why is not None:
            return TunnelError.of(probe.why, probe.jump)
    names = ", ".join(probe.jump for probe in probes)
    return TunnelError("tunnel", f"none is up here, though {names} would let us through", "start it with: hpcproxy up")

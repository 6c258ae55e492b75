"""One function per verb that an admin types: a few calls, each named for its stage. Prints nothing by itself."""

from __future__ import annotations

import functools
import itertools
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol, Union

from hpcproxy import changes
from hpcproxy.changes import Write
from hpcproxy.cluster import contract, governed, inventory, plugstack, prospect, protocol, slurm_conf
from hpcproxy.cluster import who as who_script
from hpcproxy.cluster.enable import Slurm
from hpcproxy.cluster.outcome import HostOutcome, OnHost, Outcomes, unheard
from hpcproxy.cluster.run import Request, Run, enablement_of
from hpcproxy.errors import UsageError
from hpcproxy.files.plan import PLUGIN

Body = Callable[[OnHost], Outcomes]
Ask = Callable[[], Union[slurm_conf.Running, str]]  # how Slurm runs, or why it cannot be asked, in words


class Screen(Protocol):
    """Where a verb speaks while it works; what it returns is shown at its end."""

    def watch(self, title: str, body: Body) -> Outcomes:
        """Return the outcomes of `body`, whose hosts are counted while it runs."""

    def differences(self, outcomes: Outcomes) -> None:
        """Show every distinct change, line by line."""

    def findings(self, outcomes: Outcomes) -> None:
        """Say every distinct change, a line each."""

    def say(self, line: str) -> None:
        """Say one line."""


@dataclass(frozen=True)
class Wish:
    """How `deploy` is to go: only look, show differences, begin with so many hosts, have Slurm run it afterwards."""

    dry_run: bool = False
    diff: bool = False
    canary: int = 0
    enable: bool = False


@dataclass(frozen=True)
class Before:
    """What was found before anything was changed: how Slurm runs, and whether it runs our Prolog and Epilog.

    None: that cannot be known.
    """

    running: slurm_conf.Running | None = None
    in_force: bool | None = None


# ------------------------------------------------------------------------------------------------ the verbs


def deploy(run: Run, wish: Wish, screen: Screen) -> Outcomes:
    """Bring all hosts to the bundle's version, as `wish` says; raises UsageError before anything is done."""
    if wish.enable:
        check_enable(run)
    if wish.dry_run or wish.diff:
        seen = screen.watch("look", lambda hear: look(run, hear, want_content=wish.diff))
        if wish.diff:
            screen.differences(seen)
        if wish.dry_run:
            return seen
    before = check_before(run, enabling=wish.enable)
    done = screen.watch("deploy", lambda hear: roll_out(run, before, hear, canary=wish.canary))
    if wish.enable and done.good:
        enabled = screen.watch("enable", lambda hear: enable(run, hear))
        screen.findings(enabled)
        _say_all(screen, what_to_know(run, before, enabled), plugin_words(run))
        return done.merged(enabled)
    if done.good and not done.as_wanted and not run.as_user:
        _say_all(screen, done.cautions(time.time()), slurm_lines(run, before))
    return done


def verify(run: Run, screen: Screen, *, with_contract: bool = False) -> Outcomes:
    """Say how the hosts differ from what they shall be and what follows; `with_contract`: try our scripts there too."""
    running = functools.cache(lambda: enablement_of(run).running(run.asked))  # asked once, by whoever needs it first
    seen = screen.watch("verify", lambda hear: look(run, hear))
    for difference in seen.differences(run.site.bundle):
        screen.say(f"{difference.path}: {difference.action} needed on {difference.hosts}")
    _say_all(screen, limits(run, running), seen.cautions(time.time()), prospects(run, seen, running), plugin_words(run))
    checks = [seen]
    if with_contract and not run.as_user:
        checks.append(screen.watch("contract", lambda hear: check_contract(run, seen, hear, running)))
        screen.findings(checks[-1])
    checked = check_key(run, unheard) if seen.as_wanted and not run.as_user else None
    if checked is not None:
        screen.findings(checked)
        checks.append(checked)
    return functools.reduce(Outcomes.merged, checks)


def _say_all(screen: Screen, *groups: Sequence[str]) -> None:
    for line in itertools.chain(*groups):
        screen.say(line)


def who(run: Run, on_host: OnHost) -> Outcomes:
    """Ask every host which tunnels are up on it; `who.seen` reads the answers. Nothing is changed."""
    message = protocol.reading((), run.fleet.token, who_script.command())
    return run.fleet.ask(dict.fromkeys(run.site.hosts, message), on_host)


# ------------------------------------------------------------------------------------------------ their stages


def check_before(run: Run, *, enabling: bool = False) -> Before:
    """Return how Slurm runs; raises UsageError if it would run at once what it was not told to run."""
    if run.as_user:
        return Before()
    if run.site.inventory.via == inventory.SPANK:
        _check_plugin(run)
        return Before(in_force=True)  # what runs our Prolog there runs our Epilog
    return _check_surprise(run, enabling=enabling)


def roll_out(run: Run, before: Before, on_host: OnHost, *, canary: int = 0) -> Outcomes:
    """Bring all hosts to the bundle's version; with `canary` the rest only if the first ones are right afterwards."""
    hosts, in_force = run.site.hosts, before.in_force
    if not canary or canary >= len(hosts):
        return run.act("apply", hosts, on_host, in_force=in_force)
    first = run.act("apply", hosts[:canary], on_host, in_force=in_force, on_trial=True)
    checked = run.act("look", hosts[:canary], unheard)
    if not first.good or not checked.as_wanted:
        return first.skipping(hosts[canary:], "left alone: the first hosts are not right")
    return first.joined(run.act("apply", hosts[canary:], on_host, in_force=in_force))


def look(run: Run, on_host: OnHost, *, want_content: bool = False) -> Outcomes:
    """Return how every host differs from what it shall have; nothing is changed."""
    return run.act("look", run.site.hosts, on_host, want_content=want_content)


def prospects(run: Run, seen: Outcomes, ask: Ask) -> list[str]:
    """Return what will happen at the next job on the hosts that were `seen` to be not as they shall be."""
    if run.as_user or not any(host.word in ("would", "unreached") for host in seen.hosts):
        return []
    return prospect.tell(seen, ask(), run.site.inventory)


def what_to_know(run: Run, before: Before, enabled: Outcomes) -> list[str]:
    """Return what an admin should know of his Slurm, as far as it was heard; its limits each time."""
    if before.running is None:
        return []
    tell = slurm_conf.limits if enabled.as_wanted else slurm_conf.remarks
    return tell(before.running, run.site.inventory)


def limits(run: Run, ask: Ask) -> list[str]:
    """Return what the version of the Slurm that runs cannot do for us, in words; nothing where nobody can say."""
    if run.as_user or not run.site.inventory.controllers:
        return []
    running = ask()
    return [] if isinstance(running, str) else slurm_conf.limits(running, run.site.inventory)


def check_contract(run: Run, seen: Outcomes, on_host: OnHost, ask: Ask) -> Outcomes:
    """Run the installed scripts as slurmd would on every host that was `seen` to have ours; a breach is a failure."""
    hosts = tuple(host.host for host in seen.hosts if host.word in ("unchanged", "would"))
    running = ask()
    scripts = contract.effective(None if isinstance(running, str) else running, run.site.inventory)
    if run.site.inventory.via == inventory.SPANK:
        scripts = contract.Set((), ())
    return _contract(run, hosts, replace(scripts, before=()), on_host)


def _contract(run: Run, hosts: Sequence[str], scripts: contract.Set, on_host: OnHost) -> Outcomes:
    message = contract.contract_message(run.site.bundle, run.site.inventory, run.fleet.token, scripts)
    return run.fleet.ask(dict.fromkeys(hosts, message), on_host)


def check_key(run: Run, on_host: OnHost) -> Outcomes | None:
    """Check from the first host what the service key can do at the jump hosts; None in user mode."""
    site = run.site
    if site.inventory.mode != "service":
        return None
    message = contract.key_message(site.inventory, site.config, site.plan.values, run.fleet.token)
    return run.fleet.ask({site.hosts[0]: message}, on_host)


# ------------------------------------------------------------------------------------------- back and away


def roll_back(run: Run, on_host: OnHost) -> Outcomes:
    """Bring every host back to the version before its present one."""
    return run.act("rollback", run.site.hosts, on_host)


def undeploy(run: Run, on_host: OnHost) -> Outcomes:
    """Remove everything of ours from every host; slurm.conf first, where `--enable` changed it.

    A part of the hosts goes only if slurm.conf does not need them, which each of them looks at itself.
    """
    hosts = run.site.hosts
    if run.site.inventory.via == inventory.SPANK and not run.as_user:
        # Not slurm.conf: the plugin needs no line there, and each host looks itself whether one names ours.
        unplugged = run.plugin.off(run.plugged)
        if not unplugged.good:
            bad = inventory.fold(unplugged.failed)
            cause = f"left alone: plugstack.conf on {bad} still names the plugin; that does no harm"
            return unplugged.skipping([host for host in hosts if host not in unplugged.failed], cause)
    elif run.site.inventory.controllers and run.request.limit is None and not run.as_user:
        changed = enablement_of(run).off(hosts)
        if not changed.good:
            heard = {host.host for host in changed.hosts}
            return changed.skipping([host for host in hosts if host not in heard], "the files stay, and do no harm")
    return run.act("remove", hosts, on_host)


def check_enable(run: Run) -> None:
    """Raise UsageError, before anything is done, if what is asked for is not what `enable` can do."""
    if run.site.inventory.via == inventory.SPANK:
        return
    if not run.site.inventory.controllers:
        raise UsageError("--enable changes slurm.conf on the controller too: name it with `controllers:`")
    if run.request.limit is not None:
        raise UsageError(
            "--enable is for every node that slurm.conf governs, so every node must be looked at: leave --limit out"
        )


def _check_surprise(run: Run, *, enabling: bool) -> Before:
    """Return how Slurm runs.

    Raises UsageError if the site's own lines would run our hooks as soon as they are there: that is for `enable`. Not
    where they are there already. A Slurm that cannot be asked is no reason to hold back files that nothing runs.
    """
    lines, running = enablement_of(run).about_to_run(run.site.hosts[0])
    if lines and not enabling:
        raise UsageError(
            f"{', '.join(lines)} would run ours as soon as it is there: say deploy --enable, which looks first"
        )
    if lines:
        slurm = enablement_of(run).slurm(enablement_of(run).controllers[0], running)
        reasons = [slurm] if isinstance(slurm, str) else _reasons(run, slurm, lines)
        if reasons:
            raise UsageError(f"{', '.join(lines)} would run ours as soon as it is there, and {'; '.join(reasons)}")
    return Before(running, None if running is None else slurm_conf.is_in_force(running, run.site.inventory))


def plugin_words(run: Run) -> list[str]:
    """Return what is left to do before the SPANK plugin runs, in words; nothing where slurm.conf's lines run ours."""
    if run.site.inventory.via != inventory.SPANK or run.as_user:
        return []
    return run.plugin.words(run.plugged)


def _check_plugin(run: Run) -> None:
    """Raise UsageError if this Slurm would not load the plugin, or would miss hooks that are there and would go.

    A Slurm that cannot be asked may be down: the plugin does no harm there, for Slurm itself looks at its version. But
    hooks stay, which it may run by a line that nobody can see.
    """
    running, told = enablement_of(run).running(run.asked), run.site.inventory
    hooked = run.plugin.hooked(run.site.hosts)
    if isinstance(running, str):
        if hooked:
            where = inventory.fold(hooked)
            raise UsageError(f"whether Slurm still runs the hooks on {where} cannot be known, so they stay: {running}")
        return
    lines = slurm_conf.named(running, told)
    if hooked:
        # A pattern too: one that matches nothing any more drains the node.
        lines = list(dict.fromkeys([*lines, *slurm_conf.live(running, told)]))
    if lines:
        raise UsageError(f"slurm.conf still says {', '.join(lines)}; take that out first: undeploy --via hooks")
    read = running.get("PlugStackConfig", (plugstack.file(told),))[0]
    if read != plugstack.file(told):
        raise UsageError(f"slurm.conf says PlugStackConfig={read}, and --enable would change {plugstack.file(told)}")
    unfit = plugstack.unfit(run.site.plan.texts[PLUGIN], running)
    if unfit:
        raise UsageError(f"the SPANK plugin: {unfit}")


def enable(run: Run, on_host: OnHost) -> Outcomes:
    """Slurm runs our scripts on every node: what is in the way, or in doubt, refuses, and nothing is changed."""
    told, enablement = run.site.inventory, enablement_of(run)
    if told.via == inventory.SPANK:
        checked = _contract(run, run.site.hosts, contract.Set((), ()), on_host)
        return checked.merged(run.plugin.on(run.plugged)) if checked.good else checked
    slurm = enablement.slurm(enablement.controllers[0])
    if isinstance(slurm, str):
        return _not_enabled(run, f"how Slurm runs cannot be known: {slurm}")
    reasons = _reasons(run, slurm)
    if reasons:
        return _not_enabled(run, "; ".join(reasons))
    checked = _contract(run, run.site.hosts, contract.effective(slurm.running, told), on_host)
    if not checked.good:
        return checked.merged(_not_enabled(run, f"{inventory.fold(checked.failed)} would not bear it"))
    parted = _may_lose_files(checked)
    if parted and slurm_conf.is_configless(slurm.running) and not told.keeps_files:
        return _not_enabled(run, _PARTED.format(hosts=inventory.fold(parted)))
    enabled = enablement.on(run.site.hosts, slurm.running)
    known = slurm_conf.is_in_force(slurm.running, told)  # then `roll_out` has left it on record
    marked = None if known or not enabled.good else run.act("apply", run.site.hosts, on_host, in_force=True)
    return enabled.merged(marked) if marked else enabled


def _reasons(run: Run, slurm: Slurm, runs_all: Sequence[str] = ()) -> list[str]:
    told = run.site.inventory
    return [
        *slurm_conf.too_old(slurm.running),
        *slurm_conf.in_the_way(slurm.running, told, runs_all),
        *governed.left_out(slurm.nodes, run.site.hosts, in_the_image=told.keeps_files),
        *slurm_conf.elsewhere(slurm.running, told, enablement_of(run).controllers, reads_ours=slurm.reads_ours),
    ]


_PARTED = (
    "{hosts} has its slurm.conf from the controller and our files from its own disk: without them, after a reboot or a "
    "reinstallation, every job there fails or drains the node, and Slurm has no line for which that is harmless. Put "
    "them into the image (hpcproxy render --root DIR), or say `keeps_files: true` if these nodes keep what they have"
)


def _may_lose_files(checked: Outcomes) -> list[str]:
    """Return the hosts whose files could go while the lines that name them stay."""
    facts = {host.host: host.answer.facts for host in checked.hosts if host.answer}
    return [host for host, found in facts.items() if found.get("conf") == "none" and "image" not in found]


def _not_enabled(run: Run, cause: str) -> Outcomes:
    return Outcomes((HostOutcome(enablement_of(run).controllers[0], "failed", f"nothing was enabled: {cause}"),))


def slurm_lines(run: Run, before: Before) -> list[str]:
    """Return what stands in our way in the running configuration and the lines that it lacks, in words.

    Slurm is asked only if it has not been heard `before`.
    """
    told = run.site.inventory
    if told.via == inventory.SPANK:
        return plugin_words(run)
    running = before.running or enablement_of(run).running(run.asked)
    if isinstance(running, str):
        return [f"how Slurm runs cannot be known: {running}; slurm.conf needs:", *_indented(slurm_conf.lines(told))]
    words = slurm_conf.in_the_way(running, told)
    lacking = slurm_conf.missing(running, told)
    if lacking:
        words += ["slurm.conf lacks these lines; once all hosts are right, add them, or say deploy --enable:"]
        words += _indented(lacking)
        words += slurm_conf.remarks(running, told)
        return words
    return [*words, *slurm_conf.limits(running, told)]


def _indented(lines: Sequence[str]) -> list[str]:
    return [f"    {line}" for line in lines]


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
    changes.apply([Write(path, (json.dumps(report, indent=2) + "\n").encode(), None)])

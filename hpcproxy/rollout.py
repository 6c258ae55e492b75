"""One function per verb that an admin types: a few calls, each named for its stage. Returns values; prints nothing."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from hpcproxy import install, inventory, proof, slurmconf
from hpcproxy.errors import UsageError
from hpcproxy.install import Write
from hpcproxy.outcome import HostOutcome, Outcomes
from hpcproxy.run import OnHost, Request, Run, switch_of
from hpcproxy.switch import read

# ------------------------------------------------------------------------------------------------ the fleet


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


# ------------------------------------------------------------------------------------------- back and away


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

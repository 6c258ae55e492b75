"""A user's Invoke tasks: arguments, one call of `verbs`, a report, an exit code."""

from __future__ import annotations

import os
import sys
from datetime import datetime
from pathlib import Path
from typing import Any

from invoke.context import Context
from invoke.exceptions import Exit
from invoke.parser.argument import Argument
from invoke.tasks import Task, task

from hpcproxy.account import status as standing
from hpcproxy.account import verbs, wrapping
from hpcproxy.account.account import Account
from hpcproxy.account.job_script import State
from hpcproxy.changes import Outcome
from hpcproxy.cli import admin, check_page
from hpcproxy.cli import follow as live
from hpcproxy.cli.consent import FINGERPRINT_HELP, YES_HELP, Flags
from hpcproxy.cli.output import console, far_end, from_here, number, results, say, table, verb
from hpcproxy.cli.status import Asked, answer
from hpcproxy.config import site_profile
from hpcproxy.errors import UsageError


def _account() -> Account:
    return Account.of(os.environ)


_CHECK_TIMEOUT_S = 20
VIA_HELP = (
    "How jobs get out: ssh, through a jump host (default); direct, by the node's own route; http://HOST:PORT or "
    "socks5://HOST:PORT, through a proxy of the site's; auto, by the first that serves; reverse, by hpcproxy serve; "
    "adopt, through an ssh of yours."
)
JUMP_HELP = "Jump host, [USER@]HOST[:PORT]; may be given several times, the next is tried when one fails."


@task(
    iterable=["jump", "fingerprint"],
    help={
        "jump": JUMP_HELP,
        "via": VIA_HELP,
        "site": "Begin with what is known of this site: a profile, or DIRECTORY/NAME; an unknown name lists them.",
        "adopt": "With --via adopt: the control socket of an ssh in which you have logged in.",
        "port": "TCP port of the tunnel on every node (default 2015).",
        "identity": "Private key for the jump host; without it ssh chooses as it always does.",
        "probe": "Try one login to each jump host (--no-probe skips it).",
        "on-node": "Try that login from a compute node, by one srun, as a job will.",
        "replace-key": "Take a key that a jump host shows now for a new one even if another was pinned before.",
        "yes": YES_HELP,
        "fingerprint": FINGERPRINT_HELP,
    },
)
@verb
def init(  # noqa: PLR0913, PLR0917 - the flags a user has
    _context: Context,
    jump: list[str],
    fingerprint: list[str],
    via: str | None = None,
    site: str | None = None,
    adopt: str | None = None,
    port: int | None = None,
    identity: str | None = None,
    probe: bool = True,
    on_node: bool = False,
    replace_key: bool = False,
    yes: bool = False,
) -> None:
    """Write ~/.hpcproxy/config.yaml, show and pin the jump host's key, and try one login."""
    consent = Flags.of(yes, fingerprint)
    account = _account()
    flags = {"jump": jump, "via": via, "port": number(port), "identity": _absolute(identity), "adopt": _absolute(adopt)}
    given = _given(**flags)
    if site is not None:
        profile = site_profile.find(site)
        say(f"site profile: {profile}")
        given = {**profile.settings, **given}
    settings = verbs.settings_of(account, given)
    if settings.config.lacks_jump_host:
        raise UsageError("say which jump host: hpcproxy init --jump USER@HOST")
    trial = verbs.Trial(login=probe, on_node=on_node, replace_key=replace_key)
    report = verbs.init(account, settings, trial, consent=consent.ask, say=say)
    results(report.results)
    _tell(report)
    if any(key.is_refused for key in report.keys):
        raise Exit("hpcproxy: nothing was written, for a key is not confirmed", code=1)
    if report.outdated:
        say("next: hpcproxy install-bashrc")
    if not report.works:
        raise Exit("hpcproxy: the settings are written, but the tunnel does not work yet", code=1)


def _tell(report: verbs.InitReport) -> None:
    for shown in report.keys:
        if shown.error is None:
            print(f"host key      {shown.host}  {shown.key}  ({shown.news})")
        else:
            say(str(shown.error))
    for result in report.probes:
        if result.why is None:
            print(f"login         {result.jump}  login and forwarding work{f'; {result.note}' if result.note else ''}")
        else:
            say(f"{result.why.layer}: {result.jump}: {result.why}")
    if report.ssh_agent_only:
        say("it works with the ssh-agent of this machine, which no job has: use a key without a passphrase, for this")


@task(
    iterable=["jump"],
    help={
        "port": "TCP port of the tunnel on every node (default 2015).",
        "jump": JUMP_HELP,
        "dry-run": "Say what would change and change nothing.",
    },
)
@verb
def install_bashrc(_context: Context, jump: list[str], port: int | None = None, dry_run: bool = False) -> None:
    """Install ~/.hpcproxy/ and the block in ~/.bashrc."""
    account = _account()
    settings = verbs.settings_of(account, _given(jump=jump, port=number(port)))
    done = verbs.install_bashrc(account, settings, dry_run=dry_run)
    results(done)
    if not dry_run:
        written, remarks = verbs.ask_shells(account)
        results(written)
        for line in remarks:
            say(line)
    if settings.config.lacks_jump_host:
        say("no jump host is configured yet; run: hpcproxy init --jump USER@HOST")
    elif not dry_run and any(result.outcome is Outcome.CHANGED for result in done):
        say("next: a new shell, or . ~/.bashrc; then: hpcproxy wrap --in-place job.sh")


@task
@verb
def uninstall_bashrc(_context: Context) -> None:
    """Take the block out of ~/.bashrc; ~/.hpcproxy/ stays."""
    done = verbs.uninstall_bashrc(_account())
    results(done)
    if not done:
        say("there is no hpcproxy block in ~/.bashrc")


@task
@verb
def uninstall(_context: Context) -> None:
    """Remove everything: the tunnel of this machine, the block in ~/.bashrc and ~/.hpcproxy/."""
    done, left = verbs.uninstall(_account())
    results(done)
    if not done:
        say("nothing of hpcproxy is installed")
    for path in left:
        say(f"left alone, it is not ours: {path}")


@task(
    positional=["script"],
    help={
        "script": "The job script; with --check a directory too.",
        "in-place": "Change the script itself.",
        "output": "Write the result to this file.",
        "remove": "Take the hook line out again.",
        "plain": "A hook line without braces, dollars and percent signs, for templates (by itself where one is seen).",
        "check": "Say whether the hook line is this version's and in its place; exit code 1 if not.",
    },
)
@verb
def wrap(
    _context: Context,
    script: str,
    in_place: bool = False,
    output: str | None = None,
    remove: bool = False,
    plain: bool = False,
    check: bool = False,
) -> None:
    """Put the hook line into a job script, behind all that sbatch reads; prints the result unless told where."""
    if in_place and output:
        raise UsageError("--in-place and --output exclude each other")
    if check:
        if in_place or output or remove or plain:
            raise UsageError("--check only looks; it goes with no other flag")
        _check_scripts(Path(script))
        return
    target = Path(script) if in_place else Path(output) if output else None
    wrapped = wrapping.wrap(_account(), Path(script), target, remove=remove, plain=plain)
    if target is None:
        sys.stdout.buffer.write(wrapped.content)
        sys.stdout.buffer.flush()
    else:
        print(f"{wrapped.outcome.value:12}  {target}")
    for line in wrapped.remarks:
        say(line)


def _check_scripts(path: Path) -> None:
    found = wrapping.check_scripts(_account(), path)
    for file, state in found:
        print(f"{state.value:12}  {file}")
    wrong = [file for file, state in found if state is not State.CURRENT]
    if not found:
        say(f"no script below {path} has the hook line")
    if wrong:
        raise Exit("hpcproxy: bring them up to date: hpcproxy wrap --in-place SCRIPT", code=1)


class _MaybeNamed(Task):  # type: ignore[type-arg]
    """A task whose one positional argument may be left out, which Invoke itself does not know.

    Invoke asks for the arguments when it reads the command line, so whether a word follows can be seen there.
    """

    def get_arguments(self, *args: Any, **kwargs: Any) -> list[Argument]:  # noqa: ANN401 - as Invoke passes them
        arguments: list[Argument] = super().get_arguments(*args, **kwargs)
        behind = sys.argv[sys.argv.index(self.name) + 1 :] if self.name in sys.argv else []
        named = bool(behind) and not behind[0].startswith("-")
        # The first: what else a task takes has a flag's name, and its value may be the last word.
        for place, argument in enumerate(arguments):
            argument.positional = place == 0 and named
        return arguments


@task(
    klass=_MaybeNamed,
    help={
        "name": "Which artifact to print, or site-page, for users of a roll-out; without it they are listed.",
        "root": "Write what a roll-out gives a node below this directory, to be baked into the image of nodes.",
        "inventory": f"{admin.INVENTORY_HELP} Needed with --root and for site-page.",
    },
)
@verb
def render(_context: Context, name: str | None = None, root: str | None = None, inventory: str | None = None) -> None:
    """List the artifacts, or print one exactly as it would be installed."""
    if name == admin.SITE_PAGE:
        admin.render_page(inventory)
        return
    if root or inventory:
        admin.render_root(root, inventory)
        return
    account = _account()
    if name:
        sys.stdout.buffer.write(verbs.render_one(account, name))
        sys.stdout.buffer.flush()
        return
    shown = table("name", "installed as", "mode", "what it is for")
    for artifact in verbs.artifacts(account):
        shown.add_row(artifact.name, str(artifact.path), f"{artifact.mode:04o}", artifact.summary)
    console().print(shown)


@task
@verb
def up(_context: Context) -> None:
    """Start the tunnel for shells of this machine, without Slurm."""
    tunnel = verbs.up(_account(), say)
    print(f"up            {tunnel.url} through {tunnel.jump}; in a shell: proxy_on")


@task
@verb
def down(_context: Context) -> None:
    """End the tunnel for shells of this machine."""
    ended = verbs.down(_account())
    for tunnel in ended:
        print(f"down          {tunnel.url}")
    if not ended:
        say("no tunnel of yours is up on this machine")


@task(
    help={
        "json": "Print JSON.",
        "job": "The tunnels of this job on all of its nodes.",
        "long": "All that is known of each: address, since when, every count.",
        "follow": "Look again and again: bytes a second, open connections, requests that had to wait. ^C ends it.",
    }
)
@verb
def status(
    _context: Context, job: str | None = None, json_: bool = False, long: bool = False, follow: bool = False
) -> None:
    """Show your tunnels on this machine, or those of a job; exit code 1 if one of the job's, or all here, are down."""
    if follow:
        if json_ or long:
            raise UsageError("--follow goes with --job only")
        live.follow(*_looks(job))
        return
    code = answer(Asked(job or "", json_, long), _account())
    if code:
        raise Exit(code=code)


@task(help={"job": "The job, which must be running."})
@verb
def report(_context: Context, job: str | None = None) -> None:
    """Print a page about the tunnels of a job, for a browser; it needs no other file and no network."""
    if not job:
        raise UsageError("say which job: hpcproxy report --job ID >report.html")
    from hpcproxy.cli import report_page  # noqa: PLC0415 - it loads what renders

    print(report_page.page(job, standing.of_job(_account(), job), datetime.now().astimezone()), end="")


def _looks(job: str | None) -> tuple[live.Look, float]:
    """Return how a live view looks, and how long it waits between two looks."""
    account = _account()
    if job:
        return lambda: standing.of_job(account, job), live.JOB_S
    return lambda: standing.here(account)[0], live.HERE_S


@task(
    klass=_MaybeNamed,
    help={
        "url": "Ask this far end instead, and say who failed: tunnel, jump host, TLS, or the far end itself.",
        "timeout": "Seconds to wait for the answer (default 20).",
        "json": "Print JSON.",
    },
)
@verb
def check(_context: Context, url: str | None = None, timeout: int | None = None, json_: bool = False) -> None:
    """Print the address the internet sees, the latency and the jump host, or the layer that failed."""
    asked = far_end(url) if url else ""
    checked = verbs.check(_account(), number(timeout) or _CHECK_TIMEOUT_S, asked)
    check_page.show(checked, asked, as_json=json_)


def _given(**flags: Any) -> dict[str, Any]:  # noqa: ANN401 - flags are of many types, validated by the config
    """Return the settings among the command line's flags: those that were given."""
    return {key: value for key, value in flags.items() if value not in (None, [], "")}


def _absolute(path: str | None) -> str | None:
    """Return a path as typed in some directory so that it holds in every other."""
    return None if path is None else str(from_here(path))


TASKS = (init, install_bashrc, uninstall_bashrc, uninstall, wrap, render, up, down, status, report, check)

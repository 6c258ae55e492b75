"""The admin's Invoke tasks: arguments, one call of `verbs`, a table, an exit code."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from invoke.context import Context
from invoke.exceptions import Exit
from invoke.tasks import task
from rich.console import Console
from rich.text import Text

from hpcproxy.cli import status_page
from hpcproxy.cli.consent import FINGERPRINT_HELP, YES_HELP, Flags, complaints, counting, told
from hpcproxy.cli.output import console, from_here, number, results, say, table, verb
from hpcproxy.errors import UsageError

if TYPE_CHECKING:
    from hpcproxy.cluster.outcome import HostOutcome, Outcomes
    from hpcproxy.cluster.run import Request, Run
    from hpcproxy.cluster.verbs import Body

INVENTORY_HELP = "The inventory, a YAML file (docs/admin-reference.md)."
LIMIT_HELP = "Only these of its hosts, a node set; @failed: those that failed in the last run."
FANOUT_HELP = "How many hosts at once (default 32)."
TIMEOUT_HELP = "Seconds a host may be silent: at connect, at login, at work (default 30)."
AS_USER_HELP = "The files of the account logged in to, and the block in its .bashrc, instead of root's."
VIA_HELP = "What runs ours, hooks or spank, instead of the inventory's `via`."
REPORT_HELP = "Write the outcome of every host to this file, as JSON."
COMMON = {
    "inventory": INVENTORY_HELP,
    "limit": LIMIT_HELP,
    "fanout": FANOUT_HELP,
    "timeout": TIMEOUT_HELP,
    "report": REPORT_HELP,
    "as-user": AS_USER_HELP,
    "via": VIA_HELP,
}
SITE_PAGE = "site-page"  # of `render`
_COLOURS = {"unchanged": "green", "changed": "yellow", "would": "yellow"}
_WORDS = {"would": "would change"}
_SAID_OF_A_CAUSE, _SAID_AT_ALL = 3, 20  # hosts that fail; a roll-out to thousands must leave its screen readable


def _request(
    inventory: str | None,
    limit: str | None,
    fanout: Any,  # noqa: ANN401 - as typed
    timeout: Any,  # noqa: ANN401
    via: str | None = None,
) -> Request:
    from hpcproxy.cluster.run import Request  # noqa: PLC0415 - Fabric takes 0.3 s to load; only these tasks pay for it

    if not inventory:
        raise UsageError("say which hosts: --inventory FILE")
    return Request(Path(inventory), limit, number(fanout) or 32, float(number(timeout) or 30), via)


class _Told:
    """Says a host's failure when it happens, the first of each cause: of hundreds alike the table tells, folded."""

    def __init__(self, screen: Console) -> None:
        self._screen = screen
        self._causes: dict[str, int] = {}
        self.unsaid = 0

    def hear(self, outcome: HostOutcome) -> None:
        """Say it, or count it."""
        if outcome.word not in ("failed", "unreached"):
            return
        count = self._causes[outcome.cause] = self._causes.get(outcome.cause, 0) + 1
        if count > _SAID_OF_A_CAUSE or sum(self._causes.values()) - self.unsaid > _SAID_AT_ALL:
            self.unsaid += 1
            return
        # A style of `print` would be the bar's too.
        self._screen.print(Text(f"{outcome.host}: {outcome.cause}", "red"), soft_wrap=True)

    def end(self) -> None:
        """Say how many were only counted."""
        if self.unsaid:
            self._screen.print(Text(f"{self.unsaid} more failed; the table has all of them", "red"), soft_wrap=True)


class _Screen:
    """Where an admin's verb speaks: a live display on stderr that counts hosts, lines there, differences on stdout."""

    def __init__(self, run: Run) -> None:
        self._run = run

    def watch(self, title: str, body: Body) -> Outcomes:
        """Run `body` under the display; a failure is said when it happens."""
        screen = Console(stderr=True)
        told = _Told(screen)
        if not screen.is_terminal:
            outcomes = body(told.hear)
            told.end()
            return outcomes
        # Here, not above: a report to a file or a pipe has no use for it.
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn  # noqa: PLC0415

        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        with Progress(*columns, console=screen, transient=True) as progress:
            bar = progress.add_task(title, total=len(self._run.site.hosts))

            def hear(outcome: HostOutcome) -> None:
                progress.advance(bar)
                told.hear(outcome)

            outcomes = body(hear)
        told.end()
        return outcomes

    def differences(self, outcomes: Outcomes) -> None:
        """Show every distinct change, line by line."""
        out = console()
        for difference in outcomes.differences(self._run.site.bundle):
            out.print(f"{difference.action} {difference.path} on {difference.hosts}", style="bold")
            for line in difference.lines:
                style = {"+": "green", "-": "red", "@": "cyan"}.get(line[:1], "")
                out.print(line, style=style, soft_wrap=True)

    def findings(self, outcomes: Outcomes) -> None:
        """Say every distinct change, a line each."""
        for difference in outcomes.differences(self._run.site.bundle):
            say(f"{difference.action}: {difference.path} ({difference.hosts})")

    def say(self, line: str) -> None:
        """Say one line."""
        say(line)


def _finish(run: Run, title: str, outcomes: Outcomes, report: str | None, *, good: bool) -> None:
    """Print the table, write the report, keep the failed hosts on record, and set the exit code."""
    from hpcproxy.cluster import verbs  # noqa: PLC0415

    shown = table("outcome", "hosts", "", "cause")
    for row in outcomes.rows():
        style = _COLOURS.get(row.word, "red")
        shown.add_row(Text(_WORDS.get(row.word, row.word), style), str(row.count), row.hosts, row.cause)
    console().print(shown)
    verbs.keep_record(run.request, outcomes)
    if report:
        verbs.write_report(Path(report), title, outcomes)
    if not good:
        raise Exit(code=1)


@task(
    help={
        **COMMON,
        "dry-run": "Say what would change and change nothing.",
        "diff": "Show every distinct change with its hosts; changes nothing with --dry-run.",
        "enable": "Once all hosts are right, put our lines into slurm.conf and reconfigure Slurm.",
        "canary": "Begin with so many hosts, check them, and go on only if they are right.",
    }
)
@verb
def deploy(  # noqa: PLR0913, PLR0917 - the flags an admin has
    _context: Context,
    inventory: str | None = None,
    limit: str | None = None,
    fanout: str | None = None,
    timeout: str | None = None,
    dry_run: bool = False,
    diff: bool = False,
    canary: str | None = None,
    enable: bool = False,
    report: str | None = None,
    as_user: bool = False,
    via: str | None = None,
) -> None:
    """Bring the hosts of an inventory to the present version; what is right already is left alone."""
    request = _request(inventory, limit, fanout, timeout, via)
    first = number(canary) or 0
    if enable and as_user:
        raise UsageError("--enable changes slurm.conf, which is root's; leave --as-user out")
    from hpcproxy.cluster import verbs  # noqa: PLC0415
    from hpcproxy.cluster.run import start  # noqa: PLC0415

    run = start(request, as_user=as_user)
    outcomes = verbs.deploy(run, verbs.Wish(dry_run, diff, first, enable), _Screen(run))
    if dry_run:
        _finish(run, "deploy --dry-run", outcomes, report, good=not outcomes.failed)
    else:
        _finish(run, "deploy", outcomes, report, good=outcomes.good)


@task(
    help={
        **COMMON,
        "contract": "Run the installed scripts on every host as slurmd would, and name what it would not bear.",
    }
)
@verb
def verify(  # noqa: PLR0913, PLR0917 - the flags an admin has
    _context: Context,
    inventory: str | None = None,
    limit: str | None = None,
    fanout: str | None = None,
    timeout: str | None = None,
    contract: bool = False,
    report: str | None = None,
    as_user: bool = False,
    via: str | None = None,
) -> None:
    """Say which hosts are as the inventory says and how the others differ; changes nothing."""
    request = _request(inventory, limit, fanout, timeout, via)
    from hpcproxy.cluster import verbs  # noqa: PLC0415
    from hpcproxy.cluster.run import start  # noqa: PLC0415

    run = start(request, as_user=as_user)
    outcomes = verbs.verify(run, _Screen(run), with_contract=contract)
    _finish(run, "verify", outcomes, report, good=outcomes.as_wanted)


@task(
    help={
        "inventory": INVENTORY_HELP,
        "limit": LIMIT_HELP,
        "fanout": FANOUT_HELP,
        "timeout": TIMEOUT_HELP,
        "job": "Only the tunnels of this job.",
        "json": "Print JSON.",
    }
)
@verb
def who(
    _context: Context,
    inventory: str | None = None,
    limit: str | None = None,
    fanout: str | None = None,
    timeout: str | None = None,
    job: str | None = None,
    json_: bool = False,
) -> None:
    """Show every tunnel that is up now: whose, for which job, on which node, since when, through what, how much."""
    request = _request(inventory, limit, fanout, timeout)
    from hpcproxy.cluster import verbs  # noqa: PLC0415
    from hpcproxy.cluster.run import start  # noqa: PLC0415
    from hpcproxy.cluster.who import seen  # noqa: PLC0415

    run = start(request)
    outcomes = _Screen(run).watch("who", lambda hear: verbs.who(run, hear))
    found = [one for one in seen(outcomes) if job in (None, one.job)]
    if json_:
        print(json.dumps({"tunnels": [vars(one) for one in found], "unreached": list(outcomes.failed)}))
    elif found:
        status_page.show_users(found)
    else:
        say("no tunnel is up on these hosts")
    if outcomes.failed:
        raise Exit(code=1)


@task(help=COMMON)
@verb
def rollback(  # noqa: PLR0913, PLR0917 - the flags an admin has
    _context: Context,
    inventory: str | None = None,
    limit: str | None = None,
    fanout: str | None = None,
    timeout: str | None = None,
    report: str | None = None,
    as_user: bool = False,
    via: str | None = None,
) -> None:
    """Bring the hosts back to the version before the present one; a second time undoes that."""
    request = _request(inventory, limit, fanout, timeout, via)
    from hpcproxy.cluster import verbs  # noqa: PLC0415
    from hpcproxy.cluster.run import start  # noqa: PLC0415

    run = start(request, as_user=as_user)
    outcomes = _Screen(run).watch("rollback", lambda hear: verbs.roll_back(run, hear))
    _finish(run, "rollback", outcomes, report, good=outcomes.good)


@task(help=COMMON)
@verb
def undeploy(  # noqa: PLR0913, PLR0917 - the flags an admin has
    _context: Context,
    inventory: str | None = None,
    limit: str | None = None,
    fanout: str | None = None,
    timeout: str | None = None,
    report: str | None = None,
    as_user: bool = False,
    via: str | None = None,
) -> None:
    """Remove everything of ours from the hosts; files that somebody has changed are kept and named."""
    request = _request(inventory, limit, fanout, timeout, via)
    from hpcproxy.cluster import verbs  # noqa: PLC0415
    from hpcproxy.cluster.run import start  # noqa: PLC0415

    run = start(request, as_user=as_user)
    outcomes = _Screen(run).watch("undeploy", lambda hear: verbs.undeploy(run, hear))
    _finish(run, "undeploy", outcomes, report, good=outcomes.good)


@task(
    iterable=["fingerprint"],
    help={
        "inventory": INVENTORY_HELP,
        "limit": LIMIT_HELP,
        "fanout": FANOUT_HELP,
        "timeout": TIMEOUT_HELP,
        "replace-key": "Take a key that a host shows now for a new one even if another was kept before.",
        "yes": YES_HELP,
        "fingerprint": FINGERPRINT_HELP,
    },
)
@verb
def trust(  # noqa: PLR0913, PLR0917 - the flags an admin has
    _context: Context,
    fingerprint: list[str],
    inventory: str | None = None,
    limit: str | None = None,
    fanout: str | None = None,
    timeout: str | None = None,
    replace_key: bool = False,
    yes: bool = False,
) -> None:
    """Fetch the host keys of an inventory's hosts and jump hosts, show them, and keep new ones if they are right."""
    consent = Flags.of(yes, fingerprint)
    request = _request(inventory, limit, fanout, timeout)
    from hpcproxy.cluster.trust import trust as fetch_keys  # noqa: PLC0415

    with counting("trust") as count:
        shown = fetch_keys(request, replace_key=replace_key, consent=count.aside(consent.ask), on_key=count)
    for line in told(shown):
        print(line)
    for line in complaints(shown):
        say(line)
    if any(one.error for one in shown):
        raise Exit("hpcproxy: not every host's key is trusted", code=1)


@task(
    help={
        "inventory": INVENTORY_HELP,
        "directory": "Where the files go; the key must stay with the admin and the nodes.",
    }
)
@verb
def jump_kit(_context: Context, inventory: str | None = None, directory: str = "jump-kit") -> None:
    """Write what service mode needs: a forward-only key, its authorized_keys line, sshd's Match block, nft's table."""
    from hpcproxy.cluster import kit as jump  # noqa: PLC0415
    from hpcproxy.cluster.inventory import fold  # noqa: PLC0415
    from hpcproxy.cluster.jumpkit import KEY_FILE, KEYS_ON_JUMP, LINE_FILE, MATCH_FILE, NFT_FILE  # noqa: PLC0415

    if not inventory:
        raise UsageError("say which inventory: --inventory FILE")
    where = from_here(directory)
    kit = jump.jump_kit(Path(inventory), where)
    results(kit.results)
    say(f"inventory:  mode: service, service_key: {where / KEY_FILE}")
    say(f"jump host:  an account without a login shell; {LINE_FILE} as {KEYS_ON_JUMP}; {MATCH_FILE} into sshd_config")
    say(f"jump host:  nft -f {NFT_FILE}, now and at each start: sshd goes by names, the kernel sees where they lead")
    if kit.unresolved:
        say(f"not in {NFT_FILE}, for no address is known here: {fold(kit.unresolved)}; add what leads to them by hand")
    if kit.beyond_sshd:
        rules = ", ".join(kit.beyond_sshd)
        say(
            f"sshd cannot hold {rules}: it would let the key forward anywhere, and only the agent on the node limits it"
        )


def render_page(inventory: str | None) -> None:
    """Print what the inventory's users are to know, as a page for the site's own documentation."""
    from hpcproxy.cluster import inventory as told  # noqa: PLC0415
    from hpcproxy.cluster import site_page  # noqa: PLC0415

    if not inventory:
        raise UsageError(f"say which inventory: render {SITE_PAGE} --inventory FILE")
    print(site_page.page(*told.read(Path(inventory))))


def render_root(root: str | None, inventory: str | None) -> None:
    """Write the tree that `render --root` is asked for, and say what is left to whoever packs the image."""
    from hpcproxy.cluster import image  # noqa: PLC0415

    if not root or not inventory:
        raise UsageError("an image needs both: render --root DIR --inventory FILE")
    request = _request(inventory, None, None, None)
    results(image.render_root(request, from_here(root)))
    for line in image.others(request):
        say(line)


TASKS = (trust, deploy, verify, who, rollback, undeploy, jump_kit)

"""The Invoke tasks: arguments, one `ops` call, a report, an exit code; `hpcproxy` is the same collection."""

from __future__ import annotations

import functools
import json
import os
import sys
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

from invoke.collection import Collection
from invoke.context import Context
from invoke.exceptions import Exit
from invoke.program import Program
from invoke.tasks import task
from rich.console import Console
from rich.table import Table

from hpcproxy import __version__, ops
from hpcproxy.errors import HpcproxyError, UsageError
from hpcproxy.install import Outcome, Result
from hpcproxy.ops import Account

_PIPE_COLUMNS = 240  # a table that no person reads needs no folding


def _console() -> Console:
    return Console(highlight=False, width=None if sys.stdout.isatty() else _PIPE_COLUMNS)


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def say(text: str) -> None:
    """Print one line of talk on stderr; stdout is for data."""
    print(f"hpcproxy: {text}", file=sys.stderr, flush=True)


def verb(body: Callable[..., None]) -> Callable[..., None]:
    """Turn what `body` raises into one line on stderr and an exit code; a user never meets a traceback."""

    @functools.wraps(body)
    def guarded(context: Context, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - Invoke fills the signature
        try:
            body(context, *args, **kwargs)
        except Exit:
            raise
        except HpcproxyError as error:
            raise Exit(f"hpcproxy: {error}", code=error.exit_code) from None
        except KeyboardInterrupt:
            raise Exit("hpcproxy: interrupted", code=130) from None
        except BrokenPipeError:
            # Whoever read our output has gone; there is nobody left to tell.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise Exit(code=141) from None
        except Exception as error:
            if os.environ.get("HPCPROXY_DEBUG"):
                raise
            name = type(error).__name__
            text = f"hpcproxy: internal error, {name}: {error}; HPCPROXY_DEBUG=1 shows where, please report it"
            raise Exit(text, code=70) from None

    return guarded


def _account() -> Account:
    return Account.of(os.environ)


def _show_results(results: list[Result]) -> None:
    for result in results:
        done = "removed" if result.action == "remove" and result.outcome is Outcome.CHANGED else result.outcome.value
        print(f"{done:12}  {result.path}")


JUMP_HELP = "Jump host, [USER@]HOST[:PORT]; may be given several times, the next is tried when one fails."


@task(
    iterable=["jump"],
    help={
        "jump": JUMP_HELP,
        "port": "TCP port of the way out on every node (default 2015).",
        "identity": "Private key for the jump host; without it ssh chooses as it always does.",
        "probe": "Try one login to each jump host (--no-probe skips it).",
        "replace-key": "Pin the key that a jump host shows now even if it is not the one pinned before.",
    },
)
@verb
def init(
    _context: Context,
    jump: list[str],
    port: int | None = None,
    identity: str | None = None,
    probe: bool = True,
    replace_key: bool = False,
) -> None:
    """Write ~/.hpcproxy/config.yaml, pin the jump host's key and try one login."""
    if not jump:
        raise UsageError("say which jump host: hpcproxy init --jump USER@HOST")
    flags = ops.parse_flags(jump=jump, port=_number(port), identity=_absolute(identity))
    report = ops.init(_account(), flags, try_login=probe, replace_key=replace_key, say=say)
    _show_results(report.results)
    for pinned in report.pinned:
        if pinned.error is None:
            print(f"host key      {pinned.jump}  {pinned.kind} {pinned.fingerprint}  ({pinned.news})")
        else:
            say(str(pinned.error))
    for result in report.probes:
        if result.layer is None:
            print(f"login         {result.jump}  {result.reason}")
        else:
            say(f"{result.layer}: {result.jump}: {result.reason}")
    if not report.works:
        raise Exit("hpcproxy: the settings are written, but the way out does not work yet", code=1)


@task(
    iterable=["jump"],
    help={
        "port": "TCP port of the way out on every node (default 2015).",
        "jump": JUMP_HELP,
        "dry-run": "Say what would change and change nothing.",
    },
)
@verb
def install_bashrc(_context: Context, jump: list[str], port: int | None = None, dry_run: bool = False) -> None:
    """Install ~/.hpcproxy/ and the block in ~/.bashrc."""
    account = _account()
    _show_results(ops.install_bashrc(account, ops.parse_flags(jump=jump, port=_number(port)), dry_run=dry_run))
    if not ops.settings_of(account, ops.parse_flags(jump=jump)).jump:
        say("no jump host is configured yet; run: hpcproxy init --jump USER@HOST")


@task
@verb
def uninstall_bashrc(_context: Context) -> None:
    """Take the block out of ~/.bashrc; ~/.hpcproxy/ stays."""
    results = ops.uninstall_bashrc(_account())
    _show_results(results)
    if not results:
        say("there is no hpcproxy block in ~/.bashrc")


@task
@verb
def uninstall(_context: Context) -> None:
    """Remove everything: the tunnel of this machine, the block in ~/.bashrc and ~/.hpcproxy/."""
    results, left = ops.uninstall(_account())
    _show_results(results)
    if not results:
        say("nothing of hpcproxy is installed")
    for path in left:
        say(f"left alone, it is not ours: {path}")


@task(
    positional=["script"],
    help={
        "script": "The job script.",
        "in-place": "Change the script itself.",
        "output": "Write the result to this file.",
        "remove": "Take the hook line out again.",
    },
)
@verb
def wrap(
    _context: Context, script: str, in_place: bool = False, output: str | None = None, remove: bool = False
) -> None:
    """Put the hook line behind the #SBATCH block of a job script; prints the result unless told where to put it."""
    if in_place and output:
        raise UsageError("--in-place and --output exclude each other")
    target = Path(script) if in_place else Path(output) if output else None
    wrapped = ops.wrap(Path(script), target, remove=remove)
    if target is None:
        sys.stdout.buffer.write(wrapped.content)
        sys.stdout.buffer.flush()
    else:
        print(f"{wrapped.outcome.value:12}  {target}")
    for number in wrapped.ignored_options:
        say(f"{script}:{number}: sbatch ignores this #SBATCH line, a command stands before it")


@task(positional=["name"], optional=["name"], help={"name": "Which artifact to print; without it they are listed."})
@verb
def render(_context: Context, name: str = "") -> None:
    """List the artifacts, or print one exactly as it would be installed."""
    account = _account()
    if name:
        sys.stdout.buffer.write(ops.render_one(account, name))
        sys.stdout.buffer.flush()
        return
    table = _table("name", "installed as", "mode", "what it is for")
    for artifact in ops.artifacts(account):
        table.add_row(artifact.name, str(artifact.path), f"{artifact.mode:04o}", artifact.summary)
    _console().print(table)


@task
@verb
def up(_context: Context) -> None:
    """Start the way out for shells of this machine, without Slurm."""
    tunnel = ops.up(_account(), say)
    print(f"up            {tunnel.url} through {tunnel.jump}; in a shell: proxy_on")


@task
@verb
def down(_context: Context) -> None:
    """End the way out for shells of this machine."""
    ended = ops.down(_account())
    for tunnel in ended:
        print(f"down          {tunnel.url}")
    if not ended:
        say("no way out of yours is up on this machine")


@task(help={"json": "Print JSON."})
@verb
def status(_context: Context, json_: bool = False) -> None:
    """Show your ways out on this machine; exit code 1 if none is up."""
    tunnels, drifted = ops.status(_account())
    if json_:
        print(json.dumps({"tunnels": [tunnel.as_json() for tunnel in tunnels], "drift": [str(p) for p in drifted]}))
    else:
        _show_tunnels(tunnels)
        for path in drifted:
            say(f"{path} is missing or older than the settings; run: hpcproxy install-bashrc")
    if not any(tunnel.ready for tunnel in tunnels):
        raise Exit(code=1)


def _show_tunnels(tunnels: list[Any]) -> None:
    if not tunnels:
        say("no way out of yours is up on this machine")
        return
    table = _table("job", "state", "address", "through", "up since", "reconnects", "last error")
    for tunnel in tunnels:
        since = datetime.fromtimestamp(tunnel.since).astimezone().isoformat(timespec="seconds") if tunnel.since else "-"
        state = "up" if tunnel.ready else "down"
        row = (
            tunnel.job,
            state,
            tunnel.url,
            tunnel.jump or "-",
            since,
            str(tunnel.reconnects),
            tunnel.last_error or "-",
        )
        table.add_row(*row)
    _console().print(table)


@task(help={"timeout": "Seconds to wait for the answer.", "json": "Print JSON."})
@verb
def check(_context: Context, timeout: int = 20, json_: bool = False) -> None:
    """Print the address the internet sees, the latency and the jump host, or the layer that failed."""
    checked = ops.check(_account(), _number(timeout) or 20)
    if json_:
        print(json.dumps({**vars(checked.answer), "url": checked.url, "jump": checked.jump}))
        return
    print(f"{checked.answer.address}  {checked.answer.latency_ms:.0f} ms  through {checked.jump} at {checked.url}")


def _absolute(path: str | None) -> str | None:
    """Return a path as typed in some directory so that it holds in every other."""
    return None if path is None else str(Path(path).expanduser().absolute())


def _number(value: Any) -> int | None:  # noqa: ANN401 - Invoke hands over what was typed
    """Return a flag's number; raises UsageError for what is none. Invoke guesses a flag's type from its default."""
    if value is None:
        return None
    try:
        return int(value)
    except ValueError:
        raise UsageError(f"{value!r} is not a whole number") from None


def user_tasks() -> Collection:
    """Return the collection of everything a user types."""
    tasks = (init, install_bashrc, uninstall_bashrc, uninstall, wrap, render, up, down, status, check)
    return Collection(*tasks)


def main() -> None:
    """Run the collection as the program `hpcproxy`."""
    Program(name="hpcproxy", binary="hpcproxy", namespace=user_tasks(), version=__version__).run()

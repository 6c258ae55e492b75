"""The verbs that use the tunnel of this job or shell: one command with it, one connection, its variables."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from hpcproxy.account import netcat, runner, tool_settings, tunnels, verbs
from hpcproxy.account import serve as serving
from hpcproxy.account.account import Account
from hpcproxy.config.model import Jump
from hpcproxy.errors import TunnelError, UsageError
from hpcproxy.files.plan import PROFILE


def nc(account: Account, host: str, port: int, timeout_s: float) -> None:
    """Carry stdin and stdout over a connection to `host:port` through the tunnel of this job or shell."""
    url = _present(account)[0]
    netcat.carry(url, host, port, timeout_s)


def run(account: Account, command: list[str], say: verbs.Say) -> int:
    """Run `command` with the tunnel of this job or shell and return its exit code, if it does not take our place.

    Raises TunnelError where there is no tunnel and none can be started.
    """
    fragment = _fragment(account)
    if fragment is None:
        if account.environ.get("HPCPROXY_URL"):  # a roll-out's: the variables are set already
            return runner.become(command, account.environ)
        raise TunnelError("installation", "nothing is installed for this account", "run: hpcproxy install-bashrc")
    if account.environ.get("SLURM_JOB_ID", "").isdecimal():
        return runner.become(command, runner.changes(fragment, account.environ).of(account.environ))
    started = not tunnels.find(account.environ, "shell")
    tunnel = verbs.up(account, say)
    with runner.used(tunnel, started=started):
        return runner.attend(command, runner.changes(fragment, account.environ).of(account.environ))


def _fragment(account: Account) -> Path | None:
    """Return the bashrc.sh that speaks for this account: its own, or the one that an admin has rolled out."""
    named = [account.home.directory / "bashrc.sh", PROFILE]
    return next((path for path in named if os.access(path, os.R_OK)), None)


def _present(account: Account) -> tuple[str, str]:
    """Return the URL and the no_proxy list of this job's or shell's tunnel; raises TunnelError if there is none."""
    environ = account.environ
    mine = environ.get("no_proxy") or environ.get("NO_PROXY") or ""
    if environ.get("HPCPROXY_URL"):
        return environ["HPCPROXY_URL"], mine
    found = tunnels.find(environ, environ.get("SLURM_JOB_ID") or "shell")
    if not found:
        raise TunnelError("tunnel", "no tunnel of yours is up on this machine", "start it with: hpcproxy up")
    return found[-1].url, f"{found[-1].no_proxy},{mine}"


def env(account: Account, tool: str) -> tool_settings.Lines:
    """Return what `tool` needs to use the tunnel of this job or shell; raises TunnelError if there is none."""
    return tool_settings.lines(tool, tool_settings.Present.of(*_present(account), account.environ))


@dataclass(frozen=True)
class Serving:
    """What `serve` was asked for; see serve.Request."""

    jobs: tuple[str, ...]
    through: str | None = None
    program: str = "hpcproxy"
    behind: bool = False


def serve(account: Account, asked: Serving, say: verbs.Say) -> None:
    """Bring jobs a tunnel from here until they are over; raises TunnelError, UsageError."""
    via = "reverse" if asked.behind else "direct"
    config = verbs.settings_of(account).config.model_copy(update={"via": via})
    try:
        through = Jump.parse(asked.through) if asked.through else None
    except ValueError as error:
        raise UsageError(f"--through: {error}") from None
    request = serving.Request(
        asked.jobs, config, account.home, account.environ, through, program=asked.program, behind=asked.behind
    )
    serving.serve(request, say)

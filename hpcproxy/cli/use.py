"""The tasks that use the tunnel of this job or shell: one command, one connection, its variables."""

from __future__ import annotations

import os
import sys

from invoke.context import Context
from invoke.exceptions import Exit
from invoke.tasks import task

from hpcproxy.account import tool_settings, use
from hpcproxy.account.account import Account
from hpcproxy.account.netcat import CONNECT_TIMEOUT_S
from hpcproxy.cli.output import number, say, verb
from hpcproxy.errors import UsageError


@task(
    positional=["host", "port"],
    help={
        "host": "Host to connect to; its name is resolved at the jump host.",
        "port": "TCP port.",
        "timeout": "Seconds to wait for the connection (default 30).",
    },
)
@verb
def nc(_context: Context, host: str, port: str, timeout: str | None = None) -> None:
    """Carry stdin and stdout over a connection through the tunnel; for ssh's ProxyCommand."""
    use.nc(Account.of(os.environ), host, number(port) or 0, number(timeout) or CONNECT_TIMEOUT_S)


@task
@verb
def run(_context: Context) -> None:
    """Run the command behind `--` with the tunnel of this job or shell, and end as it ends."""
    # Invoke joins what stands behind `--` into one text; the words are needed as they were typed.
    command = sys.argv[sys.argv.index("--") + 1 :] if "--" in sys.argv else []
    if not command:
        raise UsageError("say what to run: hpcproxy run -- COMMAND [ARGUMENT ...]")
    raise Exit(code=use.run(Account.of(os.environ), command, say))


@task(
    help={
        "java": "JAVA_TOOL_OPTIONS, with what is to be reached directly; for eval in the job script.",
        "maven": "A settings.xml; for mvn -gs FILE.",
        "docker": "The proxies of a config.json, for docker's run and build.",
        "apptainer": "Variables that get into a container with --cleanenv too; for eval.",
        "git": "Variables that win over any http.proxy of git's own files; for eval.",
        "fsspec": "Variables by which fsspec, Dask and gcsfs use the tunnel too; for eval.",
        "shell": "For which shell: sh, bash, zsh, fish, csh, tcsh (default sh).",
        "json": "Print JSON.",
    },
)
@verb
def env(  # noqa: PLR0913, PLR0917 - a flag for each program
    _context: Context,
    java: bool = False,
    maven: bool = False,
    docker: bool = False,
    apptainer: bool = False,
    git: bool = False,
    fsspec: bool = False,
    shell: str = "sh",
    json_: bool = False,
) -> None:
    """Print what a program needs to use the tunnel of this job; without a flag the shell's variables."""
    tools = {"java": java, "maven": maven, "docker": docker, "apptainer": apptainer, "git": git, "fsspec": fsspec}
    if shell not in tool_settings.SHELLS:
        raise UsageError(f"--shell: one of {', '.join(tool_settings.SHELLS)}, not {ascii(shell)[1:-1]}")
    needed = use.env(Account.of(os.environ), tool_settings.one_of(tools))
    print(needed.as_json() if json_ else needed.shown(shell), end="")
    if not json_:
        for line in needed.limits:
            say(line)


TASKS = (run, nc, env)

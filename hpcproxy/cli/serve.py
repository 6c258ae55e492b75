"""The task `serve`: its flags, and which jobs are meant."""

from __future__ import annotations

import os

from invoke.context import Context
from invoke.tasks import task

from hpcproxy.account import use
from hpcproxy.account.account import Account
from hpcproxy.cli.output import say, verb
from hpcproxy.errors import UsageError


@task(
    iterable=["job"],
    help={
        "job": "The job, running or not yet; may be given several times. It ends when they are over.",
        "all-jobs": "All of your jobs, also those that begin later.",
        "through": "The jobs are those of this login node, the tunnel comes from here: from a laptop that is online.",
        "program": "What hpcproxy is called on that login node, or its path there (default hpcproxy).",
        "behind": "For the one that --through starts on the login node.",
    },
)
@verb
def serve(
    _context: Context,
    job: list[str],
    all_jobs: bool = False,
    through: str | None = None,
    program: str = "hpcproxy",
    behind: bool = False,
) -> None:
    """Bring jobs with `via: reverse` a tunnel from here, where you have logged in, for as long as this runs."""
    if bool(job) == all_jobs:
        raise UsageError("say which jobs: hpcproxy serve --job ID, or --all-jobs")
    if through and behind:
        raise UsageError("--through and --behind exclude each other")
    use.serve(Account.of(os.environ), use.Serving(tuple(job), through, program, behind), say)


TASKS = (serve,)

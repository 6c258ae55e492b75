"""The task `serve`: its flags, and which jobs are meant."""

from __future__ import annotations

import os

from invoke.context import Context
from invoke.tasks import task

from hpcproxy.account import use
from hpcproxy.account.verbs import Account
from hpcproxy.cli.output import say, verb
from hpcproxy.errors import UsageError


@task(
    iterable=["job"],
    help={
        "job": "The job, running or not yet; may be given several times. It ends when they are over.",
        "all-jobs": "All of your jobs, also those that begin later.",
    },
)
@verb
def serve(_context: Context, job: list[str], all_jobs: bool = False) -> None:
    """Bring jobs with `via: reverse` a tunnel from here, where you have logged in, for as long as this runs."""
    if bool(job) == all_jobs:
        raise UsageError("say which jobs: hpcproxy serve --job ID, or --all-jobs")
    use.serve(Account.of(os.environ), job, say)


TASKS = (serve,)

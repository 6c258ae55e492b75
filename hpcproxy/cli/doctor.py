"""The Invoke task `doctor`: its flags, its exit code."""

from __future__ import annotations

from invoke.context import Context
from invoke.exceptions import Exit
from invoke.tasks import task

from hpcproxy.cli.output import verb
from hpcproxy.errors import UsageError


@task(
    help={
        "json": "Print JSON.",
        "job": "Look at this job: at the tunnels of all its nodes, and from inside of it, by a step.",
        "on-node": "Look from a compute node too, by one srun.",
        "bundle": "Write what an admin needs to help to this new file, without secrets; what is in it is listed.",
        "endpoints": "Ask the endpoints of trackers, hubs and LLM APIs too (--no-endpoints leaves them alone).",
    }
)
@verb
def doctor(
    _context: Context,
    job: str | None = None,
    on_node: bool = False,
    json_: bool = False,
    bundle: str | None = None,
    endpoints: bool = True,
) -> None:
    """Look at everything that a tunnel needs, say what is wrong and the one command that mends it; changes nothing."""
    if job and on_node:
        raise UsageError("--job and --on-node exclude each other: a job has nodes")
    from hpcproxy.cli import visit  # noqa: PLC0415 - TLS and HTTP, 30 ms that no other task should pay

    asked = visit.Asked(job=job or "", on_node=on_node, endpoints=endpoints, as_json=json_, bundle=bundle or "")
    code = visit.visit(asked)
    if code:
        raise Exit(code=code)


TASKS = (doctor,)

"""The Invoke tasks of the lab and the demo: a real cluster on one machine, to try things on."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

from invoke.collection import Collection
from invoke.context import Context
from invoke.exceptions import Exit
from invoke.tasks import task

from hpcproxy.cli.output import console, number, say, verb
from hpcproxy.cluster.inventory import expand, fold
from hpcproxy.errors import UsageError

NAME_HELP = "Name of the lab; labs of different names run beside each other."
CHECKOUT = Path(__file__).resolve().parents[2]


@task(
    help={
        "nodes": "How many compute nodes (default 3).",
        "name": NAME_HELP,
        "release": "Debian's release of its hosts: trixie, or by role, jump=trixie,compute=bullseye; made if need be.",
        "admin": "Root on the controller may log in to the nodes and sees this checkout: to rehearse a roll-out.",
    }
)
@verb
def up(_context: Context, nodes: int | None = None, name: str = "lab", admin: bool = False, release: str = "") -> None:
    """Build a real Slurm cluster on this machine and return when it answers; needs root."""
    from hpcproxy.lab import Lab, LabSpec, parse_release  # noqa: PLC0415 - only those who ask for a lab load it

    count = 3 if nodes is None else number(nodes) or 0
    spec = LabSpec(name=name, nodes=count, node_sshd=admin, expose=(CHECKOUT,) if admin else ())
    lab = Lab.up(replace(spec, release=parse_release(release)) if release else spec, on_step=say)
    print(f"up            {fold(lab.hosts)}; jump hosts 192.168.31.10, 192.168.31.11; users alice, bob")
    print("try           invoke lab.run --node login --user alice -- sinfo")


@task(
    help={
        "node": "Where to run it: login, c1, jump1, internet, or a node set such as c[1-3].",
        "user": "As whom: root, alice or bob.",
        "name": NAME_HELP,
    }
)
@verb
def run(_context: Context, node: str, user: str = "root", name: str = "lab") -> None:
    """Run the command behind `--` on a host of the lab, or on several in turn, and exit with the worst exit code."""
    from hpcproxy.lab import Lab  # noqa: PLC0415

    # Invoke itself keeps the words behind `--` only joined to one string, which loses where each ends.
    argv = sys.argv[sys.argv.index("--") + 1 :] if "--" in sys.argv else []
    if not argv:
        raise UsageError("say what to run: lab.run --node c1 -- COMMAND")
    try:
        hosts = expand(node)
    except ValueError as error:
        raise UsageError(f"--node {error}") from None
    lab = Lab.attach(name)
    code = max(lab.call(host, argv, user) for host in hosts)
    if code:
        raise Exit(code=code)


@task(help={"name": NAME_HELP})
@verb
def down(_context: Context, name: str = "lab") -> None:
    """Remove the lab; nothing of it is left, also of one whose building was cut short."""
    from hpcproxy.lab import Lab  # noqa: PLC0415

    print(f"down          {name}" if Lab.remove(name, on_step=say) else f"no lab {name} was there")


@task(help={"loopback": "Show it on loopback, without root and without Slurm."})
@verb
def demo(_context: Context, loopback: bool = False) -> None:
    """Show the whole story: what is blocked, what a job fetches with hpcproxy, and that nothing is left."""
    from hpcproxy import demo as story  # noqa: PLC0415 - only those who ask for the demo load it

    if not story.run(console(), loopback=loopback or None):
        raise Exit(code=1)


def lab_tasks() -> Collection:
    """Return the collection `lab`."""
    return Collection("lab", up, run, down)

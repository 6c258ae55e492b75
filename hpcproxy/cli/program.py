"""All tasks together, as the program `hpcproxy` and for a checkout's `invoke`."""

from __future__ import annotations

import sys

from invoke.collection import Collection
from invoke.program import Program

from hpcproxy import __version__
from hpcproxy.cli import admin, lab, user
from hpcproxy.cli.output import quiet_pipe


def tasks() -> Collection:
    """Return the collection of everything a user types."""
    collection = Collection(*user.TASKS, *admin.TASKS, lab.demo)
    collection.add_collection(lab.lab_tasks())
    return collection


def _help_first(argv: list[str]) -> list[str]:
    """Return `argv` with --help before the task that it is about, which would take it for a file of its own."""
    given = argv[: argv.index("--")] if "--" in argv else argv
    return [argv[0], "--help", argv[1]] if "--help" in given[2:] and not argv[1].startswith("-") else argv


def main() -> None:
    """Run the collection as the program `hpcproxy`."""
    program = Program(name="hpcproxy", binary="hpcproxy", namespace=tasks(), version=__version__)
    with quiet_pipe():
        program.run(_help_first(sys.argv))

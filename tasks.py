"""The user's tasks for `invoke` in a checkout, and the developers' own: tools, lint, docs, test, golden."""

import sys
from pathlib import Path

from invoke import Context, task

from hpcproxy import quoting
from hpcproxy.cli.program import tasks

ROOT = Path(__file__).parent
BIN = Path(sys.executable).parent  # the tools of this environment, whatever PATH says
SHELL_FILES = "templates/lib/*/*.sh templates/line/*.sh .ci/run"
# Tests on a lab mostly wait for Slurm, so three workers suit two cores. A file's tests share what is dear to set up; in
# the order of the files the long ones, on labs, come early.
SIDE_BY_SIDE = "-n 3 --dist loadfile --no-loadscope-reorder"


@task
def lint(context: Context) -> None:
    """Check style, types and shell; changes nothing."""
    with context.cd(ROOT):
        context.run(f"{BIN}/ruff check .")
        context.run(f"{BIN}/ruff format --check .")
        context.run(f"{BIN}/mypy")
        context.run(f"shfmt -i 4 -ci -d {SHELL_FILES}")
        # All checks (.shellcheckrc) but of variables that another part of the script sets: tests look at the whole.
        context.run(f"shellcheck --exclude=SC2154,SC2034 {SHELL_FILES}")


@task
def docs(context: Context) -> None:
    """Build the pages into docs/_build; any warning fails."""
    with context.cd(ROOT):
        context.run(f"{BIN}/python -m sphinx -q -W -n -b html docs docs/_build")


@task
def golden(context: Context) -> None:
    """Rewrite tests/golden, man/ and the table of docs/configuration.md; look at the difference before a commit."""
    with context.cd(ROOT):
        context.run(f"{BIN}/python -c 'from tests.golden_cases import write_goldens; write_goldens()'")
        context.run(f"{BIN}/python -c 'from tests.settings_page import write_page; write_page()'")
        context.run(f"{BIN}/python -c 'from tests.cli.test_man import write_page; write_page()'")


@task(help={"select": "Run only tests whose names match this expression (pytest -k)."})
def test(context: Context, select: str = "") -> None:
    """Run the tests, as root those on a real cluster too; missing system tools are installed with apt if possible."""
    from hpcproxy.lab import packages  # noqa: PLC0415 - only this task needs it

    packages.ensure(packages.TEST_TOOLS)
    packages.ensure_if_possible(packages.STYLE_TOOLS)
    with context.cd(ROOT):
        context.run(f"{BIN}/python -m pytest {SIDE_BY_SIDE}" + (f" -k {quoting.word(select)}" if select else ""))


@task(
    help={
        "all": "Those too that are too large for every test run; installs gigabytes.",
        "only": "Of those only the ones whose names match this regular expression, and nothing else.",
    }
)
def clients_table(context: Context, all: bool = False, only: str = "") -> None:  # noqa: A002 - the flag's name
    """Run the real clients in the lab (as root) and write the tables of docs/clients.md."""
    if not only:
        write_tables(context, {"CLIENTS_TABLE": "1"}, "tests/lab/test_clients.py")
    if all or only:
        write_tables(context, {"CLIENTS_ONLY": only}, "tests/lab/every_client.py -s")


@task
def outages_table(context: Context) -> None:
    """Break the tunnel in all ways in the lab (as root) and write the tables of docs/outages.md."""
    write_tables(context, {"OUTAGES_TABLE": "1"}, "tests/lab/test_outages.py tests/lab/test_outages_clients.py")


@task
def endings_table(context: Context) -> None:
    """Let jobs end in the lab in all ways (as root) and write the tables of docs/endings.md."""
    write_tables(
        context, {"ENDINGS_TABLE": "1"}, "tests/lab/test_ends.py tests/lab/test_ends_site.py -k 'ends or page'"
    )


@task(
    help={
        "suites": "Debian releases whose files the lab's hosts have, as a list with commas (default: all).",
        "features": "What is tried, as a list with commas (default: all; bench/reach.py has their names).",
        "write": "docs/reach.md has the table afterwards.",
        "within": "In so many seconds: what cannot be had here or is not done by then is left out, and that is said.",
    }
)
def reach(context: Context, suites: str = "", features: str = "", write: bool = False, within: int = 0) -> None:
    """Try each feature on other releases of Slurm, OpenSSH and Python (as root); the first time takes minutes more."""
    chosen = [("--suites", suites), ("--features", features)]
    flags = [f"{flag} {quoting.word(value)}" for flag, value in chosen if value] + ["--write"] * write
    flags += [f"--within {within}"] * bool(within)
    with context.cd(ROOT):
        context.run(f"{BIN}/python bench/reach.py {' '.join(flags)}")


@task(
    help={
        "count": "How many mutants of Python, and as many of shell (default 30).",
        "seed": "Another number draws others.",
        "only": "Only of files below this path, as templates/lib or hpcproxy/node/proxy.",
        "kind": "python or shell, if only one of them.",
    }
)
def mutants(context: Context, count: int = 30, seed: int = 1, only: str = "", kind: str = "") -> None:
    """Break the code in small ways, one at a time in a copy, and list what the quick tests do not notice."""
    flags = f"--count {count} --seed {seed}"
    for flag, value in (("only", only), ("kind", kind)):
        flags += f" --{flag} {quoting.word(value)}" if value else ""
    with context.cd(ROOT):
        context.run(f"{BIN}/python bench/mutants.py {flags}")


def write_tables(context: Context, wish: dict[str, str], tests: str) -> None:
    """The page that `tests` write when `wish` is in their environment is there."""
    from hpcproxy.lab import packages  # noqa: PLC0415 - only these tasks need it

    packages.ensure(packages.TEST_TOOLS)
    with context.cd(ROOT):
        context.run(f"{BIN}/python -m pytest {tests}", env=wish)


namespace = tasks()
for developer_task in (lint, docs, golden, clients_table, outages_table, endings_table, reach, mutants, test):
    namespace.add_task(developer_task)

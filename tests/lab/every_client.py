"""The programs of clients_more.py, run as those of clients.py are; what comes of it is a table with its date.

Not collected by a test run, for it installs gigabytes: `invoke clients-table --all`.
"""

from __future__ import annotations

import datetime as dt
import subprocess
import sys
import venv
from pathlib import Path

import pytest

from hpcproxy.lab import Lab, packages

from .clients import TOOLS
from .clients_more import FURTHER, Further
from .conftest import ClientsPlace
from .researcher import Researcher
from .services import Services
from .test_clients import FAILS, OPTIONS, PAGE, WORKS, Runs, body, fresh, internet

__all__ = ["fresh", "internet"]  # fixtures

pytestmark = pytest.mark.lab
BEGIN, END = "<!-- further clients: begin -->", "<!-- further clients: end -->"
HEAD = "| client | version | result |\n| --- | --- | --- |\n"


def install(further: Further, directory: Path) -> str:
    """Return shell text that puts the client on the PATH, installed below `directory`; raises CalledProcessError."""
    packages.ensure(further.apt, lambda step: print(step, file=sys.stderr))
    lines = ""
    if further.pip:
        venv.create(directory / "py", with_pip=True, symlinks=True)
        pip = [f"{directory}/py/bin/pip", "install", "-q", "--disable-pip-version-check", *further.pip]
        subprocess.run(pip, check=True, timeout=600)
        lines += f"export PATH={directory}/py/bin:$PATH\n"
    if further.npm:
        npm = ["npm", "install", "--silent", "--no-audit", "--no-fund", "--prefix", f"{directory}/js", *further.npm]
        subprocess.run(npm, check=True, timeout=600)
        at = f"{directory}/js/node_modules"
        lines += f"export PATH={at}/.bin:$PATH NODE_PATH={at}\n"
    return lines


def test_the_table_is_written(  # pytest finds the fixtures by their names
    lab: Lab,
    internet: Services,
    fresh: Path,
    clients_place: ClientsPlace,
) -> None:
    packages.ensure(TOOLS, lambda step: print(step, file=sys.stderr))
    alice = Researcher(lab)
    alice.set_up()
    rows = []
    for number, further in enumerate(FURTHER):
        extra = install(further, clients_place.directory / f"further-{number}")
        runs = Runs(lab, internet, first_loss=0)
        runs.seen = len(internet.book)
        text = body(further.client, internet.token, f"{fresh}:{Path(sys.executable).parent}", 0, extra)
        runs.jobs[further.client.name] = alice.submit(text, OPTIONS)
        complaints = runs.complaints(further.client)
        print(further.client.name, runs.version(further.client), complaints or WORKS, file=sys.stderr)
        rows.append((further.client.name, runs.version(further.client), FAILS if complaints else WORKS))
    before, begin, rest = PAGE.read_text().partition(BEGIN)
    after = rest.partition(END)[2]
    assert begin, f"{PAGE} has no line {BEGIN}"
    table = "".join(f"| {' | '.join(row)} |\n" for row in rows)
    today = dt.datetime.now(dt.timezone.utc).date()
    PAGE.write_text(
        f"{before}{BEGIN}\nAs of {today}, on Debian with Python {sys.version.split()[0]}:\n\n{HEAD}{table}{END}{after}"
    )

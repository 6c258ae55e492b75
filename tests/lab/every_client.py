"""The programs of clients_more.py, run as those of clients.py are; what comes of it is a table with its dates.

Not collected by a test run, for it installs gigabytes: `invoke clients-table --all`. With CLIENTS_ONLY, a regular
expression, only the clients whose names match run, and the other rows stay.
"""

from __future__ import annotations

import datetime as dt
import os
import re
import subprocess
import sys
import venv
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from hpcproxy.lab import Lab, packages

from . import databases
from .clients import TOOLS, Client
from .clients_more import FURTHER
from .clients_raw import RAW
from .conftest import ClientsPlace
from .further import Further
from .manual import PAGE
from .researcher import Researcher
from .services import Services
from .test_clients import FAILS, WORKS, Runs, body, fresh, internet

__all__ = ["fresh", "internet"]  # fixtures

pytestmark = pytest.mark.lab
BEGIN, END = "<!-- further clients: begin -->", "<!-- further clients: end -->"
HEAD = "| client | version | tried | result |\n| --- | --- | --- | --- |\n"
ONLY = os.environ.get("CLIENTS_ONLY", "")  # read before a test is alone with its own
# What must never have gone through a tunnel: this machine, the job's nodes, private networks.
_LOCAL = re.compile(r"(?m)^through \S+ ((?:127\.|10\.|192\.168\.|0\.0\.0\.0|localhost|c\d+\b|\[?::1).*)$")
_THROUGH = """
set +e
logs='sed "s/^/through /" "${HPCPROXY_STATE%/*}/$SLURM_JOB_ID".*/access.log'
srun --overlap -N"$SLURM_JOB_NUM_NODES" --ntasks-per-node=1 sh -c "$logs"
"""


@contextmanager
def far_ends(lab: Lab, internet: Services, chosen: list[Further]) -> Iterator[None]:
    """The databases run if one of the `chosen` needs them."""
    if not any(further in RAW for further in chosen):
        yield
        return
    packages.ensure(databases.TOOLS, lambda step: print(step, file=sys.stderr))
    with databases.running(lab, internet.token):
        yield


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


def tried(lab: Lab, internet: Services, further: Further, extra: str, path: str) -> tuple[str, str]:
    """The client's version and what came of its job; with its setting if it gets nowhere without."""
    alice = Researcher(lab)
    settings = ["", further.setting] if further.setting else [""]
    for setting in settings:
        runs = Runs(lab, internet, first_loss=738_000, longest_s=360)
        runs.seen = len(internet.book)
        client = further.client
        text = body(client, internet.token, path, runs.first_loss, extra).replace("set -eu\n", f"set -eu\n{setting}")
        runs.jobs[client.name] = alice.submit(text + _THROUGH, further.options)
        complaints = complaints_of(runs, client)
        version = runs.version(client)
        print(client.name, version, complaints or WORKS, file=sys.stderr)
        if not complaints:
            return version, f"works with `{shown(setting)}`" if setting else WORKS
        output = complaints[-1]
    said = [line.strip() for line in output.splitlines() if further.says and re.search(further.says, line)]
    return version, f"{FAILS}: `{said[-1][:160].replace('|', '')}`" if said else FAILS


def complaints_of(runs: Runs, client: Client) -> list[str]:
    """As Runs has them; and nothing of the job's own may have gone through the tunnel."""
    went_through = _LOCAL.findall(runs.of(client).output)
    complaints = runs.complaints(client)
    return (
        [f"went through the tunnel: {went_through}", *(complaints or [runs.of(client).output])]
        if went_through
        else complaints
    )


def shown(setting: str) -> str:
    """The first line of a setting."""
    return setting.splitlines()[0]


def test_the_table_is_written(  # pytest finds the fixtures by their names
    lab: Lab,
    internet: Services,
    fresh: Path,
    clients_place: ClientsPlace,
) -> None:
    packages.ensure(TOOLS, lambda step: print(step, file=sys.stderr))
    chosen = [further for further in FURTHER if re.search(ONLY, further.client.name)]
    Researcher(lab).set_up(access_log=True)
    with far_ends(lab, internet, chosen):
        for number, further in enumerate(chosen):
            extra = install(further, clients_place.directory / f"further-{number}")
            version, result = tried(lab, internet, further, extra, f"{fresh}:{Path(sys.executable).parent}")
            put(further, version, result)


def put(further: Further, version: str, result: str) -> None:
    """The page has the client's row, in the order of FURTHER; rows of clients that are no more are gone."""
    before, begin, rest = PAGE.read_text().partition(BEGIN)
    table, end, after = rest.partition(END)
    assert begin, f"{PAGE} has no line {BEGIN}"
    assert end, f"{PAGE} has no line {END}"
    rows = {line.split("|")[1].strip(): line for line in table.splitlines() if line.startswith("| ")}
    today = dt.datetime.now(dt.timezone.utc).date()
    rows[further.client.name] = f"| {further.client.name} | {version} | {today} | {result} |"
    names = [known.client.name for known in FURTHER if known.client.name in rows]
    PAGE.write_text(f"{before}{BEGIN}\n{HEAD}" + "".join(f"{rows[name]}\n" for name in names) + f"{END}{after}")

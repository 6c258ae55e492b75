"""One visit to the doctor: the checks, progress, colours, the bundle."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from hpcproxy import changes
from hpcproxy.account.account import Account
from hpcproxy.cli.output import from_here, say
from hpcproxy.doctor import elsewhere, graph, page, table
from hpcproxy.doctor.bundle import contents, text_of
from hpcproxy.doctor.elsewhere import Where
from hpcproxy.doctor.finding import Found, Mark, exit_code
from hpcproxy.doctor.page import Look
from hpcproxy.doctor.patient import Patient
from hpcproxy.errors import UsageError

_TOTAL_S = 900  # for all of it; what hangs longer than that is told as such
_QUIET_S = 3  # before a word about how long it takes
_COLOURS = {Mark.GOOD: "32", Mark.BAD: "31", Mark.UNTRIED: "33", Mark.BROKEN: "35"}
_MOST_COLUMNS = 100
_PRIVATE_MODE = 0o600


@dataclass(frozen=True)
class Asked:
    """What was typed: a job to look at, a node to look from, a file for the bundle."""

    job: str
    on_node: bool
    endpoints: bool
    as_json: bool
    bundle: str


def visit(asked: Asked) -> int:
    """Look, print what was found, and return the exit code; raises UsageError for a bundle's file that is there."""
    target = _new_file(asked.bundle) if asked.bundle else None
    patient = Patient(Account.of(os.environ), endpoints=asked.endpoints, job=asked.job)
    found = _look(patient)
    if asked.job or asked.on_node:
        say("looking from the node")
        found += elsewhere.look(Where(asked.job), os.environ, endpoints=asked.endpoints)
    if asked.as_json:
        checks = [one.as_json() for one in found]
        print(json.dumps({"verdict": page.verdict(found), "node": _here(), "checks": checks}))
    else:
        _print(found)
    if target is not None:
        _bundle(target, patient, found)
    return exit_code(found)


def _look(patient: Patient) -> list[Found]:
    with _ended_in_order():
        try:
            return graph.run(table.of(patient), patient, _TOTAL_S, _Progress().told)
        finally:
            patient.temporary.end()


def _new_file(name: str) -> Path:
    path = from_here(name)
    if os.path.lexists(path):
        raise UsageError(f"{path} is there already; name a new file")
    if not path.parent.is_dir():
        raise UsageError(f"{path.parent} is no directory")
    return path


def _bundle(path: Path, patient: Patient, found: list[Found]) -> None:
    sections = contents(patient, found)
    changes.apply([changes.Write(path, text_of(sections), _PRIVATE_MODE)])
    say(f"{path} holds, without secrets: {'; '.join(section.title for section in sections)}")
    say("read it before you send it")


def _here() -> str:
    return os.environ.get("SLURMD_NODENAME") or socket.gethostname().partition(".")[0]


class _Progress:
    """One line of talk, if it takes long."""

    def __init__(self) -> None:
        self._begin, self._said = time.monotonic(), False

    def told(self, done: int, of: int) -> None:
        """Say how far it is, once."""
        if not self._said and time.monotonic() - self._begin > _QUIET_S and done < of:
            self._said = True
            say(f"looking; {done} of {of} checks are done")


@contextmanager
def _ended_in_order() -> Iterator[None]:
    """Have SIGTERM and SIGHUP end this as an interrupt does, so that nothing temporary stays."""

    def end(number: int, _frame: FrameType | None) -> None:
        sys.exit(128 + number)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, end) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _print(found: list[Found]) -> None:
    terminal = sys.stdout.isatty()
    columns = min(shutil.get_terminal_size().columns, _MOST_COLUMNS) if terminal else 80
    look = Look(columns, ascii_only=not _has_unicode(), home=os.environ.get("HOME", "").rstrip("/"))
    coloured = terminal and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    for text, mark in page.page(found, look):
        if coloured and mark is not None:
            sign, _, rest = text.partition(" ")
            print(f"\x1b[{_COLOURS[mark]}m{sign}\x1b[0m {rest}")
        else:
            print(text)


def _has_unicode() -> bool:
    """Whether the locale has letters beyond ASCII: Python itself writes UTF-8 where the locale is C."""
    named = next((os.environ[name] for name in ("LC_ALL", "LC_CTYPE", "LANG") if os.environ.get(name)), "")
    return "utf-8" in (sys.stdout.encoding or "").lower() and named.lower().replace("-", "").endswith("utf8")

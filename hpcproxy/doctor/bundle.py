"""What an admin needs to help, as one text that can be read before it is sent. Reads files and asks programs.

Every line passes `heard.without_secrets`: no private key is ever read, no value of a variable or setting that looks
like a secret stands in it, no login of an address.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from hpcproxy import __version__, heard, process
from hpcproxy.doctor import page
from hpcproxy.doctor.finding import Found
from hpcproxy.doctor.page import Look
from hpcproxy.doctor.patient import Patient
from hpcproxy.errors import HpcproxyError

_LINE_MAX = 1000
_LOG_LINES = 60
_ASK_S = 10
_VERSIONS = (("ssh", "-V"), ("bash", "--version"), ("srun", "--version"), ("python3", "--version"))
_ENVIRONMENT = (
    "PROXY",
    "SLURM_JOB_ID",
    "SLURM_JOB_NODELIST",
    "SLURM_NODEID",
    "HPCPROXY",
    "TMPDIR",
    "CA_BUNDLE",
    "SSL_CERT",
)


@dataclass(frozen=True)
class Section:
    """A part of the bundle: what it is, and its lines, fit to be shown."""

    title: str
    lines: tuple[str, ...]


def contents(patient: Patient, found: Sequence[Found]) -> list[Section]:
    """Return all that goes into the bundle."""
    home = str(patient.account.user_home)
    report = [text for text, _ in page.page(found, Look(home=home))]
    return [
        _section("versions of this machine's programs", _versions(patient)),
        _section("the report", report),
        _section("the report as JSON", json.dumps([one.as_json() for one in found], indent=1).splitlines()),
        _section("settings in force", _settings(patient)),
        _section("what ssh makes of the jump hosts", _ssh(patient)),
        _section("variables that concern proxies and jobs", _variables(patient)),
        _section("the last lines of the tunnel's own log", _log(patient)),
    ]


def text_of(sections: Sequence[Section]) -> bytes:
    """Return the file: a list of what is in it, and then that."""
    lines = ["What hpcproxy doctor found. In this file, each without secrets:"]
    lines += [f"  {number}. {section.title}" for number, section in enumerate(sections, 1)]
    for number, section in enumerate(sections, 1):
        lines += ["", f"==== {number}. {section.title} ====", *(section.lines or ("(nothing)",))]
    return ("\n".join(lines) + "\n").encode()


def _section(title: str, lines: Iterable[str]) -> Section:
    return Section(title, tuple(heard.without_secrets(line, _LINE_MAX) for line in lines))


def _versions(patient: Patient) -> Iterator[str]:
    yield f"hpcproxy {__version__}, Python {platform.python_version()}"
    yield f"{platform.system()} {platform.release()} {platform.machine()}"
    for argv in _VERSIONS:
        try:
            done = process.run(argv, timeout_s=_ASK_S, environ=patient.account.environ)
        except (OSError, subprocess.TimeoutExpired, process.TooMuchError):
            yield f"{argv[0]}: does not say"
            continue
        said = (done.stdout or done.stderr).splitlines()
        yield f"{argv[0]}: {heard.line(said[0]) if said else 'says nothing'}"


def _settings(patient: Patient) -> Iterator[str]:
    try:
        config = patient.config()
    except HpcproxyError as error:
        yield str(error)
        return
    for key, value in config:
        yield f"{key}: {', '.join(map(str, value)) if isinstance(value, tuple) else value}"


def _ssh(patient: Patient) -> Iterator[str]:
    try:
        answers = patient.resolved()
    except HpcproxyError as error:
        yield str(error)
        return
    for jump, answer in answers.items():
        if isinstance(answer, HpcproxyError):
            yield f"{jump}: {answer}"
            continue
        yield from (f"{jump}: {key}: {value}" for key, value in vars(answer).items() if value and key != "asked")


def _variables(patient: Patient) -> Iterator[str]:
    for name, value in sorted(patient.account.environ.items()):
        if any(part in name.upper() for part in _ENVIRONMENT):
            yield f"{name}={value}"


def _log(patient: Patient) -> Iterator[str]:
    for tunnel in patient.tunnel():
        for name in ("log", "ssh.log"):
            path = tunnel.directory / name
            try:
                with path.open("rb") as file:
                    file.seek(max(0, os.fstat(file.fileno()).st_size - (1 << 16)))
                    lines = file.read().decode(errors="replace").splitlines()
            except OSError:
                continue
            yield f"{name}:"
            yield from lines[-_LOG_LINES:]

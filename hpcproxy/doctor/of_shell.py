"""Checks of the account's shells and rc files. Starts the account's own shells, once."""

from __future__ import annotations

from collections.abc import Callable

from hpcproxy.account import login_shell, overrides
from hpcproxy.changes import Outcome, preview
from hpcproxy.doctor.finding import Check, Finding, bad, good, untried
from hpcproxy.doctor.of_machine import INSTALL
from hpcproxy.doctor.patient import Patient
from hpcproxy.files import install

_SHELL = "shell"


def _block(patient: Patient) -> Finding:
    path = patient.account.bashrc
    if patient.config().lacks_jump_host:
        return good("none is needed for your site's own tunnel")
    (result,) = preview(install.bashrc_steps(path))
    if result.outcome is Outcome.UNCHANGED:
        return good(f"the block is in {path}")
    return bad(f"the block is not in {path}, or an earlier one", INSTALL)


def _reads(patient: Patient, reads: Callable[[login_shell.Asked], bool]) -> Finding:
    if patient.config().lacks_jump_host:
        return good("your site's own tunnel needs no block in it")
    asked = patient.asked_shells()
    if asked.is_other:
        return untried(asked.why)
    return good("it reads the block") if reads(asked) else bad(asked.why, asked.why.rpartition("; ")[2])


def _interactive(patient: Patient) -> Finding:
    return _reads(patient, lambda asked: asked.interactive)


def _login(patient: Patient) -> Finding:
    return _reads(patient, lambda asked: asked.login)


def _in_job(patient: Patient) -> Finding:
    return _reads(patient, lambda asked: asked.in_job)


def _rc_files(patient: Patient) -> Finding:
    paths = dict.fromkeys((patient.account.bashrc, login_shell.login_file(patient.account.user_home)))
    found = [one for path in paths for one in overrides.in_rc_file(path)]
    if not found:
        return good(f"{' and '.join(path.name for path in paths)} set no proxy")
    more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
    return bad(f"{found[0]}{more}", f"take line {found[0].line} out of {found[0].path}")


CHECKS: tuple[Check[Patient], ...] = (
    Check(
        "block in .bashrc",
        _SHELL,
        "Is our block in `~/.bashrc`, once and whole?",
        "mend the marker lines by hand, then: hpcproxy install-bashrc",
        _block,
        ("jump host",),
    ),
    Check(
        "interactive shell",
        _SHELL,
        "Does a bash of yours get as far as the block? It is started and asked.",
        "move the block above the line that leaves",
        _interactive,
        ("block in .bashrc", "installed files"),
    ),
    Check(
        "login shell",
        _SHELL,
        "Does a login shell read it too?",
        "add to the login file: [ -r ~/.bashrc ] && . ~/.bashrc",
        _login,
        ("interactive shell",),
    ),
    Check(
        "shell in a job",
        _SHELL,
        "Does a shell inside a job read it, where SLURM_JOB_ID is set?",
        "move the block above the line that leaves",
        _in_job,
        ("interactive shell",),
    ),
    Check(
        "rc files",
        _SHELL,
        "Does an rc file set a proxy of its own, or open a forward by hand?",
        "take that line out",
        _rc_files,
    ),
)

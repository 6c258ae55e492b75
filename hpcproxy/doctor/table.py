"""All checks, in the order in which they are shown. Pure."""

from __future__ import annotations

from hpcproxy.doctor import (
    of_endpoints,
    of_far,
    of_job,
    of_jump,
    of_machine,
    of_shell,
    of_ssh,
    of_tools,
    of_variables,
    of_way,
)
from hpcproxy.doctor.finding import Check
from hpcproxy.doctor.patient import Patient

CHECKS: tuple[Check[Patient], ...] = (
    *of_machine.CHECKS,
    *of_shell.CHECKS,
    *of_ssh.CHECKS,
    *of_jump.CHECKS,
    *of_way.CHECKS,
    *of_far.CHECKS,
    *of_variables.CHECKS,
    *of_job.HERE,
    *of_tools.CHECKS,
    *of_endpoints.CHECKS,
)
OF_A_JOB = of_job.NAMED
ALL = (*CHECKS, *OF_A_JOB)


def of(patient: Patient) -> tuple[Check[Patient], ...]:
    """Return the checks that are to be made."""
    return ALL if patient.job else CHECKS

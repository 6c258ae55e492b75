"""Checks of the tunnel that is there, or of a temporary one. Connects."""

from __future__ import annotations

from hpcproxy.doctor import machine
from hpcproxy.doctor.finding import Check, Finding, bad, good
from hpcproxy.doctor.patient import Patient

_WAY = "tunnel"


def _tunnel(patient: Patient) -> Finding:
    tunnel = patient.working_tunnel()
    others = f"; {tunnel.passed_over}" if tunnel.passed_over else ""
    if patient.tunnel():
        return good(f"up at {tunnel.url} through {tunnel.jump}{others}")
    return good(f"none of yours is up; a temporary one came up through {tunnel.jump}, for these checks only{others}")


def _port(patient: Patient) -> Finding:
    environ, port = patient.account.environ, patient.config().port
    where, whose = machine.listener(environ.get("SLURM_JOB_ID") or "shell", port, environ)
    if whose and not patient.tunnel():
        return bad(
            f"{where} is somebody else's here ({whose})", f"hpcproxy install-bashrc --port {port % 60000 + 1024}"
        )
    return good(f"{where} is {'where your tunnel listens' if whose else 'free'}")


def _agent(patient: Patient) -> Finding:
    tunnel = patient.working_tunnel()
    if tunnel.url.startswith("http://"):
        return good("HTTP and SOCKS on one port, for you only")
    if not patient.config().agent:
        return good("turned off (agent: false); ssh itself listens")
    return bad(
        "no python3 of 3.6 or later is here, so ssh itself listens, and any user can use its port",
        "ask your site for python3 on this node",
    )


CHECKS: tuple[Check[Patient], ...] = (
    Check(
        "port",
        _WAY,
        "Is the port of the tunnel yours, or free?",
        "hpcproxy install-bashrc --port N",
        _port,
        ("settings",),
    ),
    Check(
        "tunnel",
        _WAY,
        "Is this job's or shell's tunnel up? Where there is none, a temporary one is tried.",
        "hpcproxy up",
        _tunnel,
        ("forwarding", "room"),
        700.0,
    ),
    Check(
        "agent",
        _WAY,
        "Does the agent listen, or ssh itself?",
        "ask your site for python3 on the nodes",
        _agent,
        ("tunnel",),
    ),
)

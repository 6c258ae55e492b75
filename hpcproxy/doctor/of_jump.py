"""Checks of the jump hosts: name, route, server, host key, one login, forwarding. Connects; logs in once.

One connection that stops before the login answers the first four, and one login on trial the others.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from hpcproxy.account.checks import Probe
from hpcproxy.config.model import Jump
from hpcproxy.doctor.finding import Check, Finding, bad, good
from hpcproxy.doctor.patient import Patient
from hpcproxy.errors import TunnelError
from hpcproxy.openssh import recognition
from hpcproxy.openssh.recognition import Shown

_JUMP = "jump host"
_LIMIT_S = 600.0
_BY_HAND = "ssh -v {} shows it by hand; ask your site"
_ADDRESS = "hpcproxy init --jump USER@ADDRESS, with its address for the name"
_PIN = "hpcproxy init --jump {}"
_KEYS = re.compile(r"refused the key (\S+?)[;,]")


def _layer(shown: Shown) -> str:
    return "" if shown.error is None else shown.error.layer if isinstance(shown.error, TunnelError) else "ssh"


def _trouble(patient: Patient, concerns: Callable[[str], bool], fix: str) -> Finding | None:
    """Return what is wrong with the first jump host whose layer `concerns` this check, None if there is none.

    Where no jump host is the user's own, his site's tunnel is up, and nothing is asked of its jump host.
    """
    if patient.spared():
        return good(patient.spared())
    if not patient.config().jump:
        return good("your site's own tunnel is up, which needs it too")
    for jump, shown in patient.shown().items():
        if concerns(_layer(shown)):
            error = shown.error
            advice = error.why.advice if isinstance(error, TunnelError) else ""
            words = f"{jump}: {error.why.reason}" if isinstance(error, TunnelError) else str(error)
            return bad(words, advice or fix.format(jump.destination))
    return None


def _name(patient: Patient) -> Finding:
    return _trouble(patient, "name".__eq__, _ADDRESS) or good("it is known here")


def _route(patient: Patient) -> Finding:
    return _trouble(patient, "route".__eq__, _BY_HAND) or good("it answers")


def _server(patient: Patient) -> Finding:
    apart = ("", "name", "route", "host-key")
    found = _trouble(patient, lambda layer: layer not in apart, _BY_HAND)
    return found or good("an ssh server, which takes a login now")


def _host_key(patient: Patient) -> Finding:
    found = _trouble(patient, "host-key".__eq__, "ask its admin which key is right, then: hpcproxy init --replace-key")
    if found:
        return found
    for jump, shown in patient.shown().items():
        if shown.news == recognition.CHANGED:
            words = f"{jump} shows another key than the one in {shown.where}: {shown.key}"
            return bad(words, "ask its admin; if the change is right: hpcproxy init --replace-key")
        if shown.pins:
            return bad(f"{jump} shows {shown.key}, which is not pinned ({shown.news})", _PIN.format(jump))
    keys = ", ".join(str(shown.key) for shown in patient.shown().values())
    return good(f"as pinned, {keys}")


def _login(patient: Patient) -> Finding:
    if patient.spared():
        return good(patient.spared())
    found = patient.tunnel()
    if found and found[-1].ready:
        return good(f"your tunnel is logged in to {found[-1].jump}; no other login was tried")
    for probe in patient.probes():
        if probe.why is not None and probe.why.layer != "forwarding":
            return bad(f"{probe.jump}: {probe.why}", _fix(probe, patient))
    notes = [probe.note for probe in patient.probes()]
    return good("by key alone, as a job's" + "".join(f"; {note}" for note in notes if note))


def _fix(probe: Probe, patient: Patient) -> str:
    _, run, command = str(probe.why).partition("run: ")
    if run:
        return command
    refused, jump = _KEYS.search(str(probe.why)), _named(probe, patient)
    if refused and jump is not None:
        port = f" -p {jump.port}" if jump.port else ""
        return f"ssh-copy-id -i {refused[1]}.pub{port} {jump.destination}"
    return _BY_HAND.format(probe.jump)


def _named(probe: Probe, patient: Patient) -> Jump | None:
    return next((jump for jump in patient.config().jump if str(jump) == probe.jump), None)


def _forwarding(patient: Patient) -> Finding:
    if patient.spared():
        return good(patient.spared())
    found = patient.tunnel()
    if found and found[-1].ready:
        return good(f"{found[-1].jump} forwards")
    for probe in patient.probes():
        if probe.why is not None and probe.why.layer == "forwarding":
            return bad(f"{probe.jump}: {probe.why}", f"ask the admin of {probe.jump} whether forwarding is allowed")
    return good("it forwards")


CHECKS: tuple[Check[Patient], ...] = (
    Check(
        "name",
        _JUMP,
        "Does the jump host's name resolve here?",
        _ADDRESS,
        _name,
        ("ssh configuration",),
        _LIMIT_S,
    ),
    Check("route", _JUMP, "Does it answer, and on the right port?", _BY_HAND, _route, ("name",), _LIMIT_S),
    Check(
        "ssh server",
        _JUMP,
        "Is it an ssh server that takes a login now, with algorithms in common? Does each hop before it let through?",
        _BY_HAND,
        _server,
        ("route",),
        _LIMIT_S,
    ),
    Check(
        "host key",
        _JUMP,
        "Is the key that it shows the pinned one: not new, changed or revoked?",
        "hpcproxy init --jump USER@HOST",
        _host_key,
        ("ssh server",),
        _LIMIT_S,
    ),
    Check(
        "login",
        _JUMP,
        "Does one login get in as a job's does: by key alone, with no ssh-agent? A tunnel that is up is proof enough.",
        "ssh-copy-id -i KEY.pub USER@HOST",
        _login,
        ("host key", "key"),
        _LIMIT_S,
    ),
    Check(
        "forwarding",
        _JUMP,
        "Does it allow forwarding?",
        "ask its admin whether forwarding is allowed (AllowTcpForwarding, `restrict` in authorized_keys)",
        _forwarding,
        ("login",),
        _LIMIT_S,
    ),
)

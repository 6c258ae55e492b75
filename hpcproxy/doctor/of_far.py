"""Checks of what lies behind the jump host: names, rules, TLS, WebSocket, clocks. Connects through the tunnel."""

from __future__ import annotations

from hpcproxy.account import checks
from hpcproxy.doctor.finding import Check, Finding, bad, good, untried
from hpcproxy.doctor.patient import Patient
from hpcproxy.doctor.reach import Stage, try_tls

_FAR = "far end"
_ANSWER_S = 20.0
_SKEW_S = 300  # beyond which signatures of S3 and tickets of Kerberos are refused (15 and 5 minutes)
_CHECK_URL = "check_url in ~/.hpcproxy/config.yaml may name another"
_ASK = "ask the admin of your jump host"


def _permitted(patient: Patient) -> Finding:
    reached = patient.far()
    if reached.stage is Stage.PROHIBITED:
        return bad(
            f"the jump host forwards, but not to {patient.far_place()} (PermitOpen, or permitopen= of your key)",
            f"{_ASK} to let it through, or name what it does let through: check_url, allow",
        )
    if reached.stage is Stage.DENIED:
        return untried(f"{patient.far_place()} is {reached.words}")
    return good("it lets through to any host that was asked for")


def _name(patient: Patient) -> Finding:
    reached = patient.far()
    if reached.stage is Stage.NAMELESS:
        return bad(f"the jump host knows no name {patient.far_place().host}", f"{_ASK} about its DNS; {_CHECK_URL}")
    return good(f"the jump host resolves {patient.far_place().host}")


def _connection(patient: Patient) -> Finding:
    reached = patient.far()
    if reached.stage is Stage.FAILED:
        return bad(f"the tunnel is up, and {patient.far_place()} was not reached: {reached.words}", _CHECK_URL)
    return good(f"{patient.far_place()} was reached")


def _tls(patient: Patient) -> Finding:
    place = patient.far_place()
    if not place.tls:
        return untried("check_url is plain http")
    wrong = try_tls(patient.working_tunnel(), place)
    if not wrong:
        return good("the certificate is the far end's own, as far as this machine can tell")
    return bad(
        f"{wrong}. If that is no public authority, a proxy on the way reads along",
        "ask your site whether it intercepts TLS, and for its authority's file (SSL_CERT_FILE)",
    )


def _answer(patient: Patient) -> Finding:
    answer = checks.fetch_address(patient.working_tunnel().url, patient.config().check_url, _ANSWER_S)
    return good(f"the internet sees {answer.address}, after {answer.latency_ms:.0f} ms")


def _websocket(patient: Patient) -> Finding:
    spoken = patient.spoken()
    return good(f"a request for a WebSocket gets through ({patient.far_place().host} answers {spoken.status})")


def _clock(patient: Patient) -> Finding:
    ahead_s = patient.spoken().ahead_s
    if ahead_s is None:
        return untried(f"{patient.far_place().host} does not say what time it is")
    if abs(ahead_s) > _SKEW_S:
        which = "slow" if ahead_s > 0 else "fast"
        words = (
            f"this machine's clock is {abs(ahead_s) / 60:.0f} minutes {which}: certificates and signatures fail by that"
        )
        return bad(words, "ask your site to set the clock (timedatectl shows it)")
    return good(f"right within {max(1, abs(round(ahead_s)))} s")


CHECKS: tuple[Check[Patient], ...] = (
    Check(
        "PermitOpen",
        _FAR,
        "Does the jump host forward to any host, or to some only?",
        f"{_ASK} to let it through",
        _permitted,
        ("tunnel",),
    ),
    Check(
        "far-end DNS",
        _FAR,
        "Does the jump host resolve names?",
        f"{_ASK} about its DNS",
        _name,
        ("PermitOpen",),
    ),
    Check("connection", _FAR, "Does the host of `check_url` answer it?", _CHECK_URL, _connection, ("far-end DNS",)),
    Check(
        "TLS",
        _FAR,
        "Is the certificate signed by an authority that this machine trusts? Another one is named.",
        "ask your site whether it intercepts TLS",
        _tls,
        ("connection",),
    ),
    Check(
        "address",
        _FAR,
        "Which address does the internet see?",
        _CHECK_URL,
        _answer,
        ("connection",),
    ),
    Check(
        "WebSocket",
        _FAR,
        "Does a request to become a WebSocket get an answer?",
        f"{_ASK} about a proxy that cuts WebSockets",
        _websocket,
        ("connection",),
    ),
    Check("clock", _FAR, "Is this machine's clock right?", "ask your site to set the clock", _clock, ("WebSocket",)),
)

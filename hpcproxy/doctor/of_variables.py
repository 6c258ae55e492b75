"""Checks of the variables that programs read. Pure, but for a knock at a proxy on this machine's own loopback."""

from __future__ import annotations

import ipaddress
import os
import socket
import urllib.request
from urllib.parse import urlsplit

from hpcproxy.account import overrides
from hpcproxy.doctor.finding import Check, Finding, bad, good, untried
from hpcproxy.doctor.of_endpoints import ENDPOINTS, place_of
from hpcproxy.doctor.patient import Patient

_VARIABLES = "variables"
_PROXIES = ("http_proxy", "https_proxy", "all_proxy")
_KNOCK_S = 3
# Where programs look for authorities, by OpenSSL, requests, curl, git, Node and pip.
_AUTHORITIES = (
    *("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "GIT_SSL_CAINFO"),
    *("NODE_EXTRA_CA_CERTS", "PIP_CERT", "AWS_CA_BUNDLE"),
)


def _of_the_way(patient: Patient) -> Finding:
    environ = patient.account.environ
    if not environ.get("HPCPROXY_URL"):
        return untried("this shell uses no tunnel; proxy_on turns it on")
    found = overrides.in_environment(environ)
    return bad("; ".join(found), "proxy_on") if found else good(f"all lead to {environ['HPCPROXY_URL']}")


def _proxy(patient: Patient) -> Finding:
    environ = patient.account.environ
    ours = environ.get("HPCPROXY_URL")
    for name in (*_PROXIES, *(name.upper() for name in _PROXIES)):
        value = environ.get(name, "")
        if value and value != ours and not _somebody_is_at(value):
            return bad(
                f"{name} leads to this machine, where nobody listens: programs that read it fail", f"unset {name}"
            )
    theirs = sorted({name for name in _PROXIES if environ.get(name) not in {None, "", ours}})
    if theirs and not ours and not patient.config().replace_proxy:
        return good(f"{', '.join(theirs)} of your own or your site's stays in force in jobs (replace_proxy: false)")
    return good("no other proxy is named")


def _somebody_is_at(url: str) -> bool:
    """Whether a proxy on loopback answers; what is elsewhere is not knocked at."""
    try:
        parts = urlsplit(url if "://" in url else f"http://{url}")
        host, port = parts.hostname or "", parts.port or 0
        if host != "localhost" and not ipaddress.ip_address(host).is_loopback:
            return True
        with socket.create_connection((host, port), _KNOCK_S):
            return True
    except ValueError:  # a name, or no address at all: for others to judge
        return True
    except OSError:
        return False


def _spellings(patient: Patient) -> Finding:
    environ = patient.account.environ
    for name in (*_PROXIES, "no_proxy"):
        lower, upper = environ.get(name), environ.get(name.upper())
        if lower is not None and upper is not None and lower != upper:
            words = f"{name} and {name.upper()} differ, and programs read one or the other"
            return bad(words, f'export {name.upper()}="${name}"')
    return good("in small and in capital letters alike")


def _no_proxy(patient: Patient) -> Finding:
    value = _direct(patient)
    if "*" in [entry.strip() for entry in value.split(",")]:
        return bad("it holds *, so that no program uses the tunnel", "unset no_proxy NO_PROXY")
    past = [name for name, _, _ in ENDPOINTS if _bypassed(place_of(name, patient).host, value)]
    if past:
        return bad(f"it has programs go to {', '.join(past)} without the tunnel", "take the name out of no_proxy")
    return good("names no endpoint of a tracker, hub or API")


def _direct(patient: Patient) -> str:
    environ = patient.account.environ
    return environ.get("no_proxy") or environ.get("NO_PROXY") or ""


def _bypassed(host: str, direct: str) -> bool:
    """Whether Python's own reader of no_proxy goes to `host` directly."""
    return bool(urllib.request.proxy_bypass_environment(host, {"no": direct}))  # type: ignore[attr-defined]


def _authorities(patient: Patient) -> Finding:
    environ = patient.account.environ
    named = {name: environ[name] for name in _AUTHORITIES if environ.get(name)}
    for name, path in named.items():
        if not os.access(path, os.R_OK):
            return bad(
                f"{name} names {path}, which cannot be read: TLS fails in programs that heed it", f"unset {name}"
            )
    return good(f"{', '.join(named)} can be read" if named else "none is set")


CHECKS: tuple[Check[Patient], ...] = (
    Check(
        "variables",
        _VARIABLES,
        "Do the proxy variables of this shell still lead to its tunnel?",
        "proxy_on",
        _of_the_way,
    ),
    Check(
        "other proxy",
        _VARIABLES,
        "Do they name a proxy on this machine where nobody listens, as an old recipe leaves it?",
        "unset http_proxy https_proxy",
        _proxy,
        ("settings",),
    ),
    Check(
        "spellings",
        _VARIABLES,
        "Do `http_proxy` and `HTTP_PROXY` say the same, and so the others?",
        'export HTTP_PROXY="$http_proxy"',
        _spellings,
    ),
    Check(
        "no_proxy",
        _VARIABLES,
        "Does `no_proxy` keep programs from the tunnel: by `*`, or by an endpoint's name?",
        "unset no_proxy NO_PROXY",
        _no_proxy,
    ),
    Check(
        "authorities",
        _VARIABLES,
        "Do `SSL_CERT_FILE`, `REQUESTS_CA_BUNDLE` and their like name files that can be read?",
        "unset SSL_CERT_FILE",
        _authorities,
    ),
)

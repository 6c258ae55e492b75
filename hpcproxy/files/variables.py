"""The variables by which programs find a tunnel, one table: what is set, what is unset, what is kept for later. Pure.

The TaskProlog gets the names from here. The fragments that shells source spell each one, for in dash there is no other
way without `eval`; a test holds them, and the table of docs/configuration.md, against this.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

# What a variable is while a tunnel is on. NODE: 1 where the address is one of HTTP, else unset.
URL, DIRECT, NODE, UNSET = "url", "direct", "node", "unset"
SAVED = "HPCPROXY_SAVED_"  # and the name: the caller's own value, which proxy_off brings back


@dataclass(frozen=True)
class Variable:
    """One variable; `is_proxy`: its value names a proxy, which may be a tunnel that is none here."""

    name: str
    value: str
    is_proxy: bool


VARIABLES: Sequence[Variable] = (
    Variable("http_proxy", URL, is_proxy=True),
    Variable("HTTP_PROXY", URL, is_proxy=True),
    Variable("https_proxy", URL, is_proxy=True),
    Variable("HTTPS_PROXY", URL, is_proxy=True),
    Variable("no_proxy", DIRECT, is_proxy=False),
    Variable("NO_PROXY", DIRECT, is_proxy=False),
    # They would override the others; and a SOCKS all_proxy ends httpx at its import.
    Variable("all_proxy", UNSET, is_proxy=True),
    Variable("ALL_PROXY", UNSET, is_proxy=True),
    Variable("ftp_proxy", UNSET, is_proxy=True),
    Variable("grpc_proxy", UNSET, is_proxy=True),
    Variable("no_grpc_proxy", UNSET, is_proxy=False),
    Variable("PIP_PROXY", UNSET, is_proxy=True),
    Variable("NODE_USE_ENV_PROXY", NODE, is_proxy=False),
)
NAMES = tuple(row.name for row in VARIABLES)
# What the fragments tell each other, and the programs of hpcproxy: the tunnel that this shell uses.
OWN = ("HPCPROXY_URL", "HPCPROXY_KEY", "HPCPROXY_STEP", "HPCPROXY_STATE", "HPCPROXY_LISTEN")

# What names a list of authorities, where the site's proxy intercepts TLS. One that has a value keeps it; OWN_CA is what
# the others are, so that it can be taken back.
CA = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "NODE_EXTRA_CA_CERTS", "GIT_SSL_CAINFO", "PIP_CERT")
OWN_CA = "HPCPROXY_CA"


def named(value: str) -> tuple[str, ...]:
    """Return the variables that are `value` while a tunnel is on."""
    return tuple(row.name for row in VARIABLES if row.value == value)

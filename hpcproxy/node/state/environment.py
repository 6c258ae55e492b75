"""The proxy of the site's that the environment of this job names, as programs would use it.

What leads to this machine's loopback is none: there is a tunnel of ours, whose shell has saved what stood there before,
or a recipe by hand. A login in the variable is not taken: it would stand in every process's environment.
"""

import re
from typing import Iterator, Mapping, Tuple

from .closed import PROXY, closed
from .policy import Policy, closed_by
from .settings import ENVIRONMENT, HTTP, SOCKS5, Way

NAMES = ("https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY", "http_proxy", "HTTP_PROXY")
SAVED = "HPCPROXY_SAVED_"  # templates/lib/sourced/env.sh
URL = re.compile(
    r"(?:([A-Za-z0-9+.-]+)://)?(?:[^@/]*@)?(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9_.-]+)(?::(\d{1,5}))?/?\Z", re.ASCII
)
SCHEMES = {None: HTTP, "http": HTTP, "socks5": SOCKS5, "socks5h": SOCKS5}
NONE = "the environment of this job names no proxy"


def way_of(environ: Mapping[str, str], auth_file: str) -> Way:
    """The first proxy that `environ` names; what is not understood, or missing, is said in `lacks`."""
    lacks = NONE
    for name, value in proxies(environ):
        found = URL.match(value)
        if found is None:
            lacks = "{} is no address of a proxy".format(name)
            continue
        scheme, host, port = found.groups()
        kind = SCHEMES.get(scheme.lower() if scheme else None)
        if kind is None or port is None or not 0 < int(port) < 65536:
            lacks = "{} names {}".format(
                name, "no port" if kind else "a {} proxy, and http or socks5 is needed".format(scheme)
            )
            continue
        if not on_loopback(host.strip("[]"), int(port)):
            return Way("{}://{}:{}".format(kind, host, port), (), kind, host.strip("[]"), int(port), auth_file)
    return Way("environment", kind=ENVIRONMENT, lacks=lacks)


def proxies(environ: Mapping[str, str]) -> Iterator[Tuple[str, str]]:
    """Names and values of the variables, what stood there before a tunnel of ours behind what stands there now."""
    for name in NAMES:
        for place in (name, SAVED + name):
            if environ.get(place, "").strip():
                yield name, environ[place].strip()


def on_loopback(host: str, port: int) -> bool:
    """It is this machine itself, whatever it is called."""
    return closed_by(Policy((), (), closed(PROXY, ())), host, port) is not None

"""Where a client wants to go: a host, never resolved here, and a port."""

import re
import socket
from typing import NamedTuple

Target = NamedTuple("Target", [("host", str), ("port", int)])

# No character that means something to ssh, its log or a terminal; names are ASCII by the time they are asked for.
HOST = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.~-]*\Z")
PORT = re.compile(r"[0-9]{1,5}\Z")
LONGEST = 255


class BadTarget(Exception):
    """No host and port that anybody could connect to."""


def check_host(host: str) -> str:
    """What is wrong with `host`, a name or a literal address without brackets; "" if nothing."""
    if not host or len(host) > LONGEST:
        return "host name of {} characters".format(len(host))
    if ":" in host:
        try:
            socket.inet_pton(socket.AF_INET6, host)
        except (OSError, ValueError):
            return "{} is no IPv6 address".format(ascii(host))
        return ""
    return "" if HOST.match(host) else "{} is no host name".format(ascii(host))


def parse_authority(text: str, default_port: int = 0) -> Target:
    """host:port, [IPv6]:port, or without the port if there is a default; BadTarget."""
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        if not bracket or ":" not in host or (rest and not rest.startswith(":")):
            raise BadTarget("{} is no host:port".format(ascii(text)))
        port = rest[1:]
    elif text.count(":") > 1:
        # `::1:3080` may mean two things; guessing could reach the wrong place.
        raise BadTarget("{}: an IPv6 address needs brackets".format(ascii(text)))
    else:
        host, _, port = text.partition(":")
    problem = check_host(host)
    if problem:
        raise BadTarget(problem)
    if not port and default_port:
        return Target(host, default_port)
    if not PORT.match(port):
        raise BadTarget("{}: no port".format(ascii(text)))
    if not 0 < int(port) < 65536:
        raise BadTarget("port {} does not exist".format(port))
    return Target(host, int(port))


def spell(target: Target) -> str:
    """host:port for a person, a log line or a Host header."""
    return "[{}]:{}".format(*target) if ":" in target.host else "{}:{}".format(*target)

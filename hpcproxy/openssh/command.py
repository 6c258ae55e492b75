"""How every ssh of ours is started: options, target, what it is tried with. Pure.

Options: ssh(1), ssh_config(5); which of them are set and which are the user's is in `option_list`.
"""

from __future__ import annotations

import re
from pathlib import Path

from hpcproxy.config.model import Config, Jump
from hpcproxy.openssh import option_list

# Put before those that ssh would offer, if it is among them: AES-GCM moves up to twice what ChaCha20 does on processors
# with AES instructions. What the user or the site has left out stays out.
FIRST_CIPHER = "aes128-gcm@openssh.com"

# Where ssh itself says that it takes this one (8.5 and later), it tells how far a login has come.
LOGIN_OPTION = (
    "LogVerbose=kex.c:kex_exchange_identification():*,sshconnect2.c:input_userauth_service_accept():*"
    ",sshconnect2.c:userauth_pubkey():*,sshconnect2.c:input_userauth_pk_ok():*,sshconnect2.c:send_pubkey_test():*"
)

# A closed port on the jump host's own loopback: "Connection refused" from there says that login, forwarding and the way
# back work, and touches no service.
PROBE_TARGET = "127.0.0.1:1"

# For a jump host that lets through to some ports only: https, at an address that is nobody's (RFC 5737, TEST-NET-1).
# Not refused at once is allowed.
PROBE_TARGET_HTTPS = "192.0.2.1:443"
_NAMED = re.compile(r"([a-z0-9][a-z0-9-]*(?:\.[a-z0-9-]+)*\.[a-z][a-z0-9-]*)(:\d+)?", re.IGNORECASE)


def probe_https(config: Config) -> str:
    """Return what the second probe asks for: a host that `allow` names, for a key may have leave for that one only."""
    named = (_NAMED.fullmatch(rule) for rule in config.allow)
    return next((f"{found[1]}{found[2] or ':443'}" for found in named if found), PROBE_TARGET_HTTPS)


def options(config: Config, known_hosts: Path) -> list[str]:
    """Return the options that every ssh of ours is started with, before what the moment adds (-D, -S, -W, host)."""
    argv = ["-T", "-x", "-a"]
    argv += option_list.words(
        {
            "known_hosts": known_hosts,
            "connect_timeout_s": config.connect_timeout_s,
            "alive_interval_s": config.alive_interval_s,
            "alive_questions": max(1, config.alive_count - 1),
        }
    )
    if config.identity is not None:
        argv += ["-i", str(config.identity), "-o", "IdentitiesOnly=yes"]
    return argv


def target(jump: Jump) -> list[str]:
    """Return the last words of a command line: where to connect to."""
    return [*(("-p", str(jump.port)) if jump.port else ()), "--", jump.destination]

"""The way to a host behind ProxyJump, as commands of ours that log in to confirmed hosts only. Runs ssh; connects not.

ssh hands none of its options on to the ssh of a hop, which would then take a key as the user's configuration says, an
unconfirmed one too. So the same way is built here: every hop's key must stand in the user's or the site's known_hosts.
"""

from __future__ import annotations

import functools
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hpcproxy.config.model import Jump
from hpcproxy.errors import Reason, TunnelError
from hpcproxy.openssh import configuration, reasons
from hpcproxy.openssh.configuration import Resolved
from hpcproxy.quoting import word

_MOST_HOPS = 16  # a configuration whose ProxyJump leads in a circle has no end
_LOG = "hop-{}.log"

# Of every ssh here: nobody to ask, no session of the user's, and only the lists of known hosts say whose key counts.
_ALONE = (
    *("-T", "-x", "-a", "-o", "BatchMode=yes", "-o", "PermitLocalCommand=no", "-o", "UpdateHostKeys=no"),
    *("-o", "ControlMaster=no", "-o", "ControlPath=none", "-o", "LogLevel=INFO", "-o", "ConnectionAttempts=1"),
    *("-o", "VerifyHostKeyDNS=no", "-o", "NoHostAuthenticationForLocalhost=no"),
)
# The same, where this ssh has the option; what it is good for is in ssh_config(5).
_NEWER = ("KnownHostsCommand=none", "ForkAfterAuthentication=no", "RemoteCommand=none", "StdinNull=no")


@dataclass(frozen=True)
class Hop:
    """A host on the way, what ssh makes of it, and how it is to be typed to reach it by hand."""

    jump: Jump
    resolved: Resolved
    typed: str

    def log(self, directory: Path, place: int) -> Path:
        """Return the file in `directory` to which the ssh of this hop, the `place`-th, writes its own words."""
        return directory / _LOG.format(place)


@functools.lru_cache(maxsize=1)
def alone() -> tuple[str, ...]:
    """Return the options that every ssh here has, as far as this machine's ssh knows them; raises TunnelError."""
    known = []
    for option in _NEWER:
        argv = ["ssh", "-F", "/dev/null", "-G", "-T", "-o", option, "--", "localhost"]
        try:
            asked = configuration.run(argv, 20)
        except OSError as error:
            raise configuration.cannot_run(error) from None
        except subprocess.TimeoutExpired:
            raise TunnelError("ssh", "ssh does not say within 20 s what options it knows") from None
        if asked.returncode == 0:
            known += ["-o", option]
    return (*_ALONE, *known)


def of(resolved: Resolved, depth: int = 0) -> tuple[Hop, ...]:
    """Return the hosts between here and `resolved`, the nearest first; raises TunnelError for a circle."""
    if depth > _MOST_HOPS:
        raise TunnelError("ssh", "ProxyJump leads in a circle", "see ~/.ssh/config", str(resolved.asked))
    if not resolved.hops:
        return ()
    # `ProxyJump a,b` is: b by way of a, whatever b's own ProxyJump says; a by way of what its own says.
    nearest = configuration.ask(resolved.hops[0])
    found = [*of(nearest, depth + 1)]
    for known in (nearest, *(configuration.ask(jump) for jump in resolved.hops[1:])):
        by_way_of = f"-J {','.join(str(hop.jump) for hop in found)} " if found else ""
        found.append(Hop(known.asked, known, f"ssh {by_way_of}{_typed(known.asked)}"))
    return tuple(found)


def _typed(jump: Jump) -> str:
    return (f"-p {jump.port} " if jump.port else "") + jump.destination


def proxy_command(hops: Sequence[Hop], directory: Path, timeout_s: float) -> str:
    """Return the ProxyCommand that goes through `hops`; each hop's ssh writes its words to a file in `directory`."""
    *before, last = hops
    # Each waits as long as those before it may need, and once more: who is silent is the one to say so.
    patience_s = max(1, int(timeout_s)) * len(hops)
    words = ["ssh", *alone(), "-o", "StrictHostKeyChecking=yes", "-o", f"ConnectTimeout={patience_s}"]
    words += ["-E", str(last.log(directory, len(hops)))]
    if before:
        # What is in it is expanded by the ssh outside of it too.
        words += ["-o", "ProxyCommand=" + proxy_command(before, directory, timeout_s)]
    *options, dashes, host = configuration.target(last.jump)
    command = " ".join(_literal(text) for text in [*words, *options])
    return f"{command} -W '[%h]:%p' {dashes} {_literal(host)}"


def _literal(text: str) -> str:
    return str(word(text.replace("%", "%%")))


def meaning(words: Sequence[str]) -> Reason | None:
    """Return what ssh's `words` stand for: its last line if they are unknown, None if it has said nothing."""
    known = reasons.meaning(words)
    if known is not None:
        return known
    told = [line for line in words if line.strip() and not line.startswith("Warning: ")]
    return Reason("ssh", configuration.said(told[-1].encode())) if told else None

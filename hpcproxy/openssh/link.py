"""The ssh by which `serve` brings a socket to a host: its command lines. Pure.

It logs in as the user's own `ssh HOST` does: his configuration, his keys, his ssh-agent, his and the site's lists of
known hosts. Options: ssh(1), ssh_config(5).
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from hpcproxy.openssh.option_list import IGNORE_UNKNOWN

# Nobody is asked anything, and a host that the lists of known hosts do not confirm is not logged in to.
_ALONE = ("BatchMode=yes", "StrictHostKeyChecking=yes", "UpdateHostKeys=no")
# The link is ours alone: a command without a terminal, no forward but the one that is asked for once it is there.
_OURS = (
    *("ControlMaster=yes", "ControlPersist=no", "ForkAfterAuthentication=no", "StdinNull=no", "SessionType=default"),
    *("RequestTTY=no", "RemoteCommand=none", "PermitLocalCommand=no", "ClearAllForwardings=yes", "Tunnel=no"),
    *("ForwardAgent=no", "ForwardX11=no", "EscapeChar=none", "LogLevel=INFO", "ConnectionAttempts=1"),
)
PATH = re.compile(r"/[A-Za-z0-9/._-]{1,100}")


def master(host: str, control: str, command: str, *, connect_s: int, alive_s: int, alive_count: int) -> list[str]:
    """Return the ssh that runs `command` on `host` and takes requests at the socket `control`."""
    pairs = ["=".join(IGNORE_UNKNOWN), *_ALONE, *_OURS, f"ConnectTimeout={connect_s}", "TCPKeepAlive=yes"]
    pairs += [f"ServerAliveInterval={alive_s}", f"ServerAliveCountMax={max(1, alive_count - 1)}"]
    return ["ssh", "-T", "-x", "-a", *_options(pairs), "-S", control, "--", host, command]


def forward(control: str, there: str, here: str) -> list[str]:
    """Return the ssh that has the one at `control` bring its host a Unix socket at `there`, which leads to `here`.

    No configuration is read: what stands in it of forwards would be asked for, too.
    """
    return ["ssh", "-F", "/dev/null", "-S", control, "-O", "forward", "-R", f"{there}:{here}", "--", "link"]


def _options(pairs: Sequence[str]) -> list[str]:
    return [word for pair in pairs for word in ("-o", pair)]

"""The ssh by which `serve` brings a socket to a host: its command lines. Pure.

It logs in as the user's own `ssh HOST` does: his configuration, his keys, his ssh-agent, his and the site's lists of
known hosts. Options: ssh(1), ssh_config(5).
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from hpcproxy.config.model import Config, Jump
from hpcproxy.openssh.command import target
from hpcproxy.openssh.option_list import IGNORE_UNKNOWN

# A host that the lists of known hosts do not confirm is not logged in to.
_KNOWN = ("StrictHostKeyChecking=yes", "UpdateHostKeys=no")
# The link is ours alone: a command without a terminal, no forward but the one that is asked for once it is there.
_OURS = (
    *("ControlMaster=yes", "ControlPersist=no", "ForkAfterAuthentication=no", "StdinNull=no", "SessionType=default"),
    *("RequestTTY=no", "RemoteCommand=none", "PermitLocalCommand=no", "ClearAllForwardings=yes", "Tunnel=no"),
    *("ForwardAgent=no", "ForwardX11=no", "EscapeChar=none", "LogLevel=INFO", "ConnectionAttempts=1"),
)
PATH = re.compile(r"/[A-Za-z0-9/._-]{1,100}")


def master(host: Jump, control: str, command: str, config: Config, *, asks: bool) -> list[str]:
    """Return the ssh that runs `command` on `host` and takes requests at the socket `control`.

    `asks`: a person is there who may be asked for what the login needs.
    """
    pairs = ["=".join(IGNORE_UNKNOWN), f"BatchMode={'no' if asks else 'yes'}", *_KNOWN, *_OURS, "TCPKeepAlive=yes"]
    pairs += [f"ConnectTimeout={config.connect_timeout_s}", f"ServerAliveInterval={config.alive_interval_s}"]
    pairs += [f"ServerAliveCountMax={max(1, config.alive_count - 1)}"]
    return ["ssh", "-T", "-x", "-a", *_options(pairs), "-S", control, *target(host), command]


def forward(control: str, there: str, here: str) -> list[str]:
    """Return the ssh that has the one at `control` bring its host a Unix socket at `there`, which leads to `here`.

    No configuration is read: what stands in it of forwards would be asked for, too.
    """
    return ["ssh", "-F", "/dev/null", "-S", control, "-O", "forward", "-R", f"{there}:{here}", "--", "link"]


def _options(pairs: Sequence[str]) -> list[str]:
    return [word for pair in pairs for word in ("-o", pair)]

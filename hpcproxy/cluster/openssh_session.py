"""One conversation with one host by OpenSSH's own client, for what Paramiko cannot do. Runs ssh.

Certificates of users and of hosts, security keys, ssh-agent, proxies, algorithms: ssh reads its configuration and does
what it does for the admin who types `ssh HOST`. Whose key a host must show is ours to say here too.
"""

from __future__ import annotations

import functools
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

from hpcproxy import heard, process
from hpcproxy.cluster.become import SudoDialogue
from hpcproxy.cluster.dial import Bounds
from hpcproxy.config.model import Jump
from hpcproxy.errors import HpcproxyError
from hpcproxy.openssh.known_hosts import only
from hpcproxy.quoting import word

_ASK_S = 20
_FAILED = 255  # ssh itself, not what it ran
# What the user or the system may have set for every ssh, and no conversation of ours has a use for.
_NOT = (
    *(
        "BatchMode=yes",
        "UpdateHostKeys=no",
        "CheckHostIP=no",
        "VerifyHostKeyDNS=no",
        "NoHostAuthenticationForLocalhost=no",
        "ConnectionAttempts=1",
    ),
    *("ControlMaster=no", "ControlPath=none", "ClearAllForwardings=yes", "PermitLocalCommand=no", "RemoteCommand=none"),
    *("RequestTTY=no", "LogLevel=ERROR", "Tunnel=no", "ForwardAgent=no", "ForwardX11=no"),
)
_NOT_IN_NEW = ("KnownHostsCommand=none", "ForkAfterAuthentication=no", "StdinNull=no", "SessionType=default")


class SshError(HpcproxyError):
    """ssh did not get in, for the reason in its last words."""


def argv(  # noqa: PLR0913 - what a login is made of
    host: str,
    command: str,
    *,
    user: str | None,
    port: int | None,
    identity: Path | None,
    known_hosts: Path,
    timeout_s: float,
    gateway: Jump | None = None,
) -> list[str]:
    """Return the command line that runs `command` on `host`, through a `gateway` if there is one."""
    words = ["ssh", "-T", "-x", "-a", *only(known_hosts)]
    for option in (*_NOT, *_known_to_this_ssh()):
        words += ["-o", option]
    words += ["-o", f"ConnectTimeout={max(1, round(timeout_s))}"]
    if identity is not None:
        words += ["-i", str(identity), "-o", "IdentitiesOnly=yes"]
    if gateway is not None:
        way = argv(
            gateway.host,
            "",
            user=gateway.user or user,
            port=gateway.port,
            identity=identity,
            known_hosts=known_hosts,
            timeout_s=timeout_s,
        )
        quoted = [str(word(each)).replace("%", "%%") for each in way]
        words += ["-o", f"ProxyCommand=exec {' '.join([*quoted[:-2], '-W', '[%h]:%p', *quoted[-2:]])}"]
    words += [*(("-l", user) if user else ()), *(("-p", str(port)) if port else ()), "--", host]
    return [*words, command] if command else words


@functools.lru_cache(1)
def _known_to_this_ssh() -> tuple[str, ...]:
    """Return those of the newer options that ssh here knows; an unknown one would end it."""
    words = [word for option in _NOT_IN_NEW for word in ("-o", option)]
    try:
        asked = process.run(["ssh", "-G", "-F", "/dev/null", *words, "--", "x"], timeout_s=_ASK_S)
    except (OSError, subprocess.TimeoutExpired):  # the conversation itself will say so
        return ()
    return _NOT_IN_NEW if asked.returncode == 0 else ()


def talk(
    words: Sequence[str], message: bytes, timeout_s: float, bounds: Bounds, dialogue: SudoDialogue | None
) -> tuple[bytes, bytes]:
    """Have the ssh of `words` send `message`; return stdout and stderr of what it ran.

    Raises OSError, TimeoutError after `timeout_s` of silence, TooMuchError, SshError, NotRootError.
    """
    try:
        done = process.run(
            words,
            message,
            timeout_s=max(0.1, bounds.left_s()),
            silence_s=timeout_s,
            environ={**os.environ, "SSH_ASKPASS_REQUIRE": "never"},
            dialogue=dialogue,
        )
    except subprocess.TimeoutExpired:
        raise SshError(f"is not done after {bounds.total_s:g} s") from None
    if done.returncode == _FAILED and not done.stdout:
        raise SshError(heard.last_line(done.stderr) or "ssh ended without a word")
    if dialogue is not None and not dialogue.open:
        raise dialogue.shut(done.stderr + done.stdout)
    return done.stdout, done.stderr

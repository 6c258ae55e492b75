"""OpenSSH's names, once: the options of every connection we make, and what its error messages mean. Pure.

Options: ssh(1) and ssh_config(5); only such as OpenSSH 7.4 (RHEL 7) knows. Messages: the sources of OpenSSH 9.2,
`ssh.c`, `sshconnect.c`, `channels.c`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hpcproxy.config import Config

# Tried first where ssh itself says that it takes the option: AES-GCM moves up to twice what ChaCha20 does on
# processors with AES instructions, and the server still chooses among what both sides offer.
CIPHER_OPTION = "Ciphers=^aes128-gcm@openssh.com"

# A closed port on the jump host's own loopback: "Connection refused" from there proves login, forwarding and the way
# back, and touches no service.
PROBE_TARGET = "127.0.0.1:1"


def options(config: Config, known_hosts: Path) -> list[str]:
    """Return the options that every ssh of ours is started with, before what the moment adds (-D, -S, -W, host)."""
    argv = [
        # Talk to nobody: no question at a prompt, no terminal, no X11, no agent, nothing from a RemoteCommand.
        *("-T", "-x", "-a", "-o", "BatchMode=yes", "-o", "RemoteCommand=none", "-o", "PermitLocalCommand=no"),
        # Only a host whose key was pinned at init time; the user's and the site's lists are not asked.
        *("-o", "StrictHostKeyChecking=yes", "-o", f'UserKnownHostsFile="{known_hosts}"'),
        *("-o", "GlobalKnownHostsFile=/dev/null", "-o", "UpdateHostKeys=no", "-o", "CheckHostIP=no"),
        # Fail at once if the port cannot be had, and notice a dead peer.
        *("-o", "ExitOnForwardFailure=yes", "-o", f"ConnectTimeout={config.connect_timeout_s}"),
        *("-o", "ConnectionAttempts=1", "-o", f"ServerAliveInterval={config.alive_interval_s}"),
        *("-o", f"ServerAliveCountMax={config.alive_count}", "-o", "TCPKeepAlive=yes"),
        # The reasons of failed connections are told at this level and not below.
        *("-o", "LogLevel=INFO"),
        # A master that is ours alone: one of the user's own would end with the user's own session.
        *("-o", "ControlPersist=no"),
    ]
    if config.identity is not None:
        argv += ["-i", str(config.identity), "-o", "IdentitiesOnly=yes"]
    return argv


@dataclass(frozen=True)
class Failure:
    """What a line of ssh's stderr that holds `text` means: the layer, the reason and advice, and whether waiting helps."""

    text: str
    layer: str
    reason: str
    permanent: bool


# First match wins.
FAILURES: Sequence[Failure] = (
    Failure("Address already in use", "port", "the port is taken by another process of this node; nothing of theirs is used, choose another port", True),
    Failure("REMOTE HOST IDENTIFICATION HAS CHANGED", "host key", "the jump host shows another key than the one pinned; ask its admin, then run: hpcproxy init --jump", True),
    Failure("Host key verification failed", "host key", "the jump host's key is not pinned; run: hpcproxy init --jump", True),
    Failure("host key is known for", "host key", "the jump host's key is not pinned; run: hpcproxy init --jump", True),
    Failure("administratively prohibited", "forwarding", "the jump host does not allow forwarding; ask your site, this is its rule to change", True),
    Failure("Could not resolve hostname", "name", "the jump host's name does not resolve here; use its address", False),
    Failure("No route to host", "route", "no route to the jump host from here", False),
    Failure("Network is unreachable", "route", "no route to the jump host from here", False),
    Failure("timed out during banner exchange", "route", "the jump host accepts connections and stays silent", False),
    Failure("timed out", "route", "the jump host does not answer; is its address right and its firewall open?", False),
    Failure("not responding", "route", "the jump host stopped answering", False),
    Failure("Connection refused", "route", "nothing listens at the jump host's ssh port", False),
    Failure("Too many authentication failures", "key", "too many keys offered; name one with: hpcproxy init --identity", True),
    Failure("Permission denied", "key", "the jump host refused the key; is the public half in its authorized_keys?", True),
    Failure("Bad configuration option", "ssh", "ssh does not know an option in your ~/.ssh/config", True),
    Failure("Bad owner or permissions", "ssh", "the permissions of ~/.ssh/config are too wide", True),
    Failure("kex_exchange_identification", "ssh", "the jump host hung up before the login; it may be busy", False),
    Failure("Connection closed by", "ssh", "the jump host hung up", False),
    Failure("Connection reset by", "ssh", "the jump host hung up", False),
)  # fmt: skip

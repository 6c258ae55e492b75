"""OpenSSH's names, once: the options of every connection we make, and what its error messages mean. Pure.

Options: ssh(1) and ssh_config(5); only such as OpenSSH 7.4 (RHEL 7) knows. Messages: the sources of OpenSSH 9.2,
`ssh.c`, `sshconnect.c`, `channels.c`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hpcproxy.config import Config, Jump

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
        # ssh gives up at the question after the last: the whole is alive_interval_s times alive_count.
        *("-o", f"ServerAliveCountMax={max(1, config.alive_count - 1)}", "-o", "TCPKeepAlive=yes"),
        # The reasons of failed connections are told at this level and not below.
        *("-o", "LogLevel=INFO"),
        # A master that is ours alone: one of the user's own would end with the user's own session.
        *("-o", "ControlPersist=no"),
    ]
    if config.identity is not None:
        argv += ["-i", str(config.identity), "-o", "IdentitiesOnly=yes"]
    return argv


def target(jump: Jump) -> list[str]:
    """Return the last words of a command line: where to connect to."""
    return [*(("-p", str(jump.port)) if jump.port else ()), "--", jump.destination]


@dataclass(frozen=True)
class Failure:
    """What a line of ssh's stderr that holds `text` means; `permanent` says that waiting will not help."""

    text: str
    layer: str
    reason: str
    permanent: bool


_PIN_IT = "the jump host's key is not pinned; run: hpcproxy init --jump USER@HOST"

# First match wins.
FAILURES: Sequence[Failure] = (
    Failure(
        "Address already in use",
        "port",
        "the port is taken by another process of this node and nothing of theirs is used; choose another port",
        permanent=True,
    ),
    Failure(
        "REMOTE HOST IDENTIFICATION HAS CHANGED",
        "host-key",
        "the jump host shows another key than the one pinned; ask its admin, then run: hpcproxy init --replace-key",
        permanent=True,
    ),
    Failure("Host key verification failed", "host-key", _PIN_IT, permanent=True),
    Failure("host key is known for", "host-key", _PIN_IT, permanent=True),
    Failure(
        "administratively prohibited",
        "forwarding",
        "the jump host does not allow forwarding; ask your site, this is its rule to change",
        permanent=True,
    ),
    Failure("Could not resolve hostname", "name", "its name does not resolve here; use its address", permanent=False),
    Failure("No route to host", "route", "no route to it from here", permanent=False),
    Failure("Network is unreachable", "route", "no route to it from here", permanent=False),
    Failure("banner exchange", "route", "it accepts connections and stays silent", permanent=False),
    Failure("timed out", "route", "it does not answer; is its address right, its firewall open?", permanent=False),
    Failure("not responding", "route", "it stopped answering", permanent=False),
    Failure("Connection refused", "route", "nothing listens at its ssh port", permanent=False),
    Failure(
        "Too many authentication failures",
        "key",
        "it refused too many keys; name the right one with: hpcproxy init --identity",
        permanent=True,
    ),
    Failure(
        "Permission denied (",
        "key",
        "it refused the key; is the public half in its authorized_keys?",
        permanent=True,
    ),
    Failure("Bad configuration option", "ssh", "ssh does not know an option in ~/.ssh/config", permanent=True),
    Failure("Bad owner or permissions", "ssh", "the permissions of ~/.ssh/config are too wide", permanent=True),
    # It says why (MaxStartups, PerSourcePenalties) in a line that ssh shows at its debug levels only.
    Failure(
        "exchange_identification",
        "busy",
        "it hung up before the login: it has too many logins at once, or shuts this cluster's address out for a while",
        permanent=False,
    ),
    Failure("Connection closed by", "ssh", "it hung up", permanent=False),
    Failure("Connection reset by", "ssh", "it hung up", permanent=False),
)

# What ssh says of a channel that the jump host could not open, behind "open failed: "; first match wins.
_OPEN_FAILURES: Sequence[tuple[str, str]] = (
    ("administratively prohibited", "the jump host does not allow forwarding to it; this is its admin's rule"),
    ("Name or service not known", "its name does not resolve at the jump host"),
    ("Temporary failure in name resolution", "its name does not resolve at the jump host"),
    ("Connection refused", "nothing listens there"),
    ("timed out", "it does not answer the jump host"),
    ("No route to host", "the jump host has no route to it"),
    ("Network is unreachable", "the jump host has no route to it"),
)


def open_failure(line: str) -> str:
    """Return in words why a channel was not opened, from ssh's line about it; the line's own text if it is unknown."""
    return next((words for text, words in _OPEN_FAILURES if text in line), line.rpartition("open failed: ")[2])

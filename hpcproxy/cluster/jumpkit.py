"""What the jump host's admin gets for service mode: the public key's line, a `Match` block for sshd. Pure.

authorized_keys: sshd(8), "AUTHORIZED_KEYS FILE FORMAT". `restrict` alone does not stop commands, so one is forced;
permitopen takes literal names and addresses only, and matches the target as it was sent.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from hpcproxy.cluster import firewall
from hpcproxy.cluster.firewall import FIREWALL_TARGET
from hpcproxy.cluster.inventory import Inventory
from hpcproxy.config.model import Config
from hpcproxy.openssh.command import PROBE_TARGET

KEY_FILE = "hpcproxy_service_key"
LINE_FILE = "authorized_keys"
MATCH_FILE = "sshd_match.conf"
NFT_FILE = "nft.conf"
KEYS_ON_JUMP = "/etc/ssh/hpcproxy_authorized_keys"
_NOLOGIN = "/usr/sbin/nologin"
# What a rule of `allow` must look like for sshd to be able to hold it too: one host and at most one port.
_LITERAL = re.compile(r"(?P<host>[A-Za-z0-9][A-Za-z0-9.-]*|\[[0-9A-Fa-f:.]+\])(?::(?P<port>[0-9]{1,5}))?", re.ASCII)


def targets(config: Config) -> tuple[str, ...]:
    """Return the `allow` rules as permitopen takes them; none if sshd cannot hold them all."""
    found = []
    for rule in config.allow:
        match = _LITERAL.fullmatch(rule)
        if match is None:
            return ()
        found.append(f"{match['host']}:{match['port'] or '*'}")
    return (*found, PROBE_TARGET, FIREWALL_TARGET) if found else ()


def accounts(inventory: Inventory, config: Config) -> tuple[str, ...]:
    """Return the accounts of the jump hosts, each once; most sites have one."""
    return tuple(dict.fromkeys(jump.user or inventory.service_account for jump in config.jump))


def beyond_sshd(config: Config) -> tuple[str, ...]:
    """Return the `allow` rules that only the agent can hold."""
    return tuple(rule for rule in config.allow if not _LITERAL.fullmatch(rule))


def authorized_keys_line(public_key: str, config: Config) -> str:
    """Return the line of authorized_keys: this key forwards, to the policy's targets, and does nothing else."""
    opens = [f'permitopen="{target}"' for target in targets(config)]
    options = ",".join(["restrict", "port-forwarding", f'command="{_NOLOGIN}"', *opens])
    return f"{options} {public_key.strip()}\n"


def match_block(inventory: Inventory, config: Config, nodes: Sequence[str] = ()) -> str:
    """Return the lines for the jump host's sshd_config, which hold whatever the key's own line says.

    `nodes` are the addresses of the nodes, as far as they are known here.
    """
    opens = " ".join(targets(config)) or "any"
    exempt = ",".join(firewall.collapsed(nodes)) or "NETWORK"
    lines = (
        "# hpcproxy: the service account forwards, and does nothing else. Put this at the end of sshd_config.",
        "# From OpenSSH 9.8 on put this before the first Match, or a key that is refused shuts all nodes out a while",
        "# (with the addresses that this host sees, if they are others):",
        f"# PerSourcePenaltyExemptList {exempt}",
        f"Match User {','.join(accounts(inventory, config))}",
        f"    AuthorizedKeysFile {KEYS_ON_JUMP}",
        "    AuthenticationMethods publickey",
        "    AllowTcpForwarding local",
        f"    PermitOpen {opens}",
        "    PermitListen none",
        "    AllowStreamLocalForwarding no",
        "    AllowAgentForwarding no",
        "    X11Forwarding no",
        "    PermitTunnel no",
        "    PermitTTY no",
        "    PermitUserRC no",
        f"    ForceCommand {_NOLOGIN}",
        "    ClientAliveInterval 30",
    )
    return "".join(f"{line}\n" for line in lines)

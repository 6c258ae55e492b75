"""`jump-kit`: the files for the jump host's admin, and their key. Writes, and asks the name service."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from hpcproxy import changes, heard
from hpcproxy.changes import Write
from hpcproxy.cluster import firewall, inventory, jumpkit
from hpcproxy.cluster.pool import Pool
from hpcproxy.config.model import Config
from hpcproxy.errors import FileError
from hpcproxy.node.state.policy import parse_rule

_AT_ONCE = 32  # questions to the name service


@dataclass(frozen=True)
class Kit:
    """What `jump-kit` wrote, the rules that only the agent can hold, the nodes whose address is not known here."""

    results: list[changes.Result]
    beyond_sshd: tuple[str, ...]
    unresolved: tuple[str, ...]


def jump_kit(path: Path, directory: Path) -> Kit:
    """Write the service key (an old one is kept), its authorized_keys line, sshd's and nft's block to `directory`."""
    told, config = inventory.read(path, key_needed=False)
    public = _public_key(directory / jumpkit.KEY_FILE)
    names = inventory.hosts(told)
    known = addresses((*names, *_names(config)))
    accounts = jumpkit.accounts(told, config)
    nodes = [address for name in names for address in known.get(name, ())]
    steps = [
        Write(directory / jumpkit.LINE_FILE, jumpkit.authorized_keys_line(public, config).encode(), 0o644),
        Write(directory / jumpkit.MATCH_FILE, jumpkit.match_block(told, config, nodes).encode(), 0o644),
    ]
    for account in accounts:
        name = jumpkit.NFT_FILE if len(accounts) == 1 else f"{account}.{jumpkit.NFT_FILE}"
        block = firewall.nft_block(account, config.allow, known, nodes)
        steps.append(Write(directory / name, block.encode(), 0o644))
    unresolved = tuple(name for name in names if name not in known)
    return Kit(changes.apply(steps), jumpkit.beyond_sshd(config), unresolved)


def _public_key(key: Path) -> str:
    """Return the public half of the key at `key`, which is made if there is none; raises FileError."""
    try:
        is_new = not key.exists()
        if is_new:
            key.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise FileError(key.parent, f"cannot be made: {error.strerror}") from None
    if is_new:
        _keygen(key, "-q", "-t", "ed25519", "-N", "", "-C", "hpcproxy service key")
    # Asked of the private half: the file beside it may be missing, or another key's.
    return _keygen(key, "-y")


def _keygen(key: Path, *arguments: str) -> str:
    argv = ["ssh-keygen", *arguments, "-f", str(key)]
    try:
        done = subprocess.run(argv, capture_output=True, stdin=subprocess.DEVNULL, check=False)
    except OSError as error:
        raise FileError(key, f"ssh-keygen cannot be run: {error.strerror}", "is OpenSSH's client on PATH?") from None
    if done.returncode:
        raise FileError(key, f"ssh-keygen cannot make or read it: {heard.last_line(done.stderr)}")
    return os.fsdecode(done.stdout)


def _names(config: Config) -> list[str]:
    rules = [parse_rule(rule) for rule in config.allow]
    return [rule.name for rule in rules if rule.network is None and rule.name[0] not in "*."]


def addresses(names: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """Return the addresses of those `names` that this machine can resolve."""
    with Pool(max_workers=_AT_ONCE) as pool:
        found = zip(asked := tuple(dict.fromkeys(names)), pool.map(_addresses, asked))
        return {name: each for name, each in found if each}


def _addresses(name: str) -> tuple[str, ...]:
    try:
        found = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return ()
    return tuple(sorted({str(address[0]).partition("%")[0] for *_, address in found}))

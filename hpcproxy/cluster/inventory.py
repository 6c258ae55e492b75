"""The admin's inventory: one YAML file becomes one frozen, validated `Inventory`, before any connection.

Reads the file it is given, and asks `scontrol` for node names where the file says `nodes: slurm`; writes nothing.
"""

from __future__ import annotations

import functools
import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any, Literal, Optional

import pydantic
import yaml

from hpcproxy.config.layers import Layer, parse_mapping, resolve
from hpcproxy.config.model import Config, Jump, Seconds, safe_path
from hpcproxy.errors import ConfigError, FileError

SLURM, SPANK = "slurm", "spank"
_NODE = re.compile(r"[A-Za-z0-9]([A-Za-z0-9_.-]*[A-Za-z0-9])?", re.ASCII)
_LOGIN_MAX = 128
_WORD = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.@+-]*", re.ASCII)  # Slurm's names of partitions and accounts
_NODE_NAME = re.compile(r"^NodeName=(\S+)(?:.*? NodeAddr=(\S+))?", re.MULTILINE)
_SCONTROL_TIMEOUT_S = 30


def _words(value: object) -> object:
    value = [value] if isinstance(value, str) else value
    if not isinstance(value, (list, tuple)) or not all(
        isinstance(word, str) and _WORD.fullmatch(word) for word in value
    ):
        raise ValueError("expected a name or a list of names of letters, digits and _ . @ + -")
    return tuple(value)


def _account(value: str) -> str:
    if not re.fullmatch(r"[a-z_][a-z0-9_-]{0,31}", value):
        raise ValueError(f"{value!r} is not the name of an account")
    return value


def _login(value: str) -> str:
    # Directories serve names with capitals, dots, domains, digits alone. It goes to ssh as a word of its own.
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.$+@-]*(\\[A-Za-z0-9_.$+@-]+)?", value) or len(value) > _LOGIN_MAX:
        raise ValueError(f"{value!r} is not the name of an account")
    return value


def _jump(value: object) -> object:
    return Jump.parse(value) if isinstance(value, str) else value


Words = Annotated[tuple[str, ...], pydantic.BeforeValidator(_words)]
AccountName = Annotated[str, pydantic.AfterValidator(_account)]
LoginName = Annotated[str, pydantic.AfterValidator(_login)]
LocalPath = Annotated[Path, pydantic.Field(strict=False), pydantic.AfterValidator(safe_path)]
_MODEL = pydantic.ConfigDict(frozen=True, extra="forbid", strict=True)


class Policy(pydantic.BaseModel):
    """Which jobs get a tunnel: those that meet one of these; with none given, every job."""

    model_config = _MODEL

    comment: bool = pydantic.Field(default=False, description="Jobs submitted with `--comment=hpcproxy`.")
    partitions: Words = pydantic.Field(default=(), description="Jobs in these partitions.")
    accounts: Words = pydantic.Field(default=(), description="Jobs of these accounts; needs `SLURM_JOB_ACCOUNT`.")
    option: bool = pydantic.Field(default=False, description="Jobs submitted with `--hpcproxy`; needs `via: spank`.")


class Inventory(pydantic.BaseModel):
    """Which hosts, how they are reached and what they get. Its keys stand in docs/admin-reference.md."""

    model_config = _MODEL

    nodes: str = pydantic.Field(
        description="Hosts in ClusterShell's syntax, `c[1-128]`, `@group`; `slurm` asks `scontrol`."
    )
    user: LoginName = pydantic.Field(
        default="root",
        description="As whom the hosts are logged in to; without it as `~/.ssh/config` says, else as root.",
    )
    port: Annotated[int, pydantic.Field(ge=1, le=65535)] = pydantic.Field(default=22, description="Their ssh port.")
    identity: Optional[LocalPath] = pydantic.Field(
        default=None,
        description="Private key for the hosts; without it the ssh-agent's keys and `~/.ssh/id_*` are tried.",
    )
    gateway: Annotated[Optional[Jump], pydantic.BeforeValidator(_jump)] = pydantic.Field(
        default=None, description="Host through which the hosts are reached, `[USER@]HOST[:PORT]`."
    )
    known_hosts: Optional[LocalPath] = pydantic.Field(
        default=None, description="Host keys of the hosts and jump hosts, made by `trust`; by default beside this file."
    )
    become: Optional[Literal["sudo"]] = pydantic.Field(
        default=None, description="How `user` becomes root there; a password, if sudo asks, is asked on the terminal."
    )
    mode: Literal["user", "service"] = pydantic.Field(
        default="user", description="Whose ssh it is: the job's user with a key of his own, or one service account."
    )
    service_account: AccountName = pydantic.Field(
        default="hpcproxy", description="The unprivileged account of service mode, present on every host."
    )
    service_key: Optional[LocalPath] = pydantic.Field(
        default=None, description="The service account's private key, made by `jump-kit`."
    )
    policy: Policy = pydantic.Field(
        default=Policy(), description="Who gets it: `comment`, `partitions`, `accounts`, `option`."
    )
    via: Literal["hooks", "spank"] = pydantic.Field(
        default="hooks", description="What runs ours: Slurm's Prolog, Epilog and TaskProlog, or a SPANK plugin of ours."
    )
    spank_plugin: Optional[LocalPath] = pydantic.Field(
        default=None, description="The plugin of `via: spank`; by default the one that `make -C spank` has built here."
    )
    slurm_directory: LocalPath = pydantic.Field(
        default=Path("/etc/slurm"), description="Where `prolog.d` and `epilog.d` lie on the hosts."
    )
    controllers: str = pydantic.Field(
        default="", description="Hosts of slurmctld, first the main one: where `--enable` changes slurm.conf too."
    )
    slurm_bin: Optional[LocalPath] = pydantic.Field(
        default=None, description="Where `scontrol` lies on the hosts, if not beside the daemon that runs there."
    )
    site_runs_hooks: bool = pydantic.Field(
        default=False, description="The site's own Prolog and Epilog run ours, so that slurm.conf need not name them."
    )
    keeps_files: bool = pydantic.Field(
        default=False,
        description="Nodes without a slurm.conf of their own, and those that are powered down now, start with our "
        "files: on disk, in the image.",
    )
    modulefiles: Optional[LocalPath] = pydantic.Field(
        default=None,
        description="A directory of `MODULEPATH` on the hosts: `module load hpcproxy` is put there, for Lmod and for "
        "Environment Modules.",
    )
    site_task_prolog: Optional[LocalPath] = pydantic.Field(
        default=None, description="The site's own TaskProlog on the hosts, which ours runs first."
    )
    task_wait_s: Seconds = pydantic.Field(
        default=5, description="Seconds a task waits for the tunnel before it starts without."
    )
    settings: dict[str, Any] = pydantic.Field(default={}, description="The site's configuration: the keys above.")

    @pydantic.field_validator("nodes", "controllers")
    @classmethod
    def _nodes(cls, value: str, info: pydantic.ValidationInfo) -> str:
        if value != SLURM and not (info.field_name == "controllers" and not value):
            expand(value)
        return value

    @pydantic.model_validator(mode="after")
    def _fits_together(self) -> Inventory:
        if self.via == SPANK and self.site_task_prolog is not None:
            raise ValueError(
                "`site_task_prolog`: with `via: spank` slurm.conf keeps the site's TaskProlog; leave it out"
            )
        if self.via != SPANK and self.policy.option:
            raise ValueError("`policy: option`: only the SPANK plugin knows `--hpcproxy`; say `via: spank`")
        return self


KEYS = tuple(Inventory.model_fields)


@functools.cache
def expand(nodes: str) -> tuple[str, ...]:
    """Return the names that `nodes` stands for; raises ValueError, and ConfigError where ClusterShell cannot be loaded.

    What a site's groups stand for is asked once: the next time its program may fail, or say something else.
    """
    # ClusterShell matches wildcards against groups it knows and drops what matches nothing; only whole groups are safe.
    if any(character in nodes.replace("@*", "") for character in "*?"):
        raise ValueError(f"{nodes!r} holds a wildcard; name hosts or a @group")
    shell = _cluster_shell()
    try:
        # Without a group no file of groups is read, and none that is damaged can be in the way.
        names = tuple(shell.NodeSet(nodes, resolver=_groups(shell) if "@" in nodes else shell.RESOLVER_NOGROUP))
    except shell.NodeSetException as error:
        raise ValueError(f"{nodes!r} is no node set: {error}") from None
    except Exception as error:  # noqa: BLE001 - each is said
        # The site's files of groups and what they call: their parsers raise whatever they meet, YAML's errors too.
        said = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(f"{nodes!r}: ClusterShell cannot tell that group's hosts: {said}") from None
    if not names:
        raise ValueError(f"{nodes!r} names no host")
    for name in names:
        if not _NODE.fullmatch(name):
            raise ValueError(f"{name!r} is no host name")
    return names


def _cluster_shell() -> ModuleType:
    """Return ClusterShell's module of node sets; as it is loaded it reads clush's defaults.conf. Raises ConfigError."""
    try:
        from ClusterShell import NodeSet  # noqa: PLC0415 - as said
    except ImportError:
        raise
    except Exception as error:  # noqa: BLE001 - whatever its parser meets
        raise ConfigError("ClusterShell", "defaults.conf", f"cannot be read: {error}") from None
    module: ModuleType = NodeSet
    return module


def _groups(shell: ModuleType) -> object:
    paths = group_files(shell.config_paths("groups.conf"), sys.prefix)
    return shell.NodeUtils.GroupResolverConfig(paths, shell.ILLEGAL_GROUP_CHARS)


def group_files(paths: Sequence[str], prefix: str) -> list[str]:
    """Return those of `paths` that ClusterShell is to read: the site's own, if there is one, and no samples after it.

    In a Python environment, below `prefix`, the package brings groups of hosts that are nobody's, and reads them last.
    """
    own = [path for path in paths if not path.startswith(f"{prefix}/")]
    return own if any(Path(path).exists() for path in own) else list(paths)


def fold(names: Sequence[str]) -> str:
    """Return `names` as one node set, `c[1-3,7]`."""
    if len(names) == 1:
        return names[0]
    shell = _cluster_shell()
    return str(shell.NodeSet.fromlist(list(names), resolver=shell.RESOLVER_NOGROUP))


def fold_words(names: Iterable[str]) -> str:
    """Return `names` as one word, those of hosts with the same port, or none, as a node set; others as they are."""
    words: dict[str, list[str]] = {}
    for name in dict.fromkeys(names):
        host, colon, port = name.partition(":")
        words.setdefault(f"{colon}{port}" if _NODE.fullmatch(host) else f"={name}", []).append(host)
    return ",".join(end[1:] if end.startswith("=") else fold(hosts) + end for end, hosts in words.items())


def read(path: Path, *, key_needed: bool = True, via: str | None = None) -> tuple[Inventory, Config]:
    """Return the inventory in the file at `path` and the site's configuration in it; raises ConfigError, FileError.

    `via` takes the place of the inventory's own.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise ConfigError(str(path), "", "is not UTF-8 text") from None
    except OSError as error:
        raise FileError(path, f"cannot be read: {error.strerror}") from None
    inventory = parse(str(path), text, **({"via": via} if via else {}))
    if inventory.known_hosts is None:
        inventory = inventory.model_copy(update={"known_hosts": path.absolute().parent / "known_hosts"})
    config = resolve(Layer(f"{path}: settings", inventory.settings))
    if config.via != "ssh" and (inventory.mode == "service" or not key_needed):
        why = "may log in nowhere and use" if config.via == "auto" else "logs in nowhere and uses"
        raise ConfigError(str(path), "settings", f"via: {config.via} {why} no key; say `mode: user`")
    if inventory.mode == "service" or not key_needed:
        _must_name_targets(str(path), config)
    if inventory.mode == "service":
        if inventory.service_key is None and key_needed:
            raise ConfigError(str(path), "service_key", "is missing; make one with: hpcproxy jump-kit")
        if not config.agent:
            raise ConfigError(str(path), "settings", "agent: false would open the service key to every user of a node")
    if config.lacks_jump_host:
        raise ConfigError(str(path), "settings", "names no jump host; add `jump: USER@HOST`")
    return inventory, config


def _must_name_targets(source: str, config: Config) -> None:
    """Raise ConfigError if `allow` is empty: the service key is everybody's, so its reach must have been thought of."""
    if not config.allow:
        reason = (
            "`allow` is missing: in service mode every user of a node would reach all that the jump host reaches; name "
            'what may be reached, `allow: ["pypi.org:443", ".wandb.ai:443"]`, or say `allow: ["*"]` if that is meant'
        )
        raise ConfigError(source, "settings", reason)


def parse(source: str, text: str, **over: str) -> Inventory:
    """Return the inventory in YAML `text`, with `over` instead of what it says of these keys.

    An unknown key is an error that lists the valid ones. Raises ConfigError.
    """
    values = {**parse_mapping(source, text, KEYS), **over}
    try:
        return Inventory.model_validate(values)
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        reason = first["msg"].removeprefix("Value error, ")
        shown = reason if first["type"] in ("value_error", "missing") else f"{reason} (got {first['input']!r})"
        valid = tuple(Policy.model_fields) if key.startswith("policy.") else KEYS
        raise ConfigError(source, key, shown, valid if first["type"] == "extra_forbidden" else ()) from None


def site_yaml(inventory: Inventory) -> bytes:
    """Return the text of the site's config.yaml: `settings` as they stand."""
    body = yaml.safe_dump(inventory.settings, sort_keys=False, allow_unicode=True) if inventory.settings else ""
    return f"# hpcproxy, the site's settings: written by deploy; a change belongs in the inventory\n{body}".encode()


def hosts(inventory: Inventory) -> tuple[str, ...]:
    """Return the hosts to work on; raises ConfigError if Slurm was to name them and did not."""
    if inventory.nodes != SLURM:
        return expand(inventory.nodes)
    own = [str(inventory.slurm_bin)] if inventory.slurm_bin else []
    try:
        done = subprocess.run(
            # Hidden nodes and those in no partition too: a slurmd runs there, which reads slurm.conf.
            ["scontrol", "--all", "show", "nodes", "--oneliner"],
            capture_output=True,
            text=True,
            timeout=_SCONTROL_TIMEOUT_S,
            check=False,
            env={**os.environ, "PATH": os.pathsep.join([*own, *os.get_exec_path()])},
        )
        said = done.stdout if done.returncode == 0 else ""
        return expand(",".join(dict.fromkeys(_reached(*found) for found in _NODE_NAME.findall(said))))
    except (OSError, subprocess.TimeoutExpired, ValueError) as error:
        raise ConfigError("scontrol", "nodes", f"names no nodes here: {error}; list them in the inventory") from None


def _reached(name: str, address: str) -> str:
    """Return by what a node of Slurm's is reached: its NodeAddr where that is another, and its name is none here."""
    if address in ("", name) or not _NODE.fullmatch(address):
        return name
    try:
        socket.getaddrinfo(name, None)
    except (OSError, UnicodeError):
        return address
    return name


def limit(names: tuple[str, ...], wanted: str | None) -> tuple[str, ...]:
    """Return those of `names` that `wanted`, a node set, holds; raises ConfigError for one that is not among them."""
    if wanted is None:
        return names
    try:
        chosen = expand(wanted)
    except ValueError as error:
        raise ConfigError("--limit", "", str(error)) from None
    strangers = [name for name in chosen if name not in names]
    if strangers:
        raise ConfigError("--limit", "", f"{fold(strangers)} is not in the inventory", (fold(names),))
    return tuple(name for name in names if name in chosen)

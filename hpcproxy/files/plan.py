"""A `Config` becomes a `Plan`: which artifact goes where, from which template, with which mode. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from hpcproxy import floors
from hpcproxy.config.model import AGENT, SHELL, Config, Jump, settings
from hpcproxy.config.places import RUN, Home
from hpcproxy.files import elsewhere
from hpcproxy.node.state.closed import LOOPBACK, NODE, PROXY
from hpcproxy.openssh import command, option_list, reasons

SCRIPT_MODE = 0o700
SOURCED_MODE = 0o600

PROFILE = Path("/etc/profile.d/hpcproxy.sh")  # proxy_on and its kin, for everybody
IN_FORCE = "in-force"  # there: Slurm runs our Epilog on this node, without which our Prolog does nothing

TUNNEL = "tunnel.sh"
PROLOG, EPILOG, TASK_PROLOG = "prolog", "epilog", "taskprolog"
PLUGIN = "spank_hpcproxy.so"
AGENT_SETTINGS = "agent.json"
AGENT_PROGRAM = "agent.pyz"


@dataclass(frozen=True)
class Artifact:
    """One file to be made: `name` is what the user calls it, `source` where its content comes from.

    A source is a template (`*.j2`), AGENT_SETTINGS, AGENT_PROGRAM or a key of the plan's `texts`.
    """

    name: str
    source: str
    path: Path
    mode: int
    summary: str
    owner: str = ""  # an account's name; none: whoever installs
    secret: bool = False  # its content is shown nowhere, in no diff, report or error, and no host is asked for it


@dataclass(frozen=True)
class Plan:
    """All artifacts of one installation, the values their templates take and the agent's settings."""

    artifacts: tuple[Artifact, ...]
    values: Mapping[str, Any]
    agent: Mapping[str, Any]
    texts: Mapping[str, bytes] = field(default_factory=dict, repr=False)

    def named(self, name: str) -> Artifact | None:
        """Return the artifact called `name`, if there is one."""
        return next((artifact for artifact in self.artifacts if artifact.name == name), None)

    def only(self, name: str) -> Plan:
        """Return the plan with nothing but the artifact called `name`, for whoever needs no other."""
        return replace(self, artifacts=tuple(artifact for artifact in self.artifacts if artifact.name == name))


def account_plan(config: Config, home: Home) -> Plan:
    """Return what `install-bashrc` puts into `home` for `config`."""

    def artifact(name: str, folder: str, mode: int, summary: str) -> Artifact:
        return Artifact(name, f"{folder}/{name}.j2", home.directory / name, mode, summary)

    return Plan(
        artifacts=(
            artifact(TUNNEL, "node", SCRIPT_MODE, "holds the forward on one node; probes the jump hosts"),
            artifact("job.sh", "sbatch", SCRIPT_MODE, "starts and ends the supervisors on all nodes of a job"),
            artifact("prologue.sh", "sbatch", SOURCED_MODE, "what the hook line of a job script sources"),
            artifact("epilogue.sh", "sbatch", SOURCED_MODE, "ends the tunnel before the job's end"),
            artifact("bashrc.sh", "bashrc", SOURCED_MODE, "proxy_on, proxy_off, proxy_status for shells"),
            Artifact("agent.json", AGENT_SETTINGS, home.directory / "agent.json", SOURCED_MODE, "the agent's settings"),
            Artifact(
                "agent.pyz",
                AGENT_PROGRAM,
                home.directory / "agent.pyz",
                SCRIPT_MODE,
                "the agent: one port, HTTP and SOCKS, for the job's user only",
            ),
        ),
        values=script_values(config, home.directory, home.known_hosts),
        agent=agent_settings(config, home.known_hosts),
    )


def script_values(config: Config, programs: Path, known_hosts: Path, *, syslog: bool = False) -> dict[str, Any]:
    """Return what the templates of every installation take; `programs` is where the scripts and the agent lie."""
    return {
        "home": programs,
        "run": RUN,
        **{key: "" if value is None else value for key, value in _needed_by(SHELL, config).items()},
        # The environment's is the very one that the agent gets out by, or one that is not needed.
        "replace_proxy": config.replace_proxy or config.site_proxy is not None or config.via == "auto",
        "uses_ssh": config.uses_ssh,
        "syslog": syslog,
        "rolled_out": "",
        "jump_count": len(config.jump_hosts),
        "jump_names": [str(jump) for jump in config.jump_hosts],
        "jump_destinations": [jump.destination for jump in config.jump_hosts],
        "jump_ports": [jump.port or "" for jump in config.jump_hosts],
        "ssh_options": command.options(config, known_hosts),
        "hop_options": option_list.hop_words(),
        "first_cipher": command.FIRST_CIPHER,
        "login_option": command.LOGIN_OPTION,
        "probe_target": command.PROBE_TARGET,
        "probe_target_https": command.probe_https(config),
        "least_bash": floors.BASH.number,
        "least_slurm": floors.SLURM.number,
        "least_ssh": floors.OPENSSH.number,
        "failures": [tuple(map(_number, failure.as_row().values())) for failure in reasons.FAILURES],
        **_elsewhere(),
    }


def _needed_by(who: str, config: Config) -> dict[str, Any]:
    """Return the settings that `who` needs, in the table's order; jump hosts aside, who have a form of their own."""
    return {row.key: getattr(config, row.key) for row in settings() if who in row.needs and row.key != "jump"}


def _elsewhere() -> dict[str, Any]:
    """Return the tables of what leads programs elsewhere, as job.sh takes them."""
    rows = [*elsewhere.LINES, *elsewhere.TAKEN]
    return {
        "harmless": elsewhere.HARMLESS,
        "sourced": elsewhere.SOURCED,
        "line_patterns": [row.pattern for row in rows],
        "line_groups": [row.group for row in rows],
        "line_words": [row.what for row in rows],
        "taken_from": len(elsewhere.LINES),
        "tool_names": [tool for tool, _, _ in elsewhere.TOOLS],
        "tool_files": [path for _, path, _ in elsewhere.TOOLS],
        "tool_patterns": [pattern for _, _, pattern in elsewhere.TOOLS],
        "tool_words": elsewhere.TOOL_READS,
        "variable_tools": [tool for tool, _, _ in elsewhere.VARIABLES],
        "variable_names": [name for _, name, _ in elsewhere.VARIABLES],
        "variable_patterns": [pattern for _, _, pattern in elsewhere.VARIABLES],
        "variable_words": elsewhere.VARIABLE_GIVES,
        "variable_ours": elsewhere.OURS,
    }


def _number(value: str | bool) -> str | int:
    """Return a field of a row of reasons as reason.sh has it, whose columns are in the row's order."""
    return int(value) if isinstance(value, bool) else value


def _ways(config: Config, known_hosts: Path) -> list[dict[str, Any]]:
    """Return the tunnels, each of a kind that the agent knows; of several kinds in the order of preference."""
    options = command.options(config, known_hosts)
    logins: list[dict[str, Any]] = [
        {"kind": "ssh", "name": str(jump), "argv": ["ssh", *options, "-N", *command.target(jump)]}
        for jump in config.jump_hosts
    ]
    if config.via == "ssh":
        return logins
    if config.via != "auto":
        return [_way(config, config.via)]
    first = [_way(config, config.via_first)] if config.via_first not in (None, "direct") else []
    environment = {"kind": "environment", "auth_file": str(config.proxy_auth_file or "")}
    return [*first, _way(config, "direct"), environment, *logins]


def _way(config: Config, via: str | None) -> dict[str, Any]:
    """Return the way that `via`, a word or the address of a proxy, spells."""
    kind, _, place = str(via).partition("://")
    if kind == "adopt":
        return {"kind": kind, "path": str(config.adopt)}
    if not place:
        return {"kind": kind}
    proxy, login = Jump.parse(place), str(config.proxy_auth_file or "")
    return {"kind": kind, "name": via, "host": proxy.host, "port": proxy.port, "auth_file": login}


def agent_settings(config: Config, known_hosts: Path, *, syslog: bool = False) -> dict[str, Any]:
    """Return agent.json, version 2 (node/state/settings.py reads it); `syslog`: the system's log gets every line."""
    return {
        "version": 2,
        "ways": _ways(config, known_hosts),
        "failures": [failure.as_row() for failure in reasons.FAILURES],
        "probe": command.PROBE_TARGET,
        "probe_https": command.probe_https(config),
        **{key: list(value) if isinstance(value, tuple) else value for key, value in _needed_by(AGENT, config).items()},
        "access_syslog": bool(config.access_syslog),
        # Whose rules they are, for those whom they refuse; and what is closed though none says so.
        "rules_of": "your settings or the site's defaults for them",
        # By whichever way: the node itself is loopback, too.
        "closed": list({"ssh": LOOPBACK, "adopt": LOOPBACK, "direct": NODE, "auto": NODE}.get(config.via, PROXY)),
        "proxy_ca": config.proxy_ca or "",
        "proxy_ca_targets": list(config.direct_targets) if config.proxy_ca == "auto" else [],
        "direct_targets": list(config.direct_targets) if config.via == "auto" else [],
        "jump_hosts": [],
        "syslog": syslog,
    }

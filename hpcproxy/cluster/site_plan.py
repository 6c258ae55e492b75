"""An `Inventory` becomes a `Plan`: which file goes to which absolute path of a compute node, owner, mode. Pure."""

from __future__ import annotations

from pathlib import Path

from hpcproxy.cluster.inventory import SPANK, Inventory, site_yaml
from hpcproxy.config.model import Config, Jump
from hpcproxy.config.places import PROGRAMS
from hpcproxy.files import modulefile, variables
from hpcproxy.files.plan import (
    AGENT_PROGRAM,
    AGENT_SETTINGS,
    EPILOG,
    PLUGIN,
    PROFILE,
    PROLOG,
    TASK_PROLOG,
    Artifact,
    Plan,
    agent_settings,
    script_values,
)
from hpcproxy.node.state.closed import SERVICE
from hpcproxy.node.state.policy import pack_address

SETTINGS = Path("/etc/hpcproxy")
DROP_IN = "50-hpcproxy"
COMMENT = "hpcproxy"  # what `--comment` must hold where the policy asks for it

_PROGRAM_MODE = 0o755
_TEXT_MODE = 0o644
_SECRET_MODE = 0o600
# By it a host that has lost its record, with a disk or an image, knows our files (`is_marked` in receive.sh).
_OURS = "written by deploy; a change belongs in the inventory"
_KNOWN_HOSTS, _CONFIG, _KEY = "known_hosts", "config.yaml", "service_key"


def site_plan(
    inventory: Inventory, config: Config, known_hosts: str, service_key: bytes | None, plugin: bytes | None = None
) -> Plan:
    """Return what every compute node gets. Drop-ins come last: what they start must be there before they are.

    `plugin` is what runs them where the inventory says `via: spank`.
    """
    service = inventory.mode == "service"
    if service:
        config = config.model_copy(update={"identity": SETTINGS / _KEY})
    texts = {_KNOWN_HOSTS: f"# hpcproxy, {_OURS}\n{known_hosts}".encode(), _CONFIG: site_yaml(inventory)}
    keys: tuple[Artifact, ...] = ()
    if service and service_key is not None:
        # Behind its end, where every reader of keys has stopped.
        texts[_KEY] = service_key.rstrip(b"\n") + f"\n# hpcproxy, {_OURS}\n".encode()
        where = SETTINGS / _KEY
        owner = inventory.service_account
        keys = (Artifact(_KEY, _KEY, where, _SECRET_MODE, "the service account's key", owner, secret=True),)
    if plugin is not None:
        texts[PLUGIN] = plugin
    values = script_values(config, PROGRAMS, SETTINGS / _KNOWN_HOSTS, syslog=True)
    return Plan(
        artifacts=(*_programs(), *_settings(), *_modules(inventory), *keys, *_hooks(inventory), *_plugin(plugin)),
        values={**values, **_site_values(inventory)},
        agent={**agent_settings(config, SETTINGS / _KNOWN_HOSTS, syslog=True), **_limits(inventory, config)},
        texts=texts,
    )


def _limits(inventory: Inventory, config: Config) -> dict[str, object]:
    """Return what agent.json says of a roll-out: in service mode the key is the site's, and so is its use."""
    if inventory.mode != "service":
        return {"rules_of": "this site's defaults"}
    return {
        "rules_of": "this site's rules",
        "closed": list(SERVICE),
        "jump_hosts": sorted({name for jump in config.jump for name in names_of(jump)}),
        "access_syslog": config.access_syslog is not False,
    }


def names_of(jump: Jump) -> tuple[str, ...]:
    """Return what this jump host is called: as configured, and short."""
    return (jump.host,) if pack_address(jump.host) else (jump.host, jump.host.split(".", 1)[0])


def _programs() -> tuple[Artifact, ...]:
    def program(name: str, source: str, summary: str) -> Artifact:
        return Artifact(name, source, PROGRAMS / name, _PROGRAM_MODE, summary, "root")

    return (
        program("agent.pyz", AGENT_PROGRAM, "the agent: one port, HTTP and SOCKS, for the job's user only"),
        Artifact("agent.json", AGENT_SETTINGS, PROGRAMS / "agent.json", _TEXT_MODE, "the agent's settings", "root"),
        program("tunnel.sh", "node/tunnel.sh.j2", "holds the forward on one node; probes the jump hosts"),
        program("job.sh", "sbatch/job.sh.j2", "starts and ends the supervisors of a job that was given none"),
        program("supervisor.sh", "slurmd/supervisor.sh.j2", "makes a job's state and becomes its supervisor"),
        program(TASK_PROLOG, "slurmd/taskprolog.sh.j2", "TaskProlog: the variables for every task"),
    )


def _settings() -> tuple[Artifact, ...]:
    def text(name: str, source: str, summary: str) -> Artifact:
        return Artifact(name, source, SETTINGS / name, _TEXT_MODE, summary, "root")

    return (
        text(_CONFIG, _CONFIG, "the site's settings, below every user's own"),
        text(_KNOWN_HOSTS, _KNOWN_HOSTS, "the jump hosts' pinned keys"),
        text("prologue.sh", "sbatch/prologue.sh.j2", "for job scripts to source"),
        text("epilogue.sh", "sbatch/epilogue.sh.j2", "for job scripts to source"),
        Artifact(
            "hpcproxy.sh", "bashrc/bashrc.sh.j2", PROFILE, _TEXT_MODE, "proxy_on and its kin for everybody", "root"
        ),
    )


def _modules(inventory: Inventory) -> tuple[Artifact, ...]:
    if inventory.modulefiles is None:
        return ()
    return modulefile.artifacts(inventory.modulefiles, _TEXT_MODE, "root")


def _hooks(inventory: Inventory) -> tuple[Artifact, ...]:
    epilog = inventory.slurm_directory / "epilog.d" / DROP_IN
    prolog = inventory.slurm_directory / "prolog.d" / DROP_IN
    if inventory.via == SPANK:
        # Where no pattern of slurm.conf's finds them.
        epilog, prolog = PROGRAMS / EPILOG, PROGRAMS / PROLOG
    return (
        Artifact(EPILOG, "slurmd/epilog.sh.j2", epilog, _PROGRAM_MODE, "Epilog: ends the tunnel", "root"),
        Artifact(PROLOG, "slurmd/prolog.sh.j2", prolog, _PROGRAM_MODE, "Prolog: starts the tunnel", "root"),
    )


def _plugin(plugin: bytes | None) -> tuple[Artifact, ...]:
    if plugin is None:
        return ()
    summary = "SPANK plugin: runs Prolog, Epilog and TaskProlog of ours"
    return (Artifact(PLUGIN, PLUGIN, PROGRAMS / PLUGIN, _TEXT_MODE, summary, "root"),)


def _site_values(inventory: Inventory) -> dict[str, object]:
    return {
        "rolled_out": inventory.mode,
        "service_account": inventory.service_account if inventory.mode == "service" else "",
        "policy_comment": COMMENT if inventory.policy.comment else "",
        "policy_partitions": inventory.policy.partitions,
        "policy_accounts": inventory.policy.accounts,
        "policy_option": inventory.policy.option,
        "our_epilog": inventory.slurm_directory / "epilog.d" / DROP_IN,
        "site_runs_hooks": inventory.site_runs_hooks,
        "site_task_prolog": inventory.site_task_prolog or "",
        "task_wait_s": inventory.task_wait_s,
        "variables": variables.NAMES,
        "own_variables": (*variables.OWN, "HPCPROXY_ERROR", variables.OWN_CA, *variables.CA),
        "saved": variables.SAVED,
        **modulefile.values(PROFILE, SETTINGS / "prologue.sh", ""),
    }

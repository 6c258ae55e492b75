"""What the hosts are asked to try: Slurm's contract with our scripts, and what the service key can do. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hpcproxy.cluster import slurm_conf
from hpcproxy.cluster.firewall import FIREWALL_TARGET
from hpcproxy.cluster.inventory import Inventory
from hpcproxy.cluster.protocol import STORE, framed
from hpcproxy.config.model import Config
from hpcproxy.config.places import RUN
from hpcproxy.files.plan import EPILOG, PROLOG, TASK_PROLOG, Artifact, Plan
from hpcproxy.files.render import Bundle, render
from hpcproxy.node.state.closed import closed
from hpcproxy.node.state.policy import Policy, closed_by, parse_rule
from hpcproxy.openssh.command import PROBE_TARGET

# What a key that everybody may use must not reach, each the first of its kind.
_FORBIDDEN = (("127.0.0.1", 22), ("169.254.169.254", 80))


@dataclass(frozen=True)
class Set:
    """What Slurm runs of Prolog and Epilog, as paths and patterns: `before` they are enabled, and `after` it."""

    before: tuple[str, ...]
    after: tuple[str, ...]
    controllers_own: tuple[str, ...] = ()
    timeout_s: int = 0  # after which slurmd kills one of them; 0: it waits


def effective(running: slurm_conf.Running | None, inventory: Inventory) -> Set:
    """Return what Slurm runs, and what it would run with our lines; if it cannot be asked, all beside ours."""
    files = slurm_conf.ours(inventory)
    if running is None:
        return Set((), tuple(f"{Path(files[name]).parent}/*" for name in slurm_conf.HOOKS))
    before = tuple(value for name in slurm_conf.HOOKS for value in running.get(name, ()))
    added = [files[name] for name in slurm_conf.HOOKS if not slurm_conf.runs_ours(running.get(name, ()), files[name])]
    own = (value for name in ("PrologSlurmctld", "EpilogSlurmctld") for value in running.get(name, ()))
    return Set(before, (*before, *added), tuple(own), slurm_conf.hook_timeout_s(running))


def contract_message(bundle: Bundle, inventory: Inventory, token: str, scripts: Set | None = None) -> bytes:
    """Return the message that runs the installed scripts as slurmd would, for a job that meets the policy."""
    scripts = scripts or effective(None, inventory)
    paths = {file.artifact.name: str(file.artifact.path) for file in bundle.files}
    policy = inventory.policy
    values = {
        "token": token,
        "run": RUN,
        "prolog": paths[PROLOG],
        "epilog": paths[EPILOG],
        "task_prolog": paths[TASK_PROLOG],
        "partition": next(iter(policy.partitions), "none"),
        "account": next(iter(policy.accounts), "none"),
        "slurm_conf": f"{inventory.slurm_directory}/slurm.conf",
        "slurm_bin": str(inventory.slurm_bin or ""),
        "site_task_prolog": str(inventory.site_task_prolog or ""),
        "image": str(STORE / "image"),
        "given_ms": 1000 * scripts.timeout_s,
        "before": scripts.before,
        "after": scripts.after,
        "controllers_own": scripts.controllers_own,
    }
    return _script("contract.sh", "deploy/contract.sh.j2", values)


def key_message(inventory: Inventory, config: Config, values: Mapping[str, Any], token: str) -> bytes:
    """Return the message that checks what the service key can do; `values` are those of the site's scripts."""
    return _script(
        "keycheck.sh",
        "jump/keycheck.sh.j2",
        {
            **{name: values[name] for name in ("jump_names", "jump_destinations", "jump_ports", "ssh_options")},
            "token": token,
            "account": inventory.service_account,
            "connect_timeout_s": config.connect_timeout_s,
            "allowed": PROBE_TARGET,
            "forbidden": [f"{host}:{port}" for host, port in _FORBIDDEN if _is_closed(config, host, port)],
            "firewall": FIREWALL_TARGET if _is_closed(config, *FIREWALL_TARGET.split(":")) else "",
        },
    )


def _is_closed(config: Config, host: str, port: int | str) -> bool:
    """Whether no rule of `allow` names what is closed by itself."""
    rules = tuple(parse_rule(rule) for rule in config.allow)
    return closed_by(Policy(rules, (), closed(("loopback", "link-local"), ())), host, int(port)) is not None


def _script(name: str, template: str, values: Mapping[str, Any]) -> bytes:
    return framed(render(Plan((Artifact(name, template, Path(name), 0o700, ""),), values, {})).files[0].content)

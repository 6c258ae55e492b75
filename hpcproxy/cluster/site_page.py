"""A page about the tunnel that a centre can put into its own documentation: Markdown, from the inventory. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from hpcproxy.cluster.inventory import Inventory
from hpcproxy.config.model import Config


def page(inventory: Inventory, config: Config) -> str:
    """Return the page for the users of this cluster."""
    return "\n".join(_lines(inventory, config))


def _lines(inventory: Inventory, config: Config) -> Iterator[str]:
    yield "# Internet access from compute nodes\n"
    yield "Compute nodes have no route to the internet. Your jobs reach it all the same: a tunnel is started with"
    yield "the job, on each of its nodes, and ends with it. `http_proxy` and `https_proxy` lead there, and most"
    yield "programs need no more: curl, git, pip, conda, SwanLab, W&B, Hugging Face, the LLM APIs.\n"
    yield "## Which jobs have it\n"
    yield from _who(inventory)
    yield "\n## What you need\n"
    yield from _needs(inventory, config)
    yield "\n## Try it\n"
    options = _options(inventory)
    yield f"```\n$ srun {options}-N1 curl -sS https://ipinfo.io/ip\n```\n"
    yield "It prints an address that is no node's. `proxy_status` in a shell of the job says how things are;"
    yield "`proxy_off` and `proxy_on` switch it for that shell.\n"
    yield "## What may be reached\n"
    yield from _rules(inventory, config)
    yield "\n## When it does not work\n"
    yield "| you see | what it means |\n|---|---|"
    yield "| `hpcproxy: no tunnel from your site: …` in the job's output | This job has none; send us that line. |"
    yield "| `curl: (56) … response 503` | The tunnel is away for a moment and comes back by itself; try again. |"
    yield "| `curl: (56) … response 403` | A rule of ours forbids that host; the answer names the rule. |"
    yield "| `curl: (6) Could not resolve host` | The program does not use the tunnel, or this job has none. |"
    yield "| a program that knows no proxy, UDP, ping | Not possible this way. |"


def _who(inventory: Inventory) -> Iterator[str]:
    policy = inventory.policy
    ways = [
        *(["jobs submitted with `--comment=hpcproxy`"] if policy.comment else []),
        *(["jobs submitted with `--hpcproxy`"] if policy.option else []),
        *([f"jobs in the partitions {', '.join(policy.partitions)}"] if policy.partitions else []),
        *([f"jobs of the accounts {', '.join(policy.accounts)}"] if policy.accounts else []),
    ]
    yield "All of them; there is nothing to do." if not ways else f"These: {'; '.join(ways)}."


def _options(inventory: Inventory) -> str:
    policy = inventory.policy
    if policy.comment:
        return "--comment=hpcproxy "
    if policy.option:
        return "--hpcproxy "
    return f"-p {policy.partitions[0]} " if policy.partitions else ""


def _needs(inventory: Inventory, config: Config) -> Iterator[str]:
    names = ", ".join(str(jump) for jump in config.jump_hosts)
    if inventory.mode == "service":
        yield "Nothing: the login to the jump host is ours."
    elif names:
        yield f"An account on {names}, and a key in `~/.ssh` that logs in there with no passphrase."
    else:
        yield "Nothing."


def _rules(inventory: Inventory, config: Config) -> Iterator[str]:
    if config.allow:
        yield f"Only: {', '.join(f'`{rule}`' for rule in config.allow)}."
    if config.deny:
        yield f"Not: {', '.join(f'`{rule}`' for rule in config.deny)}."
    if not config.allow and not config.deny:
        yield "Every host that the jump host reaches, by TCP."
    if inventory.mode == "service":
        yield "Who reached what, and when, is on record."

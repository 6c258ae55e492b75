"""Inventories whose rendered files are looked at: every combination of what an admin can set."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import product
from typing import Any

import yaml

from hpcproxy.cluster import inventory
from hpcproxy.cluster.site_plan import site_plan
from hpcproxy.config.layers import Layer, resolve
from hpcproxy.files.plan import Plan


def plan(**told: Any) -> Plan:
    """Return the plan for an inventory that says `told` on top of the least."""
    values = {"nodes": "c[1-4]", "settings": {"jump": "hello@192.168.31.10"}, **told}
    found = inventory.parse("case", yaml.safe_dump(values, allow_unicode=True))
    config = resolve(Layer("case", found.settings))
    return site_plan(found, config, "192.168.31.10 ssh-ed25519 AAAA\n", b"key" if found.mode == "service" else None)


def script_of(message: bytes) -> bytes:
    """Return the last script of a message to a host, without the line that has it read as a whole and the archive."""
    head, _, rest = message.partition(b"\n")
    lengths = [int(length) for length in re.findall(rb"read -r -N (\d+) ", head)]
    return rest[sum(lengths[:-1]) : sum(lengths)]


def combinations() -> Iterator[Plan]:
    """Every combination of policy, mode and the settings that the scripts of a node take."""
    policies = ({}, {"comment": True}, {"partitions": ["gpu", "a-b.c"], "accounts": "phys"})
    settings = (
        {"jump": "hello@192.168.31.10"},
        {
            "jump": ["u@[2001:db8::1]:2222", "j2"],
            "no_proxy": ["a.example", ".b"],
            "bypass_private": False,
            "port": 3128,
        },
        {"jump": "j", "agent": False, "replace_proxy": True, "autostart": True, "required": True},
    )
    more = (
        {},
        {"site_task_prolog": "/etc/slurm/it's ours/größe", "slurm_directory": "/opt/slurm etc", "task_wait_s": 30},
    )
    for policy, setting, mode, extra in product(policies, settings, ("user", "service"), more):
        yield plan(policy=policy, settings=setting, mode=mode, service_key="/root/key", **extra)

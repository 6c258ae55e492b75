# ruff: noqa: E501 - a table
"""Which tests lie beside which code: a package of `hpcproxy/`, or a folder of `templates/`, and its test files.

A part in templates/lib belongs to every room one of whose scripts has it in.
"""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TESTS = {
    "account": "test_connect test_collect test_init test_inherited test_jobscript test_state_ours test_loginshell test_netcat test_ops test_overrides"
    " test_templated test_toolenv test_install test_demo",
    "cli": "test_cli test_consent test_demo test_ops test_init deploy/test_raised deploy/test_reference deploy/test_enable",
    "cluster": "deploy/test_become deploy/test_bounds deploy/test_dial deploy/test_enable deploy/test_field deploy/test_groups deploy/test_heard"
    " deploy/test_image deploy/test_inventory deploy/test_kit deploy/test_logins deploy/test_moved deploy/test_plugstack deploy/test_prospect"
    " deploy/test_raised deploy/test_slurmconf test_firewall test_trusting deploy/test_contract deploy/test_enablement deploy/test_wire deploy/test_shared deploy/test_versions deploy/test_remove",
    "config": "test_config",
    "files": "test_block test_install test_install_badluck test_render",
    "openssh": "test_hostkey test_known_hosts test_ssh_configurations test_sshconfig test_sshoptions test_init test_trusting test_tunnel_layers",
    "ground": "test_floors test_install test_install_badluck test_render test_cli deploy/test_heard deploy/test_raised test_sshconfig test_loginshell",
    "node": "node/test_compiled node/test_python node/test_life",
    "node/io": "node/test_loop node/test_peer node/test_port_reuse node/test_tcpinfo node/test_life node/test_dialects node/test_bounds",
    "node/state": "node/test_access node/test_closed node/test_journal node/test_settings node/test_parsers node/test_life node/test_outage",
    "node/upstream": "node/test_many_tunnels test_spread node/test_outage node/test_life node/test_clock node/test_dialects node/test_parsers node/test_journal test_tunnel_layers test_tunnel_talk",
    "node/proxy": "node/test_dialects node/test_forward_again node/test_listener node/test_http node/test_http_unusual node/test_bodies node/test_bounds node/test_first_speaker node/test_pace"
    " node/test_parsers node/test_port_reuse node/test_fuzz node/test_peer",
    "node/life": "node/test_life node/test_clock node/test_outage node/test_compiled test_job_end",
    "templates/bashrc": "test_twins test_bashrc test_listening test_proxies test_stray test_state_taken",
    "templates/sbatch": "test_prologue test_job_step test_spread test_state_ours test_first test_collect test_job_end test_stray test_overrides test_proxies test_arithmetic contract/test_slurm",
    "templates/node": "test_twins test_address test_hold_pauses test_spread test_state_ours test_job_processes test_job_end test_learn test_no_proxy test_nodes test_reason test_state_taken test_sweep"
    " test_tunnel test_tunnel_layers test_tunnel_talk test_userconfig test_inherited contract/test_openssh test_arithmetic",
    "templates/slurmd": "deploy/test_cgroups deploy/test_epilog test_spread deploy/test_supervisor deploy/test_mounts deploy/test_scripts deploy/test_taskprolog test_nodes test_address",
    "templates/deploy": "deploy/test_contract deploy/test_heard deploy/test_remove deploy/test_shared deploy/test_enablement deploy/test_versions"
    " deploy/test_wire deploy/test_moved",
    "templates/jump": "deploy/test_keycheck",
    "templates/line": "test_shell_lines test_jobscript test_loginshell deploy/test_wire deploy/test_become",
}  # fmt: skip


# They hold how the code looks, and see that something changed and not that it is wrong.
GUARDS = {
    *("test_layers", "test_mutants", "test_once", "test_pages", "test_security_page", "test_shell_rules", "test_wheel"),
    "test_vocabulary",
}


def rooms_of(path: str) -> list[str]:
    """The rooms of a file of the code: for a part of scripts each folder with a script of it."""
    parts = Path(path).parts
    if parts[0] == "templates" and parts[1] != "lib":
        return [f"templates/{parts[1]}"]
    if parts[0] == "templates":
        return list(dict.fromkeys(f"templates/{script.parent.name}" for script in _scripts(parts[-1])))
    folders = parts[1:-1]
    return ["/".join(folders[:2]) or "ground"]


def _scripts(part: str) -> list[Path]:
    inside = re.compile(rf"include '(?:lib/)?(?:[^']*/)?{re.escape(part)}'")
    return [each for each in sorted((ROOT / "templates").glob("*/*.j2")) if inside.search(each.read_text())]


def scripts_of(path: str) -> list[str]:
    """What the scripts are called that have this part in; for Python the module's own name."""
    name = Path(path).name
    return [script.name.partition(".")[0] for script in _scripts(name)] or [Path(path).stem]


def room_of(path: str) -> str:
    """The first of them, which it is counted in."""
    return (rooms_of(path) or ["none"])[0]


def tests_of(path: str) -> tuple[str, ...]:
    """The test files of a file of the code, from the root: its rooms', and those that stand in no row yet."""
    listed = {name for names in TESTS.values() for name in names.split()}
    names = [name for room in rooms_of(path) for name in TESTS.get(room, "").split()]
    of_agent = path.startswith("hpcproxy/node/")
    for test in sorted((ROOT / "tests").rglob("test_*.py")):
        name = str(test.relative_to(ROOT / "tests").with_suffix(""))
        if name not in listed and test.stem not in GUARDS and not name.startswith("lab/"):
            names += [name] * (of_agent == name.startswith("node/"))
    found = dict.fromkeys(f"tests/{name}.py" for name in names)
    return tuple(name for name in found if (ROOT / name).is_file())

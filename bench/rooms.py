# ruff: noqa: E501 - a table
"""Which tests lie beside which code: a package of `hpcproxy/`, or a folder of `templates/`, and its test files.

A part in templates/lib belongs to every room one of whose scripts has it in.
"""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TESTS = {
    "account": "cli/test_cli account/test_credentials account/test_runner account/test_serve account/test_serve_hops account/test_serve_place account/test_site_word account/test_via account/test_connect account/test_collect account/test_init templates/node/test_inherited account/test_jobscript templates/lib/test_state_ours account/test_loginshell account/test_netcat account/test_ops account/test_overrides"
    " account/test_templated account/test_toolenv files/test_install demo/test_demo",
    "cli": "doctor/test_command cli/test_status cli/test_report account/test_collect cli/test_check_url cli/test_follow cli/test_man cli/test_program cli/test_start_page cli/test_cli cli/test_consent demo/test_demo account/test_ops account/test_init cluster/test_raised cluster/test_reference cluster/test_enable",
    "cluster": "cluster/test_altered cluster/test_archive cluster/test_gateway cluster/test_site_page cluster/test_trouble cluster/test_verbs cluster/test_who cluster/test_whole_verbs cluster/test_become cluster/test_bounds cluster/test_dial cluster/test_enable cluster/test_field cluster/test_groups cluster/test_heard"
    " cluster/test_image cluster/test_inventory cluster/test_kit cluster/test_logins cluster/test_moved cluster/test_plugstack cluster/test_prospect"
    " cluster/test_raised cluster/test_slurmconf cluster/test_firewall cluster/test_trusting cluster/test_contract cluster/test_enablement cluster/test_wire cluster/test_shared cluster/test_versions cluster/test_remove",
    "config": "config/test_config",
    "doctor": "doctor/test_bundle doctor/test_command doctor/test_far doctor/test_graph doctor/test_job doctor/test_jump doctor/test_machine doctor/test_manual doctor/test_page doctor/test_shell doctor/test_ssh doctor/test_variables cli/test_follow cli/test_check_url cli/test_start_page",
    "files": "files/test_block files/test_install files/test_install_badluck files/test_render",
    "openssh": "openssh/test_hostkey openssh/test_known_hosts openssh/test_ssh_configurations openssh/test_sshconfig openssh/test_sshoptions account/test_init cluster/test_trusting templates/node/test_tunnel_layers",
    "ground": "cli/test_program account/test_runner account/test_credentials doctor/test_command test_floors files/test_install files/test_install_badluck files/test_render cli/test_cli cluster/test_heard cluster/test_raised openssh/test_sshconfig account/test_loginshell",
    "node": "node/test_compiled node/test_python node/life/test_life",
    "node/io": "node/io/test_loop node/proxy/test_peer node/proxy/test_port_reuse node/io/test_tcpinfo node/life/test_life node/proxy/test_dialects node/proxy/test_bounds",
    "node/state": "node/state/test_access node/state/test_closed node/state/test_journal node/state/test_settings node/proxy/test_parsers node/life/test_life node/upstream/test_outage",
    "node/upstream": "node/upstream/test_many_tunnels templates/lib/test_spread node/upstream/test_outage node/life/test_life node/upstream/test_clock node/proxy/test_dialects node/proxy/test_parsers node/state/test_journal templates/node/test_tunnel_layers templates/node/test_tunnel_talk",
    "node/proxy": "node/proxy/test_dialects node/proxy/test_forward_again node/proxy/test_listener node/proxy/test_http node/proxy/test_http_unusual node/proxy/test_bodies node/proxy/test_bounds node/proxy/test_first_speaker node/proxy/test_pace"
    " node/proxy/test_parsers node/proxy/test_port_reuse node/proxy/test_fuzz node/proxy/test_peer",
    "node/life": "node/life/test_life node/upstream/test_clock node/upstream/test_outage node/test_compiled templates/node/test_job_end",
    "templates/bashrc": "account/test_site_word cli/test_start_page templates/lib/test_twins templates/bashrc/test_bashrc templates/lib/test_listening templates/lib/test_proxies templates/bashrc/test_stray templates/lib/test_state_taken",
    "templates/sbatch": "account/test_runner account/test_site_word templates/sbatch/test_prologue templates/sbatch/test_job_step templates/lib/test_spread templates/lib/test_state_ours templates/sbatch/test_first account/test_collect templates/node/test_job_end templates/bashrc/test_stray account/test_overrides templates/lib/test_proxies templates/lib/test_arithmetic contract/test_slurm",
    "templates/node": "templates/slurmd/test_supervisor account/test_serve account/test_via account/test_runner account/test_serve_hops account/test_serve_place templates/lib/test_twins templates/lib/test_address templates/node/test_hold_pauses templates/lib/test_spread templates/lib/test_state_ours templates/lib/test_job_processes templates/node/test_job_end templates/node/test_learn templates/lib/test_no_proxy templates/lib/test_nodes openssh/test_reason templates/lib/test_state_taken templates/node/test_sweep"
    " templates/node/test_tunnel templates/node/test_tunnel_layers templates/node/test_tunnel_talk templates/node/test_userconfig templates/node/test_inherited contract/test_openssh templates/lib/test_arithmetic",
    "templates/slurmd": "templates/slurmd/test_cgroups templates/slurmd/test_epilog templates/lib/test_spread templates/slurmd/test_supervisor templates/slurmd/test_mounts templates/slurmd/test_scripts templates/slurmd/test_taskprolog templates/lib/test_nodes templates/lib/test_address",
    "templates/deploy": "cluster/test_altered cluster/test_archive cluster/test_trouble cluster/test_who cluster/test_whole_verbs account/test_serve_place cluster/test_contract cluster/test_heard cluster/test_remove cluster/test_shared cluster/test_enablement cluster/test_versions"
    " cluster/test_wire cluster/test_moved",
    "templates/doctor": "doctor/test_far doctor/test_job doctor/test_jump doctor/test_manual doctor/test_shell doctor/test_ssh doctor/test_bundle",
    "templates/jump": "cluster/test_keycheck",
    "templates/line": "test_shell_lines account/test_jobscript account/test_loginshell cluster/test_wire cluster/test_become",
}  # fmt: skip


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
        # tests/house holds how the code looks: it sees that something changed, and not that it is wrong.
        if name not in listed and not name.startswith(("lab/", "house/")) and test.stem != "test_once":
            names += [name] * (of_agent == name.startswith("node/"))
    found = dict.fromkeys(f"tests/{name}.py" for name in names)
    return tuple(name for name in found if (ROOT / name).is_file())

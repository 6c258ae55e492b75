"""The configurations whose rendered files are kept in tests/golden, and the one way to write those files anew.

Static shell from templates/lib, which must come out of the renderer as it went in, stands in a golden file as one line,
`#= lib/FOLDER/NAME.sh`; put in its place, it makes the whole file that rendering is compared with.
"""

from __future__ import annotations

import functools
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hpcproxy.cluster import contract, enable, inventory, protocol
from hpcproxy.config.layers import Layer, resolve
from hpcproxy.config.places import Home
from hpcproxy.files.plan import AGENT_PROGRAM, Artifact, Plan, account_plan
from hpcproxy.files.render import Bundle, File, render
from tests import REPOSITORY
from tests.cluster import cases as site

GOLDEN = REPOSITORY / "tests" / "golden"
LIBRARY = REPOSITORY / "templates" / "lib"

_EVERYTHING: dict[str, Any] = {
    "jump": ["hello@192.168.31.10", "u@[2001:db8::1]:2222"],
    "port": 3128,
    "identity": "/home/größe/my keys/id_ed25519",
    "agent": False,
    "scheme": "socks5",
    "replace_proxy": True,
    "hold_s": 3,
    "max_connections": 64,
    "allow": [".example.org", "192.0.2.0/24:443"],
    "deny": ["*:25"],
    "access_log": True,
    "autostart": True,
    "required": True,
    "quiet": True,
    "ready_timeout_s": 60,
    "connect_timeout_s": 5,
    "alive_interval_s": 7,
    "alive_count": 2,
    "retry_max_s": 15,
    "no_proxy": ["tracker.example.org", ".cluster.example.org", "192.0.2.0/24"],
    "bypass_private": False,
}


def cases() -> Mapping[str, Plan]:
    """Return the plans by the name of their variant."""
    return {
        "no-jump": plan("/home/alice/.hpcproxy"),
        "usual": plan("/home/alice/.hpcproxy", jump=["hello@192.168.31.10"]),
        "direct": plan("/home/alice/.hpcproxy", via="direct"),
        "everything": plan("/home/größe/my files/.hpcproxy", **_EVERYTHING),
    }


def plan(home: str, **values: Any) -> Plan:
    """Return the plan for these settings in an account whose files lie in `home`."""
    return account_plan(resolve(Layer("case", values)), Home(Path(home)))


@functools.cache
def rendered_files() -> Mapping[str, bytes]:
    """Return what is rendered now, by its golden file's path below tests/golden."""
    named = {f"{variant}/{name}": content for variant, bundle in _bundles().items() for name, content in _named(bundle)}
    return {**named, **{f"remote/{name}": content for name, content in remote_scripts().items()}}


def _bundles() -> dict[str, Bundle]:
    nodes = {
        "site": site.plan(),
        "site-service": site.plan(
            mode="service", service_key="/root/key", policy={"partitions": ["gpu", "a-b.c"], "accounts": "phys"}
        ),
    }
    return {variant: render(case) for variant, case in {**cases(), **nodes}.items()}


def remote_scripts() -> dict[str, bytes]:
    """Return what goes to hosts on stdin, by name, for two small files; the archive behind it is not text."""
    files = [("a", "/etc/hpcproxy/a b", 0o755, "root"), ("b", "/etc/slurm/prolog.d/50-b", 0o644, "slurm")]
    bundle = Bundle(
        tuple(File(Artifact(name, "t", Path(path), mode, "", owner), b"text") for name, path, mode, owner in files)
    )
    told = inventory.parse("case", "nodes: c1\nsettings: {jump: j}\n")
    edit = protocol.Edit("/etc/slurm/slurm.conf", b"old\n", b"new\n")
    return {
        **{f"{action}.sh": site.script_of(protocol.message(bundle, action, "TOKEN")) for action in protocol.ACTIONS},
        "reading.sh": site.script_of(protocol.reading(("/a b",), "TOKEN", ("true", "it's"))),
        "editing.sh": site.script_of(protocol.editing((edit,), "TOKEN", ("true",), ("false",))),
        "contract.sh": site.script_of(contract.contract_message(render(site.plan()), told, "TOKEN")),
        "inspect.sh": protocol.inspection(bundle, "TOKEN", protocol.Place(protocol.STORE, protocol.LOCK_FILE)),
        "scontrol.sh": enable.scontrol(told, "ping")[3].encode(),
        "wait_for_slurmd.sh": enable.wait_for_slurmd(told, "1")[3].encode(),
    }


def _named(bundle: Bundle) -> list[tuple[str, bytes]]:
    # The agent's program is its sources, which stand in this repository already.
    return [(file.artifact.name, file.content) for file in bundle.files if file.artifact.source != AGENT_PROGRAM]


def expand(golden: str) -> str:
    """Return the whole file for which `golden` stands."""
    return "".join(_static(line) for line in golden.splitlines(keepends=True))


def _static(line: str) -> str:
    mark, _, name = line.rstrip("\n").partition(" lib/")
    return (LIBRARY / name).read_text() if mark == "#=" else line


def _fold(text: str) -> str:
    for path in sorted(LIBRARY.glob("*/*.sh"), key=lambda path: (-path.stat().st_size, path.name)):
        text = text.replace(path.read_text(), f"#= lib/{path.relative_to(LIBRARY)}\n")
    return text


def write_goldens() -> list[Path]:
    """Write tests/golden anew, nothing else in it, and return the files; read the difference before you commit it."""
    files, paths = rendered_files(), []
    shutil.rmtree(GOLDEN, ignore_errors=True)
    for name, content in files.items():
        path = GOLDEN / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(_fold(content.decode()))
        paths.append(path)
    return paths

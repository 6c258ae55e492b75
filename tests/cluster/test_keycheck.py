"""What `verify` asks with the service key is asked as its account, which root does not trust."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from hpcproxy.cluster import contract, inventory
from hpcproxy.config.layers import Layer, resolve
from tests.cluster.cases import script_of
from tests.templates.slurmd.supervising import Node, made

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, as what deploy sends does")
TOKEN = "hpcproxy-token"  # noqa: S105 - no secret: it marks lines
SETTINGS = {"jump": "hpcproxy@127.0.0.1", "allow": ["internet.test:443"]}


@pytest.fixture
def node() -> Iterator[Node]:
    with made() as pid:
        there = Node(pid)
        yield there


def _check_key(node: Node, ssh: str) -> str:
    """What is answered where the account's ssh is this; its log is $log, what it is asked for $target."""
    text = "nodes: c1\nmode: service\nservice_key: /k\nsettings: {jump: j, allow: [a]}\n"
    told = inventory.parse("i", text)
    values = {
        "jump_names": ["hpcproxy@127.0.0.1"],
        "jump_destinations": ["hpcproxy@127.0.0.1"],
        "jump_ports": [""],
        "ssh_options": [],
    }
    message = contract.key_message(told, resolve(Layer("c", SETTINGS)), values, TOKEN)
    find = "while [ $# -gt 0 ]; do case $1 in -E) log=$2 ;; -W) target=$2 ;; esac; shift; done\n"
    node.instead("/usr/bin/ssh", find + ssh)
    group = (node.root / "mnt/etc/group").read_text()
    node.put("/mnt/etc/group", group + "hpcproxy:x:2300:\n", 0o644)
    node.put("/mnt/etc/keycheck", script_of(message).decode(), 0o755)
    return node.call("/bin/bash", "-p", "-c", "/mnt/etc/keycheck </dev/null")


def test_the_account_makes_root_write_into_no_file_through_its_log(node: Node) -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        Path(name).chmod(0o777)
        precious = Path(name, "precious")
        precious.write_text("open failed: connect failed\n")
        refused = 'echo "channel 0: open failed: connect failed: Connection refused" >>"$log"'
        _check_key(node, f'{refused}; id -u >>{name}/ran; rm -f "$log"; ln -sf {precious} "$log"; exit 255')
        assert set(Path(name, "ran").read_text().split()) == {"2300"}
        assert precious.read_text() == "open failed: connect failed\n"


@pytest.mark.parametrize(
    ("word", "answer"),
    [
        ("administratively prohibited: open failed", "confirmed hpcproxy@127.0.0.1: refuses {}"),
        ("connect failed: No route to host", "confirmed hpcproxy@127.0.0.1: refuses {}"),
        ("connect failed: Permission denied", "confirmed hpcproxy@127.0.0.1: refuses {}"),
        ("connect failed: Network is unreachable", "confirmed hpcproxy@127.0.0.1: has no route to {}"),
        ("connect failed: Connection refused", "confirmed hpcproxy@127.0.0.1: reaches nobody at {}"),
        ("connect failed: Connection timed out", "confirmed hpcproxy@127.0.0.1: reaches nobody at {}"),
        ("", "breach hpcproxy@127.0.0.1: does not refuse {}"),
    ],
)
def test_only_a_port_that_opens_is_open(node: Node, word: str, answer: str) -> None:
    """`PermitOpen any` and no default route is no breach; and what was said of one target is not taken for the next."""
    refused = "connect failed: Connection refused"
    told = f'case $target in 127.0.0.1:22) w="{word}" ;; 127.0.0.1:1) w="{refused}" ;; 169*) w="" ;; *) exit 0 ;; esac'
    said = _check_key(node, f'{told}\n[ -z "$w" ] || echo "channel 0: open failed: $w" >>"$log"\nexit 255')
    assert answer.format("127.0.0.1:22") in said
    assert "breach hpcproxy@127.0.0.1: does not refuse 169.254.169.254:80" in said

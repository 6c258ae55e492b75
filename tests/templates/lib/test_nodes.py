"""Slurm's host lists as the node side expands them, held against ClusterShell; and the no_proxy list made from them."""

from __future__ import annotations

import ipaddress
import os
import socket
import subprocess
from pathlib import Path

import pytest
from ClusterShell.NodeSet import NodeSet
from hypothesis import given, settings
from hypothesis import strategies as st

from hpcproxy.files.render import TEMPLATES

NODES_SH = TEMPLATES / "lib" / "any" / "nodes.sh"

_names = st.text("abcxyz-._", min_size=1, max_size=4).map(lambda text: f"n{text}x")
_numbers = st.integers(0, 1200)


@st.composite
def _ranges(draw: st.DrawFn) -> str:
    """`3`, `007`, `1-3`, `008-012`: what Slurm writes between brackets."""
    low = draw(_numbers)
    width = draw(st.integers(len(str(low)), len(str(low)) + 2)) if draw(st.booleans()) else 0
    if draw(st.booleans()):
        return str(low).zfill(width)
    high = low + draw(st.integers(0, 12))
    # Slurm pads both ends alike: 008-012, never 8-012.
    return f"{str(low).zfill(width)}-{str(high).zfill(width)}"


_brackets = st.lists(_ranges(), min_size=1, max_size=3, unique=True).map(lambda ranges: f"[{','.join(ranges)}]")
_parts = st.one_of(
    _names,
    st.builds(lambda name, inside: name + inside, _names, _brackets),
    st.builds(
        lambda name, inside, tail: name + inside + tail, _names, _brackets, st.sampled_from(["-ib", ".site", "x"])
    ),
    st.builds(lambda a, one, b, two: a + one + b + two, _names, _brackets, _names, _brackets),
)
_lists = st.lists(_parts, min_size=1, max_size=4).map(",".join)


def _bash(script: str, *arguments: str, environ: dict[str, str] | None = None) -> list[str]:
    argv = ["bash", "-c", f'set -euo pipefail\n. "$0"\n{script}', str(NODES_SH), *arguments]
    done = subprocess.run(argv, capture_output=True, text=True, check=True, env=environ)
    assert done.stderr == ""
    return done.stdout.splitlines()


_EXPAND = """
for list; do
    nodes=() status=0
    expand_nodes "$list" || status=$?
    printf '%s\\n' "$status ${nodes[*]-}"
done
"""


@settings(max_examples=25)
@given(st.lists(_lists, min_size=20, max_size=20))
def test_lists_are_expanded_as_clustershell_does(lists: list[str]) -> None:
    for text, line in zip(lists, _bash(_EXPAND, *lists)):
        status, _, names = line.partition(" ")
        assert status == "0", text
        assert set(names.split()) == _expected(text), text


def _expected(text: str) -> set[str]:
    # One element at a time: folding several with different paddings into one set is ClusterShell's own affair.
    return {str(name) for part in _elements(text) for name in _one(part)}


def _one(part: str) -> list[str]:
    """Expand bracket by bracket, so that ClusterShell sees one range and one padding at a time."""
    if "[" not in part:
        return [part]
    head, _, rest = part.partition("[")
    inside, _, tail = rest.partition("]")
    return [
        name + after
        for item in inside.split(",")
        for name in (list(NodeSet(f"{head}[{item}]")))
        for after in (_one(tail) if tail else [""])
    ]


def _elements(text: str) -> list[str]:
    elements, depth = [""], 0
    for char in text:
        depth += (char == "[") - (char == "]")
        if char == "," and depth == 0:
            elements.append("")
        else:
            elements[-1] += char
    return elements


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("c1", "c1"),
        ("c[1-3]", "c1 c2 c3"),
        ("c[007-010]", "c007 c008 c009 c010"),
        ("c[08-09,11]", "c08 c09 c11"),
        ("c[1-3,007-009],login1,r[1-2]n[1-2]", "c1 c2 c3 c007 c008 c009 login1 r1n1 r1n2 r2n1 r2n2"),
        ("a-b.c_d", "a-b.c_d"),
        ("c[99-101]", "c99 c100 c101"),
    ],
)
def test_named_lists_in_order(text: str, names: str) -> None:
    assert _bash(_EXPAND, text) == [f"0 {names}"]


@pytest.mark.parametrize(
    "text",
    [
        "", ",", "a,", ",a", "a,,b", "c[1-2", "c1]", "c[1[2]]", "c][", "c[]", "c[1-]", "c[-1]", "c[a-b]", "c[1,]",
        "c[1-2-3]", "c[0-99999999]", "c[1-9999999999]", "a b", "a;b", "$(id)", "`id`", "a\nb", "*", "c[1-2]*", "a/b",
        "größe", "a'b", "c[,1]", "c[1,,2]",
    ],
)  # fmt: skip
def test_what_is_no_host_list_is_refused_and_runs_nothing(text: str, tmp_path: Path) -> None:
    (line,) = _bash(f"cd {tmp_path}\n" + _EXPAND, text)
    assert line.split(" ")[0] == "1"
    assert list(tmp_path.iterdir()) == []


def test_expansion_keeps_the_callers_word_splitting() -> None:
    script = _EXPAND + '\nwords="a b,c"; set -- $words; printf "%s\\n" "$#"'
    assert _bash(script, "c[1,3],d")[-1] == "2"


def test_a_big_list_is_expanded_whole() -> None:
    script = 'nodes=(); expand_nodes "$1"; printf "%s\\n" "${#nodes[@]}" "${nodes[0]}" "${nodes[-1]}"'
    assert _bash(script, "c[0001-4096]") == ["4096", "c0001", "c4096"]


# ------------------------------------------------------------------------------------------------ the job's nodes


def _stubs(directory: Path, **scripts: str) -> dict[str, str]:
    directory.mkdir(exist_ok=True)
    for name, text in scripts.items():
        (directory / name).write_text(f"#!/bin/sh\n{text}\n")
        (directory / name).chmod(0o755)
    return {**os.environ, "PATH": f"{directory}:{os.environ['PATH']}"}


_SHOW = 'job_nodes; printf "%s\\n" "${nodes[*]-}"'


def test_slurm_is_not_asked_for_a_list_of_the_usual_kind(tmp_path: Path) -> None:
    environ = _stubs(tmp_path, scontrol=f"touch {tmp_path}/asked")
    assert _bash(_SHOW, environ={**environ, "SLURM_JOB_NODELIST": "c[1-2]"}) == ["c1 c2"]
    assert _bash(_SHOW, environ={**environ, "SLURM_NODELIST": "c[3-4]"}) == ["c3 c4"]
    assert _bash(_SHOW, environ=environ) == [""]
    assert not (tmp_path / "asked").exists()


def test_slurm_is_asked_for_an_unknown_kind_and_not_believed_blindly(tmp_path: Path) -> None:
    environ = _stubs(tmp_path, scontrol='[ "$3" = "c[1-2:3]" ] && printf "%s\\n" c1 "c 2" "\\$(id)" "" c4')
    assert _bash(_SHOW, environ={**environ, "SLURM_JOB_NODELIST": "c[1-2:3]"}) == ["c1 c4"]
    environ = _stubs(tmp_path, scontrol="exit 1")
    assert _bash(_SHOW, environ={**environ, "SLURM_JOB_NODELIST": "c[1-2:3]"}) == [""]


# ------------------------------------------------------------------------------------------------ no_proxy

_LIST = 'no_proxy_list "$@"; printf "%s\\n" "$direct"'


def _direct(tmp_path: Path, nodelist: str, *arguments: str, getent: str = "exit 2") -> list[str]:
    environ = {**_stubs(tmp_path, getent=getent), "SLURM_JOB_NODELIST": nodelist}
    (line,) = _bash(_LIST, *arguments, environ=environ)
    return line.split(",")


_GETENT = """shift; [ "$1" = -- ] && shift
for name; do printf '10.0.0.%s     STREAM %s\\n10.0.0.%s     DGRAM\\n' "${name#c}" "$name" "${name#c}"; done
printf '127.0.1.1 STREAM x\\n::1 STREAM x\\n'"""


def test_the_list_names_the_nodes_their_addresses_and_the_rest(tmp_path: Path) -> None:
    direct = _direct(tmp_path, "c[1-3]", "", "a.example", ".b.example", getent=_GETENT)
    domain = _bash('cluster_domain; printf "%s\\n" "$domain"')[0]
    nodes = [name for node in ("c1", "c2", "c3") for name in ([node, f"{node}.{domain}"] if domain else [node])]
    addresses = ["10.0.0.1", "10.0.0.2", "10.0.0.3"]
    last = [f".{domain}"] if domain else []
    fixed = ["localhost", "127.0.0.1", "::1", "0.0.0.0", "127.0.1.1", "127.0.0.0/8", "localhost."]
    head = [*fixed, *nodes, *addresses]
    tail = [*last, ".local", "169.254.169.254", "a.example", ".b.example"]
    assert direct[: len(head)] == head
    assert direct[len(direct) - len(tail) :] == tail
    assert len(set(direct)) == len(direct)


def test_the_list_has_every_name_and_address_of_this_node(tmp_path: Path) -> None:
    """As the system's own programs tell them; link-local addresses are nobody's target without their interface."""
    direct = _direct(tmp_path, "c1", "")
    name = socket.gethostname()
    asked = subprocess.run(["hostname", "-I"], capture_output=True, text=True, check=True).stdout.split()
    assert {name, name.partition(".")[0], f"{name.partition('.')[0]}.", *asked} - {""} <= set(direct)
    for line in Path("/etc/hosts").read_text().splitlines()[:64]:
        address, *names = line.partition("#")[0].split() or [""]
        if address == "127.0.0.1":
            assert set(names) <= set(direct)


def test_addresses_are_read_as_the_kernel_writes_them_and_spelled_as_everybody_does(tmp_path: Path) -> None:
    trie = "".join(f"        |-- {a}\n           /{size} host {kind}\n" for a, size, kind in _TRIE)
    (tmp_path / "trie").write_text(f"Main:\n  +-- 0.0.0.0/0 3 0 5\n{trie}Local:\n{trie}")
    six = "".join(f"{int(ipaddress.IPv6Address(a)):032x} 02 40 {scope} 80 ib0\n" for a, scope in _SIX)
    (tmp_path / "six").write_text(six)
    text = NODES_SH.read_text()
    text = text.replace("/proc/net/fib_trie", f"{tmp_path}/trie").replace("/proc/net/if_inet6", f"{tmp_path}/six")
    (tmp_path / "nodes.sh").write_text(text)
    program = 'set -euo pipefail; . "$0"; own=(); own_addresses; printf "%s\\n" "${own[@]}"'
    done = subprocess.run(
        ["bash", "-c", program, str(tmp_path / "nodes.sh")], capture_output=True, text=True, check=True
    )
    fours = [address for address, size, kind in _TRIE if (size, kind) == (32, "LOCAL")]
    assert done.stdout.split() == [*fours, *(address for address, scope in _SIX if scope == "00")]


_TRIE = (("10.10.0.101", 32, "LOCAL"), ("10.10.0.0", 24, "UNICAST"), ("10.10.0.255", 32, "BROADCAST"),
         ("127.0.0.0", 8, "LOCAL"), ("127.0.0.1", 32, "LOCAL"), ("192.168.31.101", 32, "LOCAL"))  # fmt: skip
_SIX = (("fd00::1:0:0:5", "00"), ("fe80::1", "20"), ("2001:db8::", "00"), ("2001:db8:0:1:1:1:1:1", "00"),
        ("1::", "00"), ("2001:db8:1:1:1:1:1:1", "00"), ("1:2::7:0:0", "00"))  # fmt: skip


def test_private_networks_are_reached_directly_only_if_so_set(tmp_path: Path) -> None:
    networks = ["127.0.0.0/8", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"]
    assert [entry for entry in _direct(tmp_path, "c1", "1") if "/" in entry] == networks
    assert [entry for entry in _direct(tmp_path, "c1", "") if "/" in entry] == ["127.0.0.0/8"]


@pytest.mark.parametrize("nodelist", ["", "c1", "c[1-200]", "n.site.example,c[1-2]"])
def test_every_entry_is_of_a_kind_that_all_clients_take(nodelist: str, tmp_path: Path) -> None:
    for entry in _direct(tmp_path, nodelist, "1", "a.example", getent=_GETENT):
        assert entry
        assert not set(entry) & set("[]* \t\n'\"$")
        if ":" in entry:
            assert ipaddress.IPv6Address(entry)  # an address, never a port


def test_a_resolver_that_does_not_answer_costs_the_addresses_only(tmp_path: Path) -> None:
    direct = _direct(tmp_path, "c[1-2]", "", getent="exec sleep 600")
    assert {"c1", "c2", ".local"} <= set(direct)
    assert not {"10.0.0.1", "10.0.0.2"} & set(direct)


def test_a_list_too_long_for_one_variable_falls_back_to_the_fixed_entries(tmp_path: Path) -> None:
    direct = _direct(tmp_path, "a-rather-long-name-of-a-node[00001-04000]", "")
    assert direct[:4] == ["localhost", "127.0.0.1", "::1", "0.0.0.0"]
    assert len(",".join(direct)) < 1000

"""Over how long the first logins of a job's nodes are spread: the agent and the scripts reckon the same. One table."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

import hpcproxy
from hpcproxy.node.upstream.candidate import Spread
from tests.hostile import HOSTILE

LIBRARY = Path(hpcproxy.__file__).parent / "templates" / "lib"
# Nodes, jump hosts, logins a second to each of them, and the time in milliseconds.
SPREADS = [
    (1, 1, 32, 0),
    (8, 1, 1, 0),
    (9, 1, 32, 281),
    (9, 1, 1, 9_000),
    (100, 1, 32, 3_125),
    (100, 2, 32, 1_562),
    (100, 0, 32, 0),  # nobody logs in
    (512, 4, 8, 16_000),
    (120, 1, 1, 120_000),
    (121, 1, 1, 120_000),
    (9_999, 1, 1, 120_000),
]


def _in_shell(nodes: object, jumps: object, per_s: int) -> int:
    (part,) = LIBRARY.rglob("spread.sh")
    text = '. "$1"; logins_per_s=$2; spread "$3" "$4"; printf %d "$spread_ms"'
    argv = ["bash", "-euo", "pipefail", "-c", text, "bash", str(part), str(per_s), str(nodes), str(jumps)]
    return int(subprocess.run(argv, capture_output=True, text=True, check=True).stdout)


@pytest.mark.parametrize(("nodes", "jumps", "per_s", "spread_ms"), SPREADS)
def test_shell_and_agent_spread_alike(nodes: int, jumps: int, per_s: int, spread_ms: int) -> None:
    assert _in_shell(nodes, jumps, per_s) == spread_ms
    assert int(Spread("17", "c1", nodes, jumps, per_s).spread_s * 1000) == spread_ms


@pytest.mark.parametrize("value", [*HOSTILE, "0", "-9", "1000000", "9 9", "a[$(touch x)]"])
def test_what_is_no_number_spreads_nothing_and_runs_nothing(
    value: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert _in_shell(value, 1, 1) == 0
    assert value == "0" or _in_shell(100, value, 1) == 0
    assert list(tmp_path.iterdir()) == []

"""Each way in which a tunnel can fail has its own layer and reason, from a supervisor and from a probe alike."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from hpcproxy.openssh.reasons import FAILURES
from tests import ssh_at_hand
from tests.sshd import Sshd
from tests.supervisor import Supervisor, write_script
from tests.waiting import until
from tests.ways_of_signing import CASES
from tests.ways_to_fail import WITHOUT_LOG_VERBOSE


@pytest.mark.parametrize("name", CASES)
def test_each_way_to_fail_has_its_layer_and_reason(
    name: str, hold: Callable[..., Supervisor], jump_host: Sshd, tmp_path: Path
) -> None:
    with CASES[name](jump_host, tmp_path) as (*wanted, settings):
        poorer = {} if ssh_at_hand.knows("LogVerbose") else WITHOUT_LOG_VERBOSE
        layer, reason = poorer.get(name, wanted)
        supervisor = hold(**settings)
        probe = subprocess.run(
            ["/bin/bash", "-p", write_script(tmp_path / "probing", **settings), "probe"],
            capture_output=True,
            text=True,
            check=True,
            stdin=subprocess.DEVNULL,
        )
        jump = settings["jump"]
        (said,) = probe.stdout.splitlines()
        assert said.startswith(f"failed {layer} {jump}: ")
        assert reason in said
        assert probe.stderr == ""
        line = supervisor.line("failed", "ready")
        _verb, _node, rest = line.split(" ", 2)
        assert rest.startswith(f"{layer} {jump}: ")
        assert reason in rest
        assert (said + rest).isprintable()
        _gives_up_only_where_waiting_is_no_use(supervisor, layer, reason)


@pytest.mark.parametrize(
    ("line", "layer"),
    [
        ("Connection closed by UNKNOWN port 65535", "hop"),
        ("banner exchange: Connection to UNKNOWN port 65535: Broken pipe", "hop"),
        ("ssh_dispatch_run_fatal: Connection to UNKNOWN port 65535: Broken pipe", "hop"),
        ("packet_write_wait: Connection to UNKNOWN port 65535: Broken pipe", "hop"),
        ("banner exchange: Connection to 192.0.2.1 port 22: Broken pipe", "busy"),
    ],
)
def test_a_connection_that_ends_is_known_by_every_name_that_ssh_has_for_it(line: str, layer: str) -> None:
    """sshpkt_vfatal (packet.c) puts a word for the moment before some: which one comes is chance."""
    assert next(row.why.layer for row in FAILURES if not row.phase and re.search(row.pattern, line)) == layer


def _gives_up_only_where_waiting_is_no_use(supervisor: Supervisor, layer: str, reason: str) -> None:
    if layer in ("host-key", "key", "forwarding", "config") or "in common" in reason:
        assert f" {layer} " in supervisor.line("gave-up")
        assert supervisor.process.wait(20) == 0  # a step that fails would mark the job
        assert supervisor.left_behind() == []
    else:
        assert supervisor.process.poll() is None
        assert supervisor.status()["ready"] is False
        until(lambda: supervisor.status()["last_error"], "the status has the reason")

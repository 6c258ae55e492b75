"""Which slurm.conf a host's own daemon reads, where nobody has said one."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from hpcproxy.files.render import TEMPLATES

_ASK = '. "$0/lib/host/scontrol.sh"; daemon=$1; follow_daemon; code=$?; env | grep ^SLURM_CONF=; exit "$code"'


@pytest.mark.parametrize(
    ("words", "said", "found"),
    [
        (["-f", "/srv/slurm.conf"], "", "/srv/slurm.conf"),
        (["-D", "-f/srv/slurm.conf", "-v"], "", "/srv/slurm.conf"),
        (["-v"], "", ""),
        (["-f"], "", ""),
        (["-f", "/srv/slurm.conf"], "/etc/own.conf", "/etc/own.conf"),
        ([], "/etc/own.conf", "/etc/own.conf"),
    ],
)
def test_a_daemon_is_followed_unless_somebody_has_said_which(words: list[str], said: str, found: str) -> None:
    environ = {name: value for name, value in os.environ.items() if name != "SLURM_CONF"}
    if said:
        environ["SLURM_CONF"] = said
    argv = [sys.executable, "-c", "import sys; print(flush=True); sys.stdin.read()", *words]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as daemon:
        assert daemon.stdout is not None
        daemon.stdout.readline()
        ask = ["bash", "-c", _ASK, str(TEMPLATES), str(daemon.pid)]
        done = subprocess.run(ask, env=environ, capture_output=True, text=True, check=False)
        daemon.communicate()
    assert (done.stdout, done.stderr, done.returncode) == (f"SLURM_CONF={found}\n" if found else "", "", 0)

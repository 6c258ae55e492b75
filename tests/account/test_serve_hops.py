"""`serve` where hosts lie on the way to the node: the ssh of a hop, which ssh starts itself, ends with it."""

from __future__ import annotations

import contextlib
import subprocess
from pathlib import Path

import pytest

from tests import sshd
from tests.account.serving import JOB, NODE, Cluster, reaches
from tests.node.harness import FarEnd, echo
from tests.supervisor import children
from tests.waiting import until

SSH = "/usr/bin/ssh"


@pytest.mark.skipif(
    subprocess.run(["unshare", "-m", "true"], stderr=subprocess.DEVNULL, check=False).returncode != 0,
    reason="needs root, for a mount namespace",
)
def test_a_hop_whose_configuration_keeps_a_master_leaves_none(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("c")
    with sshd.running(folder / "near") as near, contextlib.closing(Cluster(folder / "c")) as cluster:
        _read_by_ssh_itself(cluster, near, folder / "master")
        agent = cluster.agent()
        serving = cluster.serve()
        until(lambda: any(line.startswith("ready ") for line in agent.lines()), cluster.said, 60)
        server = FarEnd(echo)
        assert reaches(agent, server)
        server.close()
        assert near.process is not None
        logins = near.process.pid
        assert children(logins)
        serving.terminate()
        assert serving.wait(30) == 0
        assert not (folder / "master").exists()
        until(lambda: not children(logins), "nobody is logged in to the hop any more")
        assert f"job {JOB}" in cluster.said()


def _read_by_ssh_itself(cluster: Cluster, near: sshd.Sshd, master: Path) -> None:
    """What `cluster` has for a configuration is the system's, with a hop before the node; ssh is no script."""
    known = cluster.sshd.known.read_text() + f"near {near.host_key}\n"
    cluster.sshd.known.write_text(known)
    config = cluster.folder / "ssh_config"
    config.write_text(
        f"Host {NODE}\n ProxyJump near\nHost near\n HostName 127.0.0.1\n HostKeyAlias near\n Port {near.port}\n"
        f" IdentityFile {near.identity}\n ControlMaster auto\n ControlPersist yes\n ControlPath {master}\n"
        f"Host *\n{config.read_text()}"
    )
    config.chmod(0o644)
    (cluster.bin / "ssh").unlink()
    (cluster.bin / "ssh").symlink_to(SSH)
    cluster.before = ("unshare", "-m", "sh", "-c", f'mount --bind {config} /etc/ssh/ssh_config && exec "$@"', "sh")

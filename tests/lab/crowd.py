"""Many addresses of one sshd in a network namespace, each with a file system of its own: hosts by the dozen.

No Slurm here; what a deployment does on a real cluster is tried in the lab.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from hpcproxy.cluster.inventory import expand
from tests.sshd import make_key

from .researcher import until

REPOSITORY = Path(__file__).resolve().parents[2]
JUMP = "192.0.2.1"

# A session's root is the host's own: an overlay on `/`. What this machine's root has in his .bashrc is not read.
_SESSION = """#!/bin/bash
read -r _ _ host _ <<<"$SSH_CONNECTION"
exec unshare --mount /bin/bash --norc -c '
mount -t overlay overlay -o lowerdir=/,upperdir="$0"/up,workdir="$0"/work "$0"/root &&
    mount --rbind /proc "$0"/root/proc && mount --rbind /dev "$0"/root/dev &&
    exec chroot "$0"/root /bin/bash --norc -c "$2$1"
' {hosts}/"$host" "$SSH_ORIGINAL_COMMAND" "$(cat {hosts}/"$host"/before 2>/dev/null)"
"""
_CONFIG = """
HostKey {work}/host_key
AuthorizedKeysFile {work}/id.pub
UsePAM no
StrictModes no
PermitRootLogin yes
PidFile none
UseDNS no
MaxStartups 1000
"""


@dataclass
class Crowd:
    """`hosts` listen when `listen` returns; processes of the test end with the namespace."""

    work: Path
    hosts: tuple[str, ...]
    namespace: subprocess.Popen[str]
    said: str = ""

    @property
    def store(self) -> Path:
        """The hosts' file systems, which are mounted in the namespace only, as they are seen from here."""
        return Path(f"/proc/{self.namespace.pid}/root{self.work}/hosts")

    def enter(self, argv: list[str]) -> list[str]:
        """What runs `argv` among the hosts."""
        return ["nsenter", f"--target={self.namespace.pid}", "--net", "--mount", *argv]

    def run(self, *argv: str) -> subprocess.CompletedProcess[str]:
        """`argv` has run in the namespaces."""
        return subprocess.run(self.enter(list(argv)), check=True, capture_output=True, text=True)

    @contextlib.contextmanager
    def serving(self, argv: list[str]) -> Iterator[None]:
        """A server runs for as long as the block lasts."""
        process = subprocess.Popen(
            self.enter(argv), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            yield
        finally:
            process.kill()
            process.wait()

    @contextlib.contextmanager
    def listening(self, hosts: tuple[str, ...], port: int = 22, more: str = "") -> Iterator[None]:
        """Real sshd serve `hosts`; one takes sixteen addresses."""
        with contextlib.ExitStack() as stack:
            for start in range(0, len(hosts), 16):
                some = hosts[start : start + 16]
                config = self.work / f"sshd_config-{port}-{start}"
                addresses = "".join(f"ListenAddress {host}:{port}\n" for host in some)
                session = more or f"ForceCommand {self.work}/session\n"
                config.write_text(_CONFIG.format(work=self.work) + addresses + session)
                log = str(self.work / f"log-{port}")
                stack.enter_context(self.serving(["/usr/sbin/sshd", "-D", "-E", log, "-f", str(config)]))
                until(lambda host=some[-1]: self._greets(host, port), f"sshd greets; its log: {log}")
            yield

    def _greets(self, host: str, port: int) -> bool:
        probe = f"exec 3<>/dev/tcp/{host}/{port} && read -r -t 5 line <&3 && [[ $line == SSH-* ]]"
        return subprocess.call(self.enter(["bash", "-c", probe]), stderr=subprocess.DEVNULL) == 0

    def describe(self, **inventory: Any) -> None:
        """The inventory is of all hosts, with these on top."""
        told = {"nodes": ",".join(self.hosts), "identity": str(self.work / "id"), "settings": {"jump": JUMP}}
        (self.work / "site.yaml").write_text(yaml.safe_dump({**told, **inventory}))

    def hpcproxy(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """The program has run; its exit code may be any."""
        command = [sys.executable, "-m", "hpcproxy", *arguments, "--inventory", str(self.work / "site.yaml")]
        return subprocess.run(
            self.enter(["env", f"PYTHONPATH={REPOSITORY}", *command]), capture_output=True, text=True, check=False
        )

    def outcomes(self, *arguments: str) -> dict[str, tuple[str, str]]:
        """Outcome and cause of every host."""
        report = self.work / "report.json"
        report.unlink(missing_ok=True)
        done = self.hpcproxy(*arguments, "--report", str(report))
        assert report.exists(), done.stderr
        self.said = done.stderr + done.stdout
        found = json.loads(report.read_text())
        assert done.returncode == (0 if found["good"] else 1)
        return {host["host"]: (host["outcome"], host["cause"]) for host in found["hosts"]}

    def files(self, host: str) -> list[str]:
        """What has been written on `host`."""
        up = self.store / host / "up"
        return sorted(str(path.relative_to(up)) for path in up.rglob("*") if path.is_file())

    def before_each_session(self, host: str, command: str) -> None:
        """Sessions of `host` begin with `command`."""
        (self.store / host / "before").write_text(f"{command}; ")

    def empty(self) -> None:
        """No host has anything."""
        for host in self.hosts:
            place = self.store / host
            shutil.rmtree(place, ignore_errors=True)
            for part in ("up", "work", "root"):
                (place / part).mkdir(parents=True)


@contextlib.contextmanager
def crowd(work: Path, count: int) -> Iterator[Crowd]:
    """Have `count` addresses for as long as the block lasts, on which nothing listens yet."""
    hosts = expand(f"10.99.0.[1-{count}]")
    for name in ("host_key", "id"):
        make_key(work / name)
    key = " ".join((work / "host_key.pub").read_text().split()[:2])
    names = (*hosts, JUMP, "[10.99.1.1]:2222")
    (work / "known_hosts").write_text("".join(f"{name} {key}\n" for name in names))
    (work / "session").write_text(_SESSION.format(hosts=work / "hosts"))
    (work / "session").chmod(0o755)
    Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
    addresses = "".join(f"ip address add {host}/32 dev lo; " for host in (*hosts, "10.99.1.1"))
    # What this machine's root has in his .bashrc is not what is tried here.
    quiet = "[ ! -e ~/.bashrc ] || mount --bind /dev/null ~/.bashrc; "
    disks = f"mkdir {work}/hosts; mount -t tmpfs none {work}/hosts; "
    ready = f"{quiet}{disks}ip link set lo up; {addresses}echo ready; exec cat"
    words = ["unshare", "--net", "--mount", "--propagation", "private", "sh", "-c", ready]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as namespace:
        assert namespace.stdout is not None
        assert namespace.stdout.readline() == "ready\n"
        found = Crowd(work, hosts, namespace)
        try:
            yield found
        finally:
            assert namespace.stdin is not None
            namespace.stdin.close()

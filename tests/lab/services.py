"""The stand-ins on the lab's internet: started there, found by name from the jump hosts only, and read afterwards."""

from __future__ import annotations

import json
import secrets
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hpcproxy.lab import Lab, Machine, sshd
from hpcproxy.lab.spec import INTERNET
from hpcproxy.lab.trust import CERTIFICATE, PRIVATE_KEY

from .standins import DOMAIN, PORT
from .standins.world import BOOK

REPOSITORY = Path(__file__).resolve().parents[2]
NAMES = (
    *("anthropic", "cas", "codex", "conda", "crates", "gcs", "gemini", "git", "go", "hub", "kaggle", "maven", "mlflow"),
    *("modelscope", "neptune", "npm", "oci", "openai", "pypi", "s3", "slack", "swanlab", "wandb", "www"),
)
_DIRECTORY = "/srv/standins"
_AUTHORIZED = "/etc/ssh/authorized_keys"


@dataclass(frozen=True)
class Services:
    """The services that run, the token that only they know, and what they wrote down."""

    lab: Lab
    token: str

    @property
    def book(self) -> list[dict[str, Any]]:
        """Every request and every fact, in order."""
        path = self.lab.path_on(INTERNET, f"{_DIRECTORY}/{BOOK}")
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    @property
    def ssh_log(self) -> str:
        """What the internet's sshd has logged."""
        return self.lab.path_on(INTERNET, sshd.LOG).read_text()

    @property
    def host_key(self) -> str:
        """The line of known_hosts for the internet's sshd."""
        words = self.lab.path_on(INTERNET, "/etc/ssh/ssh_host_ed25519_key.pub").read_text().split()
        return f"git.{DOMAIN} {words[0]} {words[1]}\n"


@contextmanager
def running(lab: Lab) -> Iterator[Services]:
    """The services run and the jump hosts know their names, as long as the block lasts."""
    internet = lab.machine(INTERNET)
    services = Services(lab, secrets.token_hex(20))
    internet.directory(_DIRECTORY)
    internet.put(f"{_DIRECTORY}/token", services.token)
    _make_repository(internet, services.token)
    _start_sshd(lab, internet)
    name(lab, internet, NAMES)
    argv = [sys.executable, "-m", "tests.lab.standins", _DIRECTORY, CERTIFICATE, PRIVATE_KEY, str(PORT)]
    with internet.popen(argv, env={"PYTHONPATH": str(REPOSITORY)}, stdout=subprocess.PIPE, cwd="/") as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            yield services
        finally:
            process.kill()
            sshd.stop(internet, sessions=True)


def name(lab: Lab, internet: Machine, names: Iterable[str]) -> None:
    """The jump hosts know the internet by `names` too, and nobody else does."""
    line = f"{internet.host.links[0].address} {' '.join(f'{name}.{DOMAIN}' for name in names)}\n"
    for jump in ("jump1", "jump2"):
        hosts = lab.path_on(jump, "/etc/hosts").read_text()
        lab.machine(jump).put("/etc/hosts", hosts.replace(line, "") + line)


def _make_repository(internet: Machine, token: str) -> None:
    """DIRECTORY/git/lab.git has one commit with the token in a file."""
    internet.put("/etc/gitconfig", "[safe]\n\tdirectory = *\n[user]\n\tname = lab\n\temail = lab@internet.test\n")
    script = f"""set -e
rm -rf work git
git init -q work
printf '%s\\n' {token} >work/token
git -C work add token
git -C work commit -q -m one
git clone -q --bare work git/lab.git
rm -rf work
"""
    internet.run(["sh", "-c", script], cwd=_DIRECTORY, check=True)


def _start_sshd(lab: Lab, internet: Machine) -> None:
    """alice's own key opens the internet's ssh server."""
    public = lab.path_on("login", "/home/alice/.ssh/id_ed25519.pub").read_text()
    internet.put(f"{_AUTHORIZED}/alice", public)
    sshd.stop(internet, sessions=True)
    sshd.configure(internet, {"AuthorizedKeysFile": f"{_AUTHORIZED}/%u", "MaxStartups": "200"})
    sshd.make_host_keys(internet)
    sshd.start(internet)

"""Serve all of it until a signal comes: python -m tests.lab.standins DIRECTORY CERTIFICATE KEY [PORT]."""

from __future__ import annotations

import sys
from pathlib import Path

from tests.lab.standins import PORT, git, hub, llm, npm, pypi, s3, swanlab, wandb, web
from tests.lab.standins.front import Front, listen
from tests.lab.standins.world import World

SERVICES = {
    "git": git.service,
    "hub": hub.service,
    "anthropic": llm.anthropic,
    "openai": llm.openai,
    "npm": npm.service,
    "pypi": pypi.service,
    "s3": s3.service,
    "swanlab": swanlab.service,
    "wandb": wandb.service,
    "www": web.service,
}


def main(directory: str, certificate: str, key: str, port: str = str(PORT)) -> None:
    """`ready` on stdout once the port listens."""
    world = World(Path(directory), (Path(directory) / "token").read_text().strip())
    services = {name: service(world) for name, service in SERVICES.items()}
    server = listen(Front(services, world), int(port), certificate, key)
    print("ready", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main(*sys.argv[1:])

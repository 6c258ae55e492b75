"""Serve all of it until a signal comes: python -m tests.lab.standins DIRECTORY CERTIFICATE KEY [PORT]."""

from __future__ import annotations

import sys
from pathlib import Path

from tests.lab.standins import (
    PORT,
    conda,
    crates,
    gcs,
    gemini,
    git,
    go,
    hub,
    kaggle,
    llm,
    maven,
    mlflow,
    modelscope,
    neptune,
    npm,
    oci,
    pypi,
    responses,
    s3,
    slack,
    swanlab,
    wandb,
    web,
    xet,
)
from tests.lab.standins.front import Front, listen
from tests.lab.standins.world import World

SERVICES = {
    "anthropic": llm.anthropic,
    "cas": xet.service,
    "codex": responses.service,
    "conda": conda.service,
    "crates": crates.service,
    "gcs": gcs.service,
    "gemini": gemini.service,
    "git": git.service,
    "go": go.service,
    "hub": hub.service,
    "kaggle": kaggle.service,
    "maven": maven.service,
    "mlflow": mlflow.service,
    "modelscope": modelscope.service,
    "neptune": neptune.service,
    "npm": npm.service,
    "oci": oci.service,
    "openai": llm.openai,
    "pypi": pypi.service,
    "s3": s3.service,
    "slack": slack.service,
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

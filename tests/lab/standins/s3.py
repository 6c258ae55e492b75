"""S3 as moto has it."""

from __future__ import annotations

import os

from tests.lab.standins.world import World


def service(world: World) -> object:
    """moto's server with one bucket, `lab`, in which `token` is the token."""
    # The service's own name is no bucket's; moto reads this at import.
    os.environ["S3_IGNORE_SUBDOMAIN_BUCKETNAME"] = "true"
    os.environ.update(AWS_ACCESS_KEY_ID="lab", AWS_SECRET_ACCESS_KEY="lab", AWS_DEFAULT_REGION="us-east-1")  # noqa: S106
    from moto.moto_server.werkzeug_app import create_backend_app  # noqa: PLC0415
    from moto.s3.models import s3_backends  # noqa: PLC0415

    backend = s3_backends["123456789012"]["aws"]
    backend.create_bucket("lab", "us-east-1")
    backend.put_object("lab", "token", f"{world.token}\n".encode())
    return create_backend_app("s3")

"""A registry of container images (OCI distribution specification) with one, `lab:1`, whose only file is the token."""

from __future__ import annotations

import gzip
import hashlib
import json

from werkzeug.wrappers import Request, Response

from tests.lab.standins.crates import pack
from tests.lab.standins.world import World

_IMAGE = "application/vnd.oci.image"


def service(world: World) -> object:
    """GET and HEAD of /v2/, the manifest and the blobs."""
    layer = pack({"token": f"{world.token}\n"})
    difference = _digest(gzip.decompress(layer))
    root = {"type": "layers", "diff_ids": [difference]}
    config = json.dumps({"architecture": "amd64", "os": "linux", "config": {}, "rootfs": root}).encode()
    manifest = {
        "schemaVersion": 2,
        "mediaType": f"{_IMAGE}.manifest.v1+json",
        "config": _described(f"{_IMAGE}.config.v1+json", config),
        "layers": [_described(f"{_IMAGE}.layer.v1.tar+gzip", layer)],
    }
    shown = json.dumps(manifest).encode()
    files = {f"/v2/lab/manifests/{name}": (shown, manifest["mediaType"]) for name in ("1", _digest(shown))}
    files |= {f"/v2/lab/blobs/{_digest(blob)}": (blob, "application/octet-stream") for blob in (layer, config)}

    @Request.application
    def answer(request: Request) -> Response:
        if request.path == "/v2/":
            return Response("{}", mimetype="application/json")
        if request.method not in ("GET", "HEAD") or request.path not in files:
            return Response('{"errors": [{"code": "NAME_UNKNOWN"}]}', 404, mimetype="application/json")
        content, kind = files[request.path]
        return Response(content, headers={"Docker-Content-Digest": _digest(content)}, content_type=str(kind))

    return answer


def _described(kind: str, content: bytes) -> dict[str, object]:
    return {"mediaType": kind, "digest": _digest(content), "size": len(content)}


def _digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"

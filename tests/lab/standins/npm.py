"""An npm registry with one package, `labpackage`, that exports the token."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import tarfile

from werkzeug.wrappers import Request, Response

from tests.lab.standins import DOMAIN, PORT
from tests.lab.standins.world import World

_TARBALL = "/labpackage/-/labpackage-1.0.0.tgz"


def service(world: World) -> object:
    """GET /labpackage and its archive."""
    archive = _pack({"package.json": '{"name": "labpackage", "version": "1.0.0"}', "index.js": _module(world.token)})
    integrity = "sha512-" + base64.b64encode(hashlib.sha512(archive).digest()).decode()
    dist = {"tarball": f"https://npm.{DOMAIN}:{PORT}{_TARBALL}", "integrity": integrity}
    version = {"name": "labpackage", "version": "1.0.0", "dist": dist}
    document = {"name": "labpackage", "dist-tags": {"latest": "1.0.0"}, "versions": {"1.0.0": version}}

    @Request.application
    def answer(request: Request) -> Response:
        if request.method == "GET" and request.path == "/labpackage":
            return Response(json.dumps(document), mimetype="application/json")
        if request.method == "GET" and request.path == _TARBALL:
            return Response(archive, mimetype="application/octet-stream")
        return Response("{}", 404, mimetype="application/json")

    return answer


def _module(token: str) -> str:
    return f"module.exports = {json.dumps(token)};\n"


def _pack(files: dict[str, str]) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        for name, text in files.items():
            entry = tarfile.TarInfo(f"package/{name}")
            entry.size = len(text)
            entry.mode = 0o644
            archive.addfile(entry, io.BytesIO(text.encode()))
    return packed.getvalue()

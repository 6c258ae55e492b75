"""The Hugging Face Hub as far as hf_hub_download and HfApi.model_info go: one model, a file of its own, one in Xet."""

from __future__ import annotations

import hashlib
import json

from werkzeug.wrappers import Request, Response

from tests.lab.standins import DOMAIN, PORT, xet
from tests.lab.standins.world import World

COMMIT = hashlib.sha1(b"lab/model", usedforsecurity=False).hexdigest()
FILE, LARGE = "token.txt", "large.bin"
_RENEWAL = f"/api/models/lab/model/xet-read-token/{COMMIT}"


def service(world: World) -> object:
    """GET /api/models/lab/model, HEAD and GET of its files at `main` and at the commit, and the key to Xet."""
    content = f"{world.token}\n".encode()
    info = {"id": "lab/model", "sha": COMMIT, "siblings": [{"rfilename": FILE}], "private": False, "tags": []}
    files = {f"/lab/model/resolve/{revision}/{file}": file for revision in ("main", COMMIT) for file in (FILE, LARGE)}
    in_xet = {"X-Xet-Hash": xet.HASH, "X-Xet-Refresh-Route": f"https://hub.{DOMAIN}:{PORT}{_RENEWAL}"}
    key = {"X-Xet-Cas-Url": xet.URL, "X-Xet-Access-Token": "lab", "X-Xet-Token-Expiration": "4000000000"}

    @Request.application
    def answer(request: Request) -> Response:
        if request.method == "GET" and request.path in ("/api/models/lab/model", "/api/models/lab/model/revision/main"):
            return Response(json.dumps(info), mimetype="application/json")
        if request.method in ("GET", "HEAD") and request.path in files:
            response = Response(content, mimetype="text/plain")
            response.headers["X-Repo-Commit"] = COMMIT
            if files[request.path] == LARGE:
                response.headers.update(
                    {**in_xet, "X-Linked-Size": str(len(content)), "X-Linked-Etag": f'"{xet.HASH}"'}
                )
            response.set_etag(hashlib.sha1(content, usedforsecurity=False).hexdigest())
            return response
        if request.method == "GET" and request.path == _RENEWAL:
            return Response("{}", headers=key, mimetype="application/json")
        return Response("{}", 404, {"X-Error-Code": "EntryNotFound"}, mimetype="application/json")

    return answer

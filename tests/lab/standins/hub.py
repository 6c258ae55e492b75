"""The Hugging Face Hub as far as hf_hub_download and HfApi.model_info go, with one model: lab/model."""

from __future__ import annotations

import hashlib
import json

from werkzeug.wrappers import Request, Response

from tests.lab.standins.world import World

COMMIT = hashlib.sha1(b"lab/model", usedforsecurity=False).hexdigest()
FILE = "token.txt"


def service(world: World) -> object:
    """GET /api/models/lab/model, HEAD and GET of its one file at `main` and at the commit."""
    content = f"{world.token}\n".encode()
    info = {"id": "lab/model", "sha": COMMIT, "siblings": [{"rfilename": FILE}], "private": False, "tags": []}
    files = {f"/lab/model/resolve/{revision}/{FILE}" for revision in ("main", COMMIT)}

    @Request.application
    def answer(request: Request) -> Response:
        if request.method == "GET" and request.path in ("/api/models/lab/model", "/api/models/lab/model/revision/main"):
            return Response(json.dumps(info), mimetype="application/json")
        if request.method in ("GET", "HEAD") and request.path in files:
            response = Response(content, mimetype="text/plain")
            response.headers["X-Repo-Commit"] = COMMIT
            response.set_etag(hashlib.sha1(content, usedforsecurity=False).hexdigest())
            return response
        return Response("{}", 404, {"X-Error-Code": "EntryNotFound"}, mimetype="application/json")

    return answer

"""ModelScope's hub with one model, `lab/model`, of one file."""

from __future__ import annotations

import hashlib
import json

from werkzeug.wrappers import Request, Response

from tests.lab.standins.world import World

FILE = "token.txt"
_REPO = "/api/v1/models/lab/model/repo"


def service(world: World) -> object:
    """GET of the list of files with their digests, and of the file; no store is nearer (modelscope_hub, its client)."""
    content = f"{world.token}\n".encode()
    file = {"Path": FILE, "Name": FILE, "Type": "blob", "Size": len(content)}
    listed = {"Files": [{**file, "Sha256": hashlib.sha256(content).hexdigest(), "Revision": "1"}]}
    told: dict[str, object] = {f"{_REPO}/files": listed, "/api/v1/repos/internalAccelerationInfo": {}}

    @Request.application
    def answer(request: Request) -> Response:
        if request.method == "GET" and request.path in told:
            return _json({"Code": 200, "Success": True, "Message": "success", "Data": told[request.path]})
        if (request.method, request.path, request.args.get("FilePath")) == ("GET", _REPO, FILE):
            response = Response(content, mimetype="application/octet-stream")
            return response.make_conditional(request, accept_ranges=True, complete_length=len(content))
        world.write(kind="unknown", service="modelscope", line=f"{request.method} {request.full_path}")
        return _json({"Code": 404, "Success": False, "Message": "not known here"}, 404)

    return answer


def _json(value: object, status: int = 200) -> Response:
    return Response(json.dumps(value), status, mimetype="application/json")

"""Google Cloud Storage (its JSON API, v1) with one bucket, `lab`, in which `token` is the token."""

from __future__ import annotations

import json

from werkzeug.wrappers import Request, Response

from tests.lab.standins.world import World

_OBJECT = "/storage/v1/b/lab/o/token"


def service(world: World) -> object:
    """GET of the object's facts, and of the object with alt=media, in parts too."""
    content = f"{world.token}\n"
    facts = {"kind": "storage#object", "bucket": "lab", "name": "token", "size": str(len(content)), "generation": "1"}

    @Request.application
    def answer(request: Request) -> Response:
        if request.method != "GET" or request.path.removeprefix("/download") != _OBJECT:
            return Response('{"error": {"code": 404, "message": "not known here"}}', 404, mimetype="application/json")
        if request.args.get("alt") != "media":
            return Response(json.dumps(facts), mimetype="application/json")
        return Response(content).make_conditional(request, accept_ranges=True, complete_length=len(content))

    return answer

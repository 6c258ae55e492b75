"""Slack's Web API as far as one message goes."""

from __future__ import annotations

import json

from werkzeug.wrappers import Request, Response

from tests.lab.standins.world import World


def service(world: World) -> object:
    """POST /api/chat.postMessage; the message comes back with the token for its text."""
    message = {"type": "message", "text": world.token, "ts": "1.1"}

    @Request.application
    def answer(request: Request) -> Response:
        if (request.method, request.path) != ("POST", "/api/chat.postMessage"):
            return Response('{"ok": false, "error": "unknown_method"}', mimetype="application/json")
        return Response(
            json.dumps({"ok": True, "channel": "C1", "ts": "1.1", "message": message}), mimetype="application/json"
        )

    return answer

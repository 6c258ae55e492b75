"""Google's Gemini API: one model that says the token."""

from __future__ import annotations

import json
import re

from werkzeug.wrappers import Request, Response

from tests.lab.standins.world import World

_PATH = r"/v1(beta)?/models/[^/:]+:(streamGenerateContent|generateContent|countTokens)"


def service(world: World) -> object:
    """POST /v1beta/models/MODEL:streamGenerateContent and its siblings (ai.google.dev, API reference)."""
    content = {"role": "model", "parts": [{"text": world.token}]}
    usage = {"promptTokenCount": 1, "candidatesTokenCount": 1, "totalTokenCount": 2}
    said = {"candidates": [{"content": content, "finishReason": "STOP", "index": 0}], "usageMetadata": usage}

    @Request.application
    def answer(request: Request) -> Response:
        asked = re.fullmatch(_PATH, request.path)
        if request.method != "POST" or asked is None or not request.get_json().get("contents"):
            return Response('{"error": {"code": 404, "message": "not known here"}}', 404, mimetype="application/json")
        if asked[2] == "countTokens":
            return Response('{"totalTokens": 1}', mimetype="application/json")
        if asked[2] == "streamGenerateContent":
            return Response(f"data: {json.dumps(said)}\r\n\r\n", mimetype="text/event-stream")
        return Response(json.dumps(said), mimetype="application/json")

    return answer

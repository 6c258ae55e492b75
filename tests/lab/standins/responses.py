"""OpenAI's Responses API, as a stream of events over HTTP and over a WebSocket: what codex speaks."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from werkzeug.wrappers import Request, Response

from tests.lab.standins.websocket import converse
from tests.lab.standins.world import World

_PATH = "/v1/responses"
_NEEDED = {"model": str, "input": list, "tools": list}


def service(world: World) -> object:
    """POST /v1/responses with stream=true; GET upgraded, with a response.create in each message."""

    @Request.application
    def answer(request: Request) -> Response:
        if (request.method, request.path) == ("POST", _PATH):
            asked = request.get_json()
            wrong = _wrong(asked) or ("" if asked.get("stream") is True else "stream is not true")
            if wrong:
                return _refused(wrong)
            lines = (f"event: {event['type']}\ndata: {json.dumps(event)}\n\n" for event in _events(world.token))
            return Response(lines, mimetype="text/event-stream")
        if (request.method, request.path) == ("GET", _PATH) and request.headers.get("Upgrade", "") == "websocket":
            if "responses_websockets=" not in request.headers.get("OpenAI-Beta", ""):
                return _refused("no OpenAI-Beta: responses_websockets=")
            return converse(request, lambda text: _told(text, world.token))
        return Response('{"error": {"message": "not known here"}}', 404, mimetype="application/json")

    return answer


def _told(text: str, token: str) -> Iterator[str]:
    asked = json.loads(text)
    wrong = _wrong(asked) or ("" if asked.get("type") == "response.create" else f"{asked.get('type')}: not known here")
    if wrong:
        error = {"type": "invalid_request_error", "message": wrong}
        yield json.dumps({"type": "error", "status": 400, "error": error})
        return
    # A request that generates nothing only opens the connection beforehand.
    yield from (json.dumps(event) for event in _events(token if asked.get("generate", True) else ""))


def _wrong(asked: dict[str, Any]) -> str:
    return ", ".join(
        f"{name} is no {kind.__name__}" for name, kind in _NEEDED.items() if type(asked.get(name)) is not kind
    )


def _refused(why: str) -> Response:
    return Response(
        json.dumps({"error": {"type": "invalid_request_error", "message": why}}), 400, mimetype="application/json"
    )


def _events(text: str) -> Iterator[dict[str, Any]]:
    """developers.openai.com, API reference, streaming events of a response."""
    yield {"type": "response.created", "response": {"id": "r1", "object": "response", "status": "in_progress"}}
    if text:
        content = {"type": "output_text", "text": text, "annotations": []}
        item = {"type": "message", "id": "m1", "role": "assistant", "status": "completed", "content": [content]}
        empty = {**item, "status": "in_progress", "content": []}
        yield {"type": "response.output_item.added", "output_index": 0, "item": empty}
        yield {
            "type": "response.output_text.delta",
            "item_id": "m1",
            "output_index": 0,
            "content_index": 0,
            "delta": text,
        }
        yield {"type": "response.output_item.done", "output_index": 0, "item": item}
    usage = {"input_tokens": 1, "output_tokens": 1, "total_tokens": 2}
    details = {"input_tokens_details": {"cached_tokens": 0}, "output_tokens_details": {"reasoning_tokens": 0}}
    ended = {"id": "r1", "object": "response", "status": "completed", "output": [], "usage": {**usage, **details}}
    yield {"type": "response.completed", "response": ended}

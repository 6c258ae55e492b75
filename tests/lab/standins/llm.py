"""Two language models that say the token, word for word as they speak over the wire: as server-sent events."""

from __future__ import annotations

import json
from collections.abc import Iterator

from werkzeug.wrappers import Request, Response

from tests.lab.standins.world import World

_PIECE = 8


def openai(world: World) -> object:
    """POST /v1/chat/completions with stream=true (platform.openai.com, API reference, streaming)."""

    def events() -> Iterator[str]:
        same = {"id": "c1", "object": "chat.completion.chunk", "created": 1, "model": "lab"}
        for piece in _pieces(world.token):
            choice = {"index": 0, "delta": {"role": "assistant", "content": piece}, "finish_reason": None}
            yield f"data: {json.dumps({**same, 'choices': [choice]})}\n\n"
        ending = {"index": 0, "delta": {}, "finish_reason": "stop"}
        yield f"data: {json.dumps({**same, 'choices': [ending]})}\n\ndata: [DONE]\n\n"

    return _model("/v1/chat/completions", events)


def anthropic(world: World) -> object:
    """POST /v1/messages with stream=true (docs.anthropic.com, streaming messages)."""

    def events() -> Iterator[str]:
        usage = {"input_tokens": 1, "output_tokens": 1}
        message = {"id": "m1", "type": "message", "role": "assistant", "model": "lab", "content": [], "usage": usage}
        yield _event("message_start", message={**message, "stop_reason": None, "stop_sequence": None})
        yield _event("content_block_start", index=0, content_block={"type": "text", "text": ""})
        for piece in _pieces(world.token):
            yield _event("content_block_delta", index=0, delta={"type": "text_delta", "text": piece})
        yield _event("content_block_stop", index=0)
        yield _event("message_delta", delta={"stop_reason": "end_turn", "stop_sequence": None}, usage=usage)
        yield _event("message_stop")

    return _model("/v1/messages", events)


def _model(path: str, events: object) -> object:
    @Request.application
    def answer(request: Request) -> Response:
        if (request.method, request.path) == ("POST", path) and request.get_json().get("stream"):
            return Response(events(), mimetype="text/event-stream")  # type: ignore[operator]
        return Response('{"error": {"message": "not known here"}}', 404, mimetype="application/json")

    return answer


def _pieces(token: str) -> list[str]:
    return [token[at : at + _PIECE] for at in range(0, len(token), _PIECE)]


def _event(kind: str, **fields: object) -> str:
    return f"event: {kind}\ndata: {json.dumps({'type': kind, **fields})}\n\n"

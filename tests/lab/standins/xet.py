"""The content-addressed storage behind the Hugging Face Hub (huggingface.co/docs/xet) with one file of one chunk."""

from __future__ import annotations

import hashlib
import json
import struct

from werkzeug.wrappers import Request, Response

from tests.lab.standins import DOMAIN, PORT
from tests.lab.standins.world import World

HASH = hashlib.sha256(b"lab/model").hexdigest()
URL = f"https://cas.{DOMAIN}:{PORT}"


def content(token: str) -> bytes:
    """Return the file."""
    return f"{token}\n".encode()


def service(world: World) -> object:
    """GET of the file's reconstruction, with the access token that the hub gives, and of the xorb."""
    data = content(world.token)
    size = struct.pack("<I", len(data))[:3]
    chunk = b"\0" + size + b"\0" + size + data  # version 0, length, uncompressed, length
    fetched = {"range": {"start": 0, "end": 1}, "url": f"{URL}/xorb", "url_range": {"start": 0, "end": len(chunk) - 1}}
    terms = [{"hash": HASH, "unpacked_length": len(data), "range": {"start": 0, "end": 1}}]
    how = {"offset_into_first_range": 0, "terms": terms, "fetch_info": {HASH: [fetched]}}

    @Request.application
    def answer(request: Request) -> Response:
        if request.path == f"/v1/reconstructions/{HASH}" and request.headers.get("Authorization") == "Bearer lab":
            return Response(json.dumps(how), mimetype="application/json")
        if request.path == "/xorb":
            return Response(chunk, mimetype="application/octet-stream").make_conditional(
                request, accept_ranges=True, complete_length=len(chunk)
            )
        return Response("not known here\n", 404)

    return answer

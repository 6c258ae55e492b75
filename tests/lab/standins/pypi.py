"""A package index as PEP 503 has it, with one wheel: `labwheel`, whose TOKEN is the token."""

from __future__ import annotations

import hashlib
import io
import zipfile

from werkzeug.wrappers import Request, Response

from tests.lab.standins.world import World

WHEEL = "labwheel-1.0-py3-none-any.whl"
_METADATA = "Metadata-Version: 2.1\nName: labwheel\nVersion: 1.0\n"
_WHEEL = "Wheel-Version: 1.0\nGenerator: lab\nRoot-Is-Purelib: true\nTag: py3-none-any\n"


def service(world: World) -> object:
    """GET /simple/labwheel/ and the wheel."""
    wheel = _build(world.token)
    digest = hashlib.sha256(wheel).hexdigest()
    page = f'<!DOCTYPE html><html><body><a href="/files/{WHEEL}#sha256={digest}">{WHEEL}</a></body></html>'

    @Request.application
    def answer(request: Request) -> Response:
        if request.method == "GET" and request.path == "/simple/labwheel/":
            return Response(page, mimetype="text/html")
        if request.method == "GET" and request.path == f"/files/{WHEEL}":
            return Response(wheel, mimetype="application/octet-stream")
        return Response("not found\n", 404)

    return answer


def _build(token: str) -> bytes:
    files = {
        "labwheel.py": f"TOKEN = {token!r}\n",
        "labwheel-1.0.dist-info/METADATA": _METADATA,
        "labwheel-1.0.dist-info/WHEEL": _WHEEL,
    }
    record = "".join(f"{name},,\n" for name in (*files, "labwheel-1.0.dist-info/RECORD"))
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name, text in {**files, "labwheel-1.0.dist-info/RECORD": record}.items():
            archive.writestr(name, text)
    return packed.getvalue()

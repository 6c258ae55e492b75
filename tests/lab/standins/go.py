"""A Go module proxy (go.dev/ref/mod, GOPROXY protocol) with one module, `lab.test/token`."""

from __future__ import annotations

import io
import json
import zipfile

from werkzeug.wrappers import Request, Response

from tests.lab.standins.world import World

_MODULE, _VERSION = "lab.test/token", "v1.0.0"


def service(world: World) -> object:
    """GET of the list, the facts, go.mod and the archive."""
    mod = f"module {_MODULE}\n"
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name, text in {"go.mod": mod, "token.txt": f"{world.token}\n", "token.go": "package token\n"}.items():
            archive.writestr(f"{_MODULE}@{_VERSION}/{name}", text)
    facts = json.dumps({"Version": _VERSION, "Time": "2026-01-01T00:00:00Z"})
    files = {
        "list": f"{_VERSION}\n".encode(),
        f"{_VERSION}.info": facts.encode(),
        f"{_VERSION}.mod": mod.encode(),
        f"{_VERSION}.zip": packed.getvalue(),
    }

    @Request.application
    def answer(request: Request) -> Response:
        found = files.get(request.path.removeprefix(f"/{_MODULE}/@v/"))
        return Response("not found\n", 404) if found is None else Response(found)

    return answer

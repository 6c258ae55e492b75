"""A web server: the token, as text, as a table and as a film."""

from __future__ import annotations

from werkzeug.wrappers import Request, Response

from tests.lab.standins.world import World


def service(world: World) -> object:
    """GET and HEAD of /token, /token.csv and /token.mp4, in parts too."""
    files = {
        "/token": (f"{world.token}\n", "text/plain"),
        "/token.csv": (f"token\n{world.token}\n", "text/csv"),
        "/token.mp4": (f"{world.token}\n", "video/mp4"),
    }

    @Request.application
    def answer(request: Request) -> Response:
        if request.method not in ("GET", "HEAD") or request.path not in files:
            return Response("not found\n", 404)
        text, kind = files[request.path]
        response = Response(text, mimetype=kind)
        return response.make_conditional(request, accept_ranges=True, complete_length=len(text))

    return answer

"""A web server: the token."""

from __future__ import annotations

from werkzeug.wrappers import Request, Response

from tests.lab.standins.world import World


def service(world: World) -> object:
    """GET /token"""

    @Request.application
    def answer(request: Request) -> Response:
        if (request.method, request.path) == ("GET", "/token"):
            return Response(f"{world.token}\n")
        return Response("not found\n", 404)

    return answer

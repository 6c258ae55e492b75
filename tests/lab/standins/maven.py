"""A Maven repository with one parent, `test.lab:parent:1`, whose description is the token."""

from __future__ import annotations

import hashlib

from werkzeug.wrappers import Request, Response

from tests.lab.standins.world import World

_PATH = "/test/lab/parent/1/parent-1.pom"
_POM = """<project>
  <modelVersion>4.0.0</modelVersion>
  <groupId>test.lab</groupId><artifactId>parent</artifactId><version>1</version><packaging>pom</packaging>
  <description>TOKEN</description>
</project>
"""


def service(world: World) -> object:
    """GET of the POM and its digest."""
    pom = _POM.replace("TOKEN", world.token).encode()
    files = {_PATH: pom, f"{_PATH}.sha1": hashlib.sha1(pom, usedforsecurity=False).hexdigest().encode()}

    @Request.application
    def answer(request: Request) -> Response:
        found = files.get(request.path)
        return Response("not found\n", 404) if found is None else Response(found)

    return answer

"""SwanLab's cloud as far as init, log and finish go; what was logged is written into the book."""

from __future__ import annotations

import datetime as dt
import json
import re
from collections.abc import Callable

from werkzeug.wrappers import Request, Response

from tests.lab.standins.world import World

USER = "alice"
_PROJECT = {"cuid": "p1", "name": "lab", "version": 1, "visibility": "PRIVATE", "path": f"/{USER}/lab"}


def service(world: World) -> object:
    """The endpoints below /api."""
    cloud = _Cloud(world)
    return Request.application(cloud.answer)


class _Cloud:
    """One user, one project, one experiment."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.created = False
        self.routes: tuple[tuple[str, Callable[[Request], Response]], ...] = (
            (r"POST /api/login/api_key", self.log_in),
            (r"GET /api/project/alice/lab", self.project),
            (r"POST /api/projects/alice", self.create_project),
            (r"POST /api/project/alice/lab/experiment", self.create_experiment),
            (r"POST /api/house/metrics", self.metrics),
            (r"POST /api/house/experiments/[^/]+/heartbeat", self.fine),
            (r"PUT /api/project/alice/lab/runs/[^/]+/(profile|state)", self.fine),
            (r"POST /api/projects/alice/lab/series", self.fine),
        )

    def answer(self, request: Request) -> Response:
        """By the first route that fits; 501 where none does."""
        line = f"{request.method} {request.path}"
        for pattern, action in self.routes:
            if re.fullmatch(pattern, line):
                return action(request)
        self.world.write(kind="unknown", service="swanlab", line=line)
        return _json({"message": f"{line}: not known here"}, 501)

    def log_in(self, request: Request) -> Response:
        if request.headers.get("authorization") != self.world.token:
            return _json({"message": "no such key"}, 401)
        later = dt.datetime.now(dt.timezone.utc) + dt.timedelta(days=30)
        user = {"username": USER, "name": USER}
        return _json({"sid": "s1", "expiredAt": later.strftime("%Y-%m-%dT%H:%M:%S.000Z"), "userInfo": user})

    def project(self, _: Request) -> Response:
        if not self.created:
            return _json({"message": "no such project"}, 404)
        group = {"type": "PERSON", "username": USER, "name": USER, "status": "ENABLED"}
        counts = {"experiments": 0, "contributors": 1, "collaborators": 1, "runningExps": 0}
        return _json({**_PROJECT, "group": group, "_count": counts})

    def create_project(self, _: Request) -> Response:
        self.created = True
        return _json(_PROJECT, 201)

    def create_experiment(self, _: Request) -> Response:
        return _json({"cuid": "e1", "slug": "e1", "name": "lab"}, 201)

    def metrics(self, request: Request) -> Response:
        self.world.write(
            kind="logged", service="swanlab", address=request.remote_addr, text=request.get_data(as_text=True)
        )
        return self.fine(request)

    def fine(self, _: Request) -> Response:
        return _json({})


def _json(value: object, status: int = 200) -> Response:
    return Response(json.dumps(value), status, mimetype="application/json")

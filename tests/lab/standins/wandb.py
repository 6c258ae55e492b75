"""Weights & Biases' cloud as far as init, log and finish go; what was logged is written into the book."""

from __future__ import annotations

import json
import re
from typing import Any

from werkzeug.wrappers import Request, Response

from tests.lab.standins import DOMAIN, PORT
from tests.lab.standins.world import World

USER = "alice"


def service(world: World) -> object:
    """/graphql, the file stream and uploads."""
    cloud = _Cloud(world)
    return Request.application(cloud.answer)


class _Cloud:
    """One user, one project; a run by any name."""

    def __init__(self, world: World) -> None:
        self.world = world

    def answer(self, request: Request) -> Response:
        """401 without the token as key, 501 for what is not known."""
        line = f"{request.method} {request.path}"
        # Presigned uploads and the client's own telemetry come without the key.
        if re.fullmatch(r"PUT /upload/[^/]+|POST /sdk/otel/v1/(metrics|logs|traces)", line):
            return Response("")
        if request.authorization is None or request.authorization.password != self.world.token:
            return _json({"errors": [{"message": "no such key"}]}, 401)
        if line == "POST /graphql":
            return self.graphql(request)
        if re.fullmatch(r"POST /files/alice/lab/[^/]+/file_stream", line):
            text = request.get_data(as_text=True)
            self.world.write(kind="logged", service="wandb", address=request.remote_addr, text=text)
            return _json({})
        return self.unknown(line)

    def unknown(self, what: str) -> Response:
        self.world.write(kind="unknown", service="wandb", line=what)
        return _json({"errors": [{"message": f"{what}: not known here"}]}, 501)

    def graphql(self, request: Request) -> Response:
        """The answer to one operation, by the field that it asks for."""
        asked = request.get_json()
        variables = asked.get("variables") or {}
        for field, answer in _FIELDS.items():
            if re.search(rf"\b{field}\b", asked["query"]):
                return _json({"data": {field: answer(variables)}})
        return self.unknown(f"graphql {asked['query']}")


def _viewer(_: dict[str, Any]) -> dict[str, Any]:
    return {"id": "u1", "entity": USER, "username": USER, "email": "", "flags": "{}", "teams": {"edges": []}}


def _bucket(variables: dict[str, Any]) -> dict[str, Any]:
    project = {"id": "p1", "name": "lab", "entity": {"id": "u1", "name": USER}}
    run = {"id": "r1", "name": variables.get("name"), "displayName": "lab", "description": "", "config": "{}"}
    return {"bucket": {**run, "sweepName": None, "historyLineCount": 0, "project": project}, "inserted": True}


def _files(variables: dict[str, Any]) -> dict[str, Any]:
    base = f"https://wandb.{DOMAIN}:{PORT}/upload"
    files = [{"name": name, "uploadUrl": f"{base}/{name}"} for name in variables.get("files", [])]
    return {"runID": "r1", "uploadHeaders": [], "files": files}


def _features(_: dict[str, Any]) -> dict[str, Any]:
    return {"features": []}


def _entity(_: dict[str, Any]) -> dict[str, Any]:
    return {"organization": {"coreWeaveOrganizationId": None}}


_FIELDS = {
    "upsertBucket": _bucket,
    "createRunFiles": _files,
    "viewer": _viewer,
    "serverInfo": _features,
    "entity": _entity,
}


def _json(value: object, status: int = 200) -> Response:
    return Response(json.dumps(value), status, mimetype="application/json")

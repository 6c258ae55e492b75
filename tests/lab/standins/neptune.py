"""Neptune's cloud as far as a run with one metric goes; what was logged is written into the book.

Its client learns the addresses from descriptions (Swagger 2.0) that the cloud gives it: two services, one each.
"""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass

from werkzeug.wrappers import Request, Response

from tests.lab.standins import DOMAIN, PORT, websocket
from tests.lab.standins.world import World

URL = f"https://neptune.{DOMAIN}:{PORT}"
_REALM = "/auth/realms/neptune"
_PROJECT = {"id": "p1", "name": "lab", "organizationName": "alice", "projectKey": "LAB", "version": 2}
_RUN = {
    "id": "r1",
    "type": "run",
    "shortId": "LAB-1",
    "trashed": False,
    "projectName": "lab",
    "organizationName": "alice",
}
_ATTRIBUTES = [{"name": "sys/id", "type": "string"}]
_BACKEND, _LEADERBOARD = "/api/backend", "/api/leaderboard"
_SIGNALS = "/api/notifications/v1/runs/p1/r1/signal"


@dataclass(frozen=True)
class _Operation:
    """One that the client calls by its name; `headers` and `queries` are its parameters, `body` that in the body."""

    path: str
    answer: object
    method: str = "get"
    headers: tuple[str, ...] = ()
    queries: tuple[str, ...] = ()
    body: str = ""

    def described(self, name: str) -> dict[str, object]:
        """As Swagger 2.0 has it."""
        by_place = {"header": self.headers, "query": self.queries}
        parameters: list[dict[str, object]] = [
            {"name": parameter, "in": place, "type": "string"}
            for place, names in by_place.items()
            for parameter in names
        ]
        if self.body:
            parameters.append({"name": self.body, "in": "body", "schema": {}})
        one = {"$ref": "#/definitions/Answer"}
        schema = {"type": "array", "items": one} if isinstance(self.answer, list) else one
        answers = {"200": {"description": "", "schema": schema}}
        return {"operationId": name, "tags": ["api"], "parameters": parameters, "responses": answers}


def service(world: World) -> object:
    """The client's settings, a token for the key, one project, one run and what is logged there."""
    token = _jwt()
    operations = _operations(token)
    by_line = {f"{one.method.upper()} {one.path}": one for one in operations.values()}
    told = {f"GET {prefix}/swagger.json": _description(operations, prefix) for prefix in (_BACKEND, _LEADERBOARD)}

    @Request.application
    def answer(request: Request) -> Response:
        line = f"{request.method} {request.path}"
        if line in told:
            return _json(told[line])
        if line == f"POST {_REALM}/protocol/openid-connect/token":
            return _renewed(request, token)
        if request.headers.get("X-Neptune-Api-Token") != key() and not _has(request, token):
            return _json({"title": "no such key"}, 401)
        if line == f"GET {_SIGNALS}":
            return websocket.converse(request, lambda _: ())
        if line not in by_line:
            world.write(kind="unknown", service="neptune", line=line)
            return _json({"title": "not known here"}, 501)
        if by_line[line] is operations["executeOperations"]:
            text = request.get_data(as_text=True)
            world.write(kind="logged", service="neptune", address=request.remote_addr, text=text)
        return _json(by_line[line].answer)

    return answer


def key() -> str:
    """Return an API key as users have it: it names its cloud."""
    return base64.b64encode(json.dumps({"api_address": URL, "api_url": URL}).encode()).decode()


def _operations(token: str) -> Mapping[str, _Operation]:
    settings = {"apiUrl": URL, "applicationUrl": URL, "pyLibVersions": {}}
    tokens = {"accessToken": token, "refreshToken": token}
    with_key = ("X-Neptune-Api-Token",)
    v1 = f"{_LEADERBOARD}/v1"
    return {
        "getClientConfig": _Operation(f"{_BACKEND}/v1/clients/config", settings, headers=with_key, queries=("alpha",)),
        "exchangeApiToken": _Operation(f"{_BACKEND}/v1/authorization/oauth-token", tokens, headers=with_key),
        "getProject": _Operation(f"{_BACKEND}/v1/projects/get", _PROJECT, queries=("projectIdentifier",)),
        "createExperiment": _Operation(
            f"{v1}/experiments", _RUN, "post", headers=("X-Neptune-CliVersion",), body="experimentCreationParams"
        ),
        "getExperimentAttributes": _Operation(
            f"{v1}/experiment/attributes", {**_RUN, "attributes": _ATTRIBUTES}, queries=("experimentId",)
        ),
        "executeOperations": _Operation(
            f"{v1}/experiment/operations", [], "post", queries=("experimentId",), body="operations"
        ),
        "ping": _Operation(f"{v1}/experiment/ping", {}, "post", queries=("experimentId",)),
    }


def _description(operations: Mapping[str, _Operation], prefix: str) -> dict[str, object]:
    paths = {
        one.path: {one.method: one.described(name)} for name, one in operations.items() if one.path.startswith(prefix)
    }
    listed = {"attributes": {"type": "array", "items": {"$ref": "#/definitions/Answer"}}}
    definitions = {"Answer": {"type": "object", "properties": listed}}
    info = {"title": "Neptune", "version": "1"}
    return {"swagger": "2.0", "info": info, "paths": paths, "definitions": definitions}


def _has(request: Request, token: str) -> bool:
    return request.authorization is not None and request.authorization.token == token


def _renewed(request: Request, token: str) -> Response:
    """RFC 6749, section 6."""
    if (request.form.get("grant_type"), request.form.get("refresh_token")) != ("refresh_token", token):
        return _json({"error": "invalid_grant"}, 400)
    return _json({"access_token": token, "refresh_token": token, "token_type": "Bearer", "expires_in": 86400})


def _jwt() -> str:
    """A token (RFC 7519) that lasts for a day, signed by nobody: the client does not look."""
    claims = {"exp": int(time.time()) + 86400, "azp": "neptune-cli", "iss": f"{URL}{_REALM}"}
    parts = [json.dumps(part).encode() for part in ({"alg": "HS256", "typ": "JWT"}, claims)] + [b"signature"]
    return ".".join(base64.urlsafe_b64encode(part).decode().rstrip("=") for part in parts)


def _json(value: object, status: int = 200) -> Response:
    return Response(json.dumps(value), status, mimetype="application/json")

"""Kaggle's API (as kagglesdk has it) with one data set, `lab/data`, and the store that it sends its clients to."""

from __future__ import annotations

import json

from werkzeug.utils import redirect
from werkzeug.wrappers import Request, Response

from tests.lab.standins import DOMAIN, PORT
from tests.lab.standins.world import World

_DATASET = {"ownerSlug": "lab", "datasetSlug": "data"}
_FILE = {**_DATASET, "fileName": "token.txt"}
_STORE = "/store/token.txt"
_FACTS = {"info": {"datasetId": 1, "datasetSlug": "data", "title": "data", "licenses": [{"name": "CC0-1.0"}]}}


def service(world: World) -> object:
    """POST /v1/datasets.DatasetApiService/NAME, two of them, with a user's key; GET of the store without."""

    @Request.application
    def answer(request: Request) -> Response:
        line = f"{request.method} {request.path}"
        if line == f"GET {_STORE}":
            file = Response(f"{world.token}\n", mimetype="text/plain")
            file.headers["Last-Modified"] = "Thu, 01 Jan 2026 00:00:00 GMT"
            return file.make_conditional(request, accept_ranges=True, complete_length=len(world.token) + 1)
        key = request.authorization
        if key is None or (key.username, key.password) != ("alice", "lab"):
            return _json({"code": 401, "message": "no such key"}, 401)
        called, asked = line.removeprefix("POST /v1/datasets.DatasetApiService/"), request.get_json(silent=True)
        if (called, asked) == ("GetDatasetMetadata", _DATASET):
            return _json(_FACTS)
        if (called, asked) == ("DownloadDataset", _FILE):
            return redirect(f"https://kaggle.{DOMAIN}:{PORT}{_STORE}")
        world.write(kind="unknown", service="kaggle", line=f"{line} {asked}")
        return _json({"code": 404, "message": f"{line}: not known here"}, 404)

    return answer


def _json(value: object, status: int = 200) -> Response:
    return Response(json.dumps(value), status, mimetype="application/json")

"""A channel of conda packages with one: `labpackage`, with the token in share/token."""

from __future__ import annotations

import hashlib
import json

from werkzeug.wrappers import Request, Response

from tests.lab.standins.crates import pack
from tests.lab.standins.world import World

_FILE = "labpackage-1.0-0.tar.bz2"


def service(world: World) -> object:
    """GET repodata.json of each platform, and the package (docs.conda.io, conda-build, channels)."""
    index = {"name": "labpackage", "version": "1.0", "build": "0", "build_number": 0, "depends": [], "subdir": "noarch"}
    token = f"{world.token}\n"
    about = {"_path": "share/token", "path_type": "hardlink", "size_in_bytes": len(token)}
    path = {**about, "sha256": hashlib.sha256(token.encode()).hexdigest()}
    content = {
        "info/index.json": json.dumps(index),
        "info/paths.json": json.dumps({"paths": [path], "paths_version": 1}),
        "info/files": "share/token\n",
        "share/token": token,
    }
    package = pack(content, mode="w:bz2")
    digests = {"sha256": hashlib.sha256(package).hexdigest(), "size": len(package)}
    empty = {"packages": {}, "packages.conda": {}, "repodata_version": 1}
    full = {**empty, "info": {"subdir": "noarch"}, "packages": {_FILE: {**index, **digests}}}
    files = {
        "/noarch/repodata.json": json.dumps(full).encode(),
        "/linux-64/repodata.json": json.dumps({**empty, "info": {"subdir": "linux-64"}}).encode(),
        f"/noarch/{_FILE}": package,
    }

    @Request.application
    def answer(request: Request) -> Response:
        found = files.get(request.path)
        return Response("not found\n", 404) if found is None else Response(found)

    return answer

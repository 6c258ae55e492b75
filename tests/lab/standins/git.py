"""git over https: git's own http-backend, run as CGI (RFC 3875), on the repositories below DIRECTORY/git."""

from __future__ import annotations

import os
import subprocess

from werkzeug.wrappers import Request, Response

from tests.lab.standins.world import World

_TIMEOUT_S = 60


def service(world: World) -> object:
    """Fetches of /lab.git; http-backend itself refuses pushes by strangers."""
    program = subprocess.run(["git", "--exec-path"], check=True, capture_output=True, text=True).stdout.strip()

    @Request.application
    def answer(request: Request) -> Response:
        environment = {
            "PATH": os.defpath,
            "GIT_PROJECT_ROOT": str(world.directory / "git"),
            "GIT_HTTP_EXPORT_ALL": "1",
            "GIT_PROTOCOL": request.headers.get("Git-Protocol", ""),
            "REQUEST_METHOD": request.method,
            "PATH_INFO": request.path,
            "QUERY_STRING": request.query_string.decode(),
            "CONTENT_TYPE": request.headers.get("Content-Type", ""),
            "HTTP_CONTENT_ENCODING": request.headers.get("Content-Encoding", ""),
            "REMOTE_ADDR": request.remote_addr or "",
        }
        done = subprocess.run(
            [f"{program}/git-http-backend"],
            input=request.get_data(),
            env=environment,
            capture_output=True,
            timeout=_TIMEOUT_S,
            check=True,
        )
        return _response(done.stdout)

    return answer


def _response(said: bytes) -> Response:
    head, _, body = said.partition(b"\r\n\r\n")
    headers = [tuple(line.split(": ", 1)) for line in head.decode("latin-1").split("\r\n")]
    status = next((value for name, value in headers if name == "Status"), "200 OK")
    return Response(body, status, [(name, value) for name, value in headers if name != "Status"])

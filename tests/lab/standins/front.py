"""One https port for all services: the name that was asked for picks the service, and every request is written down."""

from __future__ import annotations

import ssl
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from werkzeug.serving import BaseWSGIServer, WSGIRequestHandler, make_server
from werkzeug.wrappers import Response

from tests.lab.standins import DOMAIN
from tests.lab.standins.world import World

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment


class Front:
    """The WSGI application in front of the services."""

    def __init__(self, services: Mapping[str, WSGIApplication], world: World) -> None:
        self.services = services
        self.world = world

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        host = environ.get("HTTP_HOST", "").partition(":")[0]
        service = host.removesuffix(f".{DOMAIN}")
        answer = self.services.get(service) or Response(f"{host}: no such service\n", 421)

        def start(status: str, *rest: object) -> object:
            self.world.write(
                kind="request",
                address=environ["REMOTE_ADDR"],
                service=service,
                line=f"{environ['REQUEST_METHOD']} {environ['PATH_INFO']}",
                status=int(status[:3]),
            )
            return start_response(status, *rest)  # type: ignore[arg-type]

        return answer(environ, start)  # type: ignore[arg-type]


class _Handler(WSGIRequestHandler):
    protocol_version = "HTTP/1.1"  # as the real ones: connections are kept

    def log(self, *_: object) -> None:
        """The book has it."""


def listen(front: Front, port: int, certificate: str, key: str) -> BaseWSGIServer:
    """The server; it listens when this returns."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    return make_server("0.0.0.0", port, front, threaded=True, request_handler=_Handler, ssl_context=context)

"""A WebSocket (RFC 6455) on a request of werkzeug's server; wsproto is the reader and writer of its frames."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from werkzeug.wrappers import Request, Response
from wsproto import ConnectionType, WSConnection
from wsproto.events import AcceptConnection, CloseConnection, Ping, TextMessage
from wsproto.events import Request as Upgrade

_CHUNK_BYTES = 65536


def converse(request: Request, told: Callable[[str], Iterable[str]]) -> Response:
    """Each text message is answered with what `told` says to it, until the client closes."""
    wire = request.environ["werkzeug.socket"]
    talk = WSConnection(ConnectionType.SERVER)
    headers = [(name.encode(), value.encode()) for name, value in request.headers.items()]
    talk.initiate_upgrade_connection(headers, request.full_path)
    text, open_ = "", True
    while open_:
        for event in talk.events():
            if isinstance(event, Upgrade):
                wire.sendall(talk.send(AcceptConnection()))
            elif isinstance(event, TextMessage):
                text += event.data
                if event.message_finished:
                    for line in told(text):
                        wire.sendall(talk.send(TextMessage(line)))
                    text = ""
            elif isinstance(event, Ping):
                wire.sendall(talk.send(event.response()))
            elif isinstance(event, CloseConnection):
                open_ = False
        data = wire.recv(_CHUNK_BYTES) if open_ else b""
        open_ = bool(data)
        if data:
            talk.receive_data(data)
    return Response(status=101)  # for the book; the client has long had its own

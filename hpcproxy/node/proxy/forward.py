"""Requests for http:// URLs: each is passed on to its far end, its response back; connections are kept alive.

No `Via` is added, though RFC 9110 asks for it: common servers (nginx's gzip_proxied) stop compressing when they see it.
"""

import time
from typing import Awaitable, Callable, List, Optional, TypeVar, Union

from ..io.loop import Task, TimedOut
from ..io.stream import Ended, Stream, TooLong
from ..upstream.open_error import OpenError
from ..upstream.target import Target, spell
from .body import BadBody, Chunked, Fixed, UntilClose
from .head import (
    BadRequest,
    Header,
    Request,
    Response,
    body_length,
    end_to_end,
    parse_response,
    persistent,
    split_url,
    upgrade,
    values,
    write_head,
)
from .pace import Gathering
from .relay import Far, Relay, open_far
from .replies import http_answer
from .shared import Shared

RESPONSE_BYTES = 262144  # some send a policy or a cookie of 80 kB; curl itself stops at 300 kB of headers
PART_S = 1.0
# A client that is still sending when its answer is there must be let finish, or a reset takes the answer from it
# (RFC 9112, 9.6). As nginx does (lingering_time, lingering_timeout): so long in all, so long in silence.
LINGER_S = 30.0
LINGER_SILENT_S = 5.0
LOOK_S = 5.0
REPEATABLE = ("GET", "HEAD", "OPTIONS", "TRACE")

T = TypeVar("T")
Body = Union[Fixed, Chunked, UntilClose]
Head = Callable[[Optional[List[Header]]], bytes]


class NoResponse(Exception):
    """The far end has closed without a usable response."""


class CutShort(ConnectionAbortedError):
    """The response has broken off in its body; the client knows, and this says why."""


class ClientGone(Exception):
    """The client has left while its response was awaited."""


class Exchange:
    """The http:// requests of one client connection; one far end is kept open for the next request."""

    def __init__(self, shared: Shared, client: Stream, busy: str) -> None:
        self.shared, self.client, self.busy = shared, client, busy
        self.far: Optional[Far] = None
        self.far_target: Optional[Target] = None
        self.up = self.down = 0
        self.answered = False

    def close(self) -> None:
        """The far end is let go."""
        if self.far is not None:
            self.far.close()
        self.far = None

    async def serve(self, request: Request) -> bool:
        """The client has its response; True if the connection can carry another request.

        BadRequest, ClientGone, OSError.
        """
        target, authority, path = split_url(request.target)
        if len(values(request.headers, "host")) > 1:
            raise BadRequest("more than one Host")
        body = body_of(body_length(request.headers, request.minor), Fixed(0))

        def head(more: Optional[List[Header]]) -> bytes:
            """For its far end, or for a proxy."""
            return request_head(request, authority, path, more)

        began, outcome = time.monotonic(), "client gone"
        self.up = self.down = 0
        self.answered = False
        self.shared.record.requests += 1
        try:
            self.shared.check(target, self.busy)
            keep = await self._try(target, request, head, body)
            outcome = "ok"
            return keep
        except (OpenError, NoResponse, BadBody) as error:
            outcome = str(error)
            await self._refuse(error, request.method)
            return False
        except CutShort as error:
            outcome = str(error)
            raise
        finally:
            self.shared.finished(spell(target), self.up, self.down, time.monotonic() - began, outcome)
            self.up = self.down = 0

    async def _try(self, target: Target, request: Request, head: Head, body: Body) -> bool:
        # What has come unasked is no answer to this request: a timeout's, or the body of a 204 (RFC 9112, 9.3).
        reused = self.far is not None and self.far_target == target and not self.far.over() and self.far.back.quiet()
        if not reused:
            self.close()
            # An upgrade turns the connection into one to the far end itself, whoever is on the way.
            plain = upgrade(request.headers) is None
            self.far = await open_far(self.shared.loop, self.shared.tunnel, target, plain_http=plain)
            self.far_target = target
        assert self.far is not None
        try:
            return await self._exchange(self.far, request, head, body)
        except NoResponse:
            # A server may close a kept-alive connection just as the next request arrives (RFC 9112, 9.3.1).
            if not reused or self.answered or request.method not in REPEATABLE or not isinstance(body, Fixed):
                raise
            self.close()
            if body.left:
                raise
            return await self._try(target, request, head, body)

    async def _exchange(self, far: Far, request: Request, head: Head, body: Body) -> bool:
        upload = self.shared.loop.spawn(self._upload(far, head(far.plain_headers()), body))
        try:
            response = await self._final_response(far, request, upload)
            if response is None:
                return False  # it was an upgrade, and is over
            return await self._respond(far, request, response, upload)
        finally:
            upload.cancel()

    async def _upload(self, far: Far, head: bytes, body: Body) -> Optional[Exception]:
        """The request is with the far end; else what went wrong, which ends the exchange."""
        try:
            await far.to.send(head)
            self.up += len(head)
            while not body.done:
                size = await pass_part(self.client, far.to, body)
                if not size:
                    raise BadBody("the client ended in the middle of its body")
                self.up += size
        except BrokenPipeError as error:
            return None if body.done else error  # the far end takes no more; its response says why
        except (BadBody, Ended, OSError) as error:
            far.hang_up()
            return error
        return None

    async def _final_response(self, far: Far, request: Request, upload: Task) -> Optional[Response]:
        """The response after the interim ones, which are passed on; None after an upgrade."""
        while True:
            try:
                response = await self._awaited(lambda until: far.back.take(parse_response, RESPONSE_BYTES, until))
            except (Ended, TooLong, BadRequest, OSError) as error:
                if isinstance(upload.result, BadBody):
                    raise upload.result
                raise NoResponse("the far end {}".format(why_not(error)))
            if response.status == 101:
                await self._upgraded(far, request, response, upload)
                return None
            if response.status >= 200:
                far.judge(response.status, bool(values(response.headers, "proxy-authenticate")))
                return response
            if request.minor >= 1:
                await self._send(write_head(status_line(response), end_to_end(response.headers)))

    async def _awaited(self, wait: Callable[[float], Awaitable[T]]) -> T:
        """What `wait`, which is given a deadline, gets from the far end in the end; ClientGone.

        Nobody reads from the client meanwhile, and a far end that is silent for ever would keep its slot for ever. The
        end of its sending says little: a client may end that and still want its response.
        """
        while True:
            try:
                return await wait(time.monotonic() + LOOK_S)
            except TimedOut:
                if self.client.watch.ended and self.shared.entrance.gone(self.client.sock):
                    raise ClientGone()

    async def _upgraded(self, far: Far, request: Request, response: Response, upload: Task) -> None:
        if upgrade(request.headers) is None:
            raise NoResponse("the far end changed the protocol unasked")
        await upload.join()
        changed = ", ".join(values(response.headers, "upgrade"))
        headers = end_to_end(response.headers) + [("Connection", "Upgrade"), ("Upgrade", changed)]
        await self._send(write_head(status_line(response), headers))
        relay = Relay(self.shared.loop, self.client, far, lambda first: None)
        try:
            await relay.run()
        finally:
            self.up += relay.up
            self.down += relay.down

    async def _respond(self, far: Far, request: Request, response: Response, upload: Task) -> bool:
        body = response_body(request, response)
        delimited = not isinstance(body, UntilClose)
        keep = delimited and persistent(request.headers, request.minor) and (upload.done or request.minor >= 1)
        headers = end_to_end(response.headers)
        if not keep:
            headers.append(("Connection", "close"))
        elif request.minor < 1:
            headers.append(("Connection", "keep-alive"))
        await self._send(write_head(status_line(response), headers))
        await self._download(far, body)
        if not (delimited and upload.done and upload.result is None and persistent(response.headers, response.minor)):
            self.close()
        if keep and upload.done and upload.result is None:
            return True
        await upload.end()  # what the client still sends is for nobody
        await self.client.linger(LINGER_S, LINGER_SILENT_S)
        return False

    async def _download(self, far: Far, body: Body) -> None:
        try:
            await self._pass_on(far, body)
        except (BadBody, Ended) as error:
            self.client.abort()
            raise CutShort("the far end sent {}".format(error) if str(error) else "the far end ended in the middle")
        except OSError:
            if not far.back.broken:
                raise
            self.client.abort()
            raise CutShort("the far end was lost")
        if not body.done and (not isinstance(body, UntilClose) or far.lost()):
            self.client.abort()  # the client must not take it for the whole
            raise CutShort("{} was lost".format(far.other_end()) if far.lost() else "the far end ended in the middle")

    async def _pass_on(self, far: Far, body: Body) -> None:
        """The body is with the client, or what there was of it."""
        gathering = Gathering(self.shared.loop)
        while not body.done:
            size = await self._awaited(lambda until: pass_part(far.back, self.client, body, until))
            if not size:
                return
            self.down += size
            if not body.done:
                await gathering.after(size)

    async def _send(self, data: bytes) -> None:
        self.answered = True
        self.down += len(data)
        await self.client.send(data)

    async def _refuse(self, error: Exception, method: str) -> None:
        """The client is told why, unless a response is under way: then all that is left is to break it off."""
        if self.answered:
            self.client.abort()
            return
        kind, reason = "failed", str(error)
        if isinstance(error, OpenError):
            kind, reason = error.kind, error.reason
        elif isinstance(error, BadBody):
            kind = "bad"
        await self.client.send(http_answer(kind, reason, with_body=method != "HEAD"), time.monotonic() + PART_S)
        await self.client.linger(LINGER_S, LINGER_SILENT_S)


async def pass_part(source: Stream, sink: Stream, body: Body, deadline: Optional[float] = None) -> int:
    """The next bytes of `body` are with `sink`: how many, 0 at the end. What is known to be body is not looked at."""
    if isinstance(body, Chunked):
        data = await source.take_some(body.feed, deadline)
        await sink.send(data)
        return len(data)
    size = await source.pass_on(sink, body.most(), deadline)
    body.count(size)
    return size


def why_not(error: Exception) -> str:
    """What the far end did in place of a response."""
    if isinstance(error, TooLong):
        return "sent a response head of more than {} bytes".format(RESPONSE_BYTES)
    if isinstance(error, BadRequest):
        return "sent no HTTP response ({})".format(error)
    return "closed without a response"


def request_head(request: Request, authority: str, path: str, more: Optional[List[Header]] = None) -> bytes:
    """The request in the form that the far end wants; Host is the URL's, whatever the client said (RFC 9112, 3.2.2).

    With `more`, which may be empty, in the form that a proxy wants, and with those headers.
    """
    if request.method == "OPTIONS" and request.target.partition("://")[2] == authority:
        path = "*"
    if more is not None:
        path = "http://{}{}".format(authority, "" if path == "*" else path)
    headers: List[Header] = [("Host", authority)] + (more or [])
    headers += [(key, value) for key, value in end_to_end(request.headers) if key.lower() != "host"]
    protocol = upgrade(request.headers)
    if protocol is not None:
        headers += [("Connection", "Upgrade"), ("Upgrade", protocol)]
    # HTTP/1.0 is passed on as such: the response must not come chunked then.
    return write_head("{} {} HTTP/1.{}".format(request.method, path, request.minor), headers)


def body_of(length: Optional[int], otherwise: Body) -> Body:
    """The reader of a body that was announced so."""
    if length is None:
        return otherwise
    return Chunked() if length < 0 else Fixed(length)


def response_body(request: Request, response: Response) -> Body:
    """Where this response ends (RFC 9112, 6.3); NoResponse if that cannot be told."""
    if request.method == "HEAD" or response.status in (204, 304):
        return Fixed(0)
    try:
        # Chunked from a server of HTTP/1.0 is read as every client reads it; it ends with its connection all the same.
        length = body_length(response.headers, request.minor)
    except BadRequest as error:
        raise NoResponse("the far end sent a response with {}".format(error))
    return body_of(length, UntilClose())


def status_line(response: Response) -> str:
    """The status line with our version, as each hop states its own."""
    return "HTTP/1.1" + response.line[len("HTTP/1.x") :]

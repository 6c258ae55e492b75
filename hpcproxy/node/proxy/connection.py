"""One client: what it asks for, in which dialect, and what it is told. 200 and its like are said only when true."""

import time
from typing import Callable, Optional, Tuple

from ..io.loop import TimedOut
from ..io.stream import Ended, Stream, TooLong
from ..io.tcp_info import Counters, Marks
from ..upstream.open_error import OpenError
from ..upstream.target import BadTarget, Target, parse_authority, spell
from ..upstream.upstream import LINK
from . import socks
from .first_speaker import OPENING_BYTES, opens_as_client
from .forward import ClientGone, Exchange
from .hand_over import HandedOver, NotPassed, hand_over
from .head import BadRequest, Request, body_length, parse_request
from .relay import Far, Relay, first_words, open_far
from .replies import CONNECTED, http_answer, socks5_code
from .shared import Shared

HEAD_BYTES = 65536  # a presigned URL, a Kerberos ticket; Python's own server takes as much
HEAD_S = 10.0  # for a request to arrive whole
IDLE_S = 75.0  # between two requests of one connection
SOCKS_BYTES = 1024
PART_S = 1.0

Reply = Callable[[Optional[OpenError]], bytes]


class Talk:
    """A conversation from its first byte to its last."""

    def __init__(self, shared: Shared, client: Stream, busy: str) -> None:
        self.shared, self.client, self.busy = shared, client, busy
        self.counters = Counters(client.sock)
        self.handed_over: Optional[HandedOver] = None
        self.relay: Optional[Relay] = None
        self.exchange: Optional[Exchange] = None

    async def run(self) -> None:
        """The client has been served."""
        try:
            first = await self.client.peek(1, time.monotonic() + (PART_S if self.busy else HEAD_S))
            if first == LINK and not self.shared.entrance.counted:
                await self._link()
            elif first[:1] == b"\5":
                await self._socks5()
            elif first[:1] == b"\4":
                await self._socks4()
            elif first:
                await self._http()
        except (OSError, Ended, TimedOut, ClientGone):
            pass  # the client went away or fell silent: nobody is left to answer

    async def _link(self) -> None:
        from .link import serve_link  # few agents need it

        await serve_link(self.shared, self.client)

    def open_bytes(self) -> Tuple[int, int]:
        """Bytes of the request under way, up and down, not yet in the record."""
        if self.handed_over is not None:
            return self.handed_over.bytes()
        if self.relay is not None:
            return self.relay.up, self.relay.down
        return (self.exchange.up, self.exchange.down) if self.exchange is not None else (0, 0)

    async def _http(self) -> None:
        exchange = self.exchange = Exchange(self.shared, self.client, self.busy)
        try:
            await self._requests(exchange)
        finally:
            exchange.close()

    async def _requests(self, exchange: Exchange) -> None:
        deadline = time.monotonic() + HEAD_S
        while True:
            try:
                request = await self.client.take(parse_request, HEAD_BYTES, deadline)
                if request.method == "CONNECT":
                    await self._connect(request)
                    return
                if not await exchange.serve(request):
                    return
            except (BadRequest, TooLong, TimedOut) as error:
                await self._refuse_request(error)
                return
            await self.client.peek(1, time.monotonic() + IDLE_S)
            deadline = time.monotonic() + HEAD_S

    async def _refuse_request(self, error: Exception) -> None:
        if isinstance(error, BadRequest):
            await self._refuse(http_answer(error.kind, str(error)))
        elif isinstance(error, TooLong):
            await self._refuse(http_answer("long", "a request head of more than {} bytes".format(HEAD_BYTES)))
        else:
            await self._refuse(http_answer("late", "no whole request within {:.0f} s".format(HEAD_S)))

    async def _connect(self, request: Request) -> None:
        if body_length(request.headers, request.minor) not in (None, 0):
            raise BadRequest("CONNECT with a body")
        try:
            target = parse_authority(request.target)
        except BadTarget as error:
            raise BadRequest(str(error))
        self.shared.links.follow(self.client, request.headers)
        await self._tunnel(target, lambda error: http_answer(error.kind, error.reason) if error else CONNECTED)

    async def _socks5(self) -> None:
        deadline = time.monotonic() + HEAD_S
        methods = await self.client.take(socks.parse_greeting, SOCKS_BYTES, deadline)
        if socks.NO_AUTHENTICATION not in methods:
            await self._refuse(bytes([5, socks.NONE_ACCEPTABLE]))
            return
        await self.client.send(bytes([5, socks.NO_AUTHENTICATION]), deadline)
        try:
            request = await self.client.take(socks.parse_request5, SOCKS_BYTES, deadline)
        except socks.BadSocks as error:
            await self._refuse(socks.reply5(error.code) if error.code else b"")
            return
        if request.command != socks.CONNECT:
            await self._refuse(socks.reply5(socks.NOT_SUPPORTED))
            return
        await self._tunnel(request.target, lambda error: socks.reply5(socks5_code(error.kind) if error else 0))

    async def _socks4(self) -> None:
        try:
            request = await self.client.take(socks.parse_request4, SOCKS_BYTES, time.monotonic() + HEAD_S)
        except (socks.BadSocks, TooLong):
            await self._refuse(socks.reply4(False))
            return
        if request.command != socks.CONNECT:
            await self._refuse(socks.reply4(False))
            return
        await self._tunnel(request.target, lambda error: socks.reply4(error is None))

    async def _tunnel(self, target: Target, reply: Reply) -> None:
        """Client and `target` are joined until both are done, or the client has been told why not."""
        began = time.monotonic()
        outcome = "ok"
        self.shared.record.requests += 1
        try:
            self.shared.check(target, self.busy)
            # What the client has sent ahead reaches the far end at once, and its answer could come before ours.
            before = self.counters.marks()
            if before.waiting or not (self.shared.tunnel.passes_fd and self.shared.entrance.counted):
                outcome = await self._relay(target, reply)
            elif self.shared.first_speaker.may_hand_over(target):
                outcome = await self._hand_over(target, before, reply)
            else:
                outcome = await self._see_who_speaks(target, reply)
        except OpenError as error:
            outcome = str(error)
            await self._refuse(reply(error))
        except OSError:
            outcome = "client gone"
        finally:
            up, down = self.open_bytes()
            self.handed_over = self.relay = None
            self.shared.finished(spell(target), up, down, time.monotonic() - began, outcome)

    async def _hand_over(self, target: Target, before: Marks, reply: Reply) -> str:
        shared, client = self.shared, self.client
        try:
            handed_over = self.handed_over = await hand_over(
                shared.loop, shared.tunnel, client, self.counters, before, target
            )
        except NotPassed:
            return await self._relay(target, reply)
        try:
            if not handed_over.confirm(reply(None)):
                shared.first_speaker.learn(target, b"")
                client.abort()
                return "far end spoke first"
            await handed_over.run()
            return "ok"
        finally:
            handed_over.close()

    async def _see_who_speaks(self, target: Target, reply: Reply) -> str:
        """A far end that nobody knows: our answer goes first, then who speaks says what is best (first_speaker.py)."""
        shared, client = self.shared, self.client
        far = await open_far(shared.loop, shared.tunnel, target)
        try:
            await client.send(reply(None))
            first = await first_words(shared.loop, client, far.back, OPENING_BYTES)
            if opens_as_client(first):
                shared.first_speaker.learn(target, first)
                try:
                    marks = self.counters.marks()
                    handed_over = self.handed_over = await hand_over(
                        shared.loop, shared.tunnel, client, self.counters, marks, target
                    )
                except OpenError:
                    pass  # it takes no second connection; the first one is there and serves
                else:
                    far.close()
                    return await self._run(handed_over)
            return await self._join(target, far)
        finally:
            far.close()

    async def _run(self, handed_over: HandedOver) -> str:
        """The client is in ssh's hands, and has our answer already, until both are done."""
        try:
            handed_over.begin()
            await handed_over.run()
            return "ok"
        finally:
            handed_over.close()

    async def _relay(self, target: Target, reply: Reply) -> str:
        far = await open_far(self.shared.loop, self.shared.tunnel, target)
        try:
            await self.client.send(reply(None))
            return await self._join(target, far)
        finally:
            far.close()

    async def _join(self, target: Target, far: Far) -> str:
        self.relay = Relay(
            self.shared.loop, self.client, far, lambda first: self.shared.first_speaker.learn(target, first)
        )
        await self.relay.run()
        return "ok"

    async def _refuse(self, reply: bytes) -> None:
        """The client has `reply`, and time to read it."""
        if reply:
            await self.client.send(reply, time.monotonic() + PART_S)
            await self.client.part(PART_S)

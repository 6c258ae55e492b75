"""What the proxies of a site have in common: one connection for each request, with a login or without.

A proxy that cannot be connected to is an outage: requests wait, and it is tried again as a jump host is. What it says
to a request is that request's answer. Where there are ways of other kinds, one that lets nobody in any more, or does
not answer as a proxy does, is asked once more as at the start, and left for them.
"""

import socket
import time
from typing import Optional

from ..io.loop import Loop
from ..io.stream import Stream
from ..state.secret import BadSecret, Login, LoginFile
from ..state.settings import Settings, Way
from ..state.status import Record
from .candidate import Verdict
from .dial import Connected, Dialled
from .open_error import OpenError
from .target import Target, spell
from .upstream import Channel, Ends, Lost, Unusable

LAYER = "proxy"
DOUBTED_S = 30.0  # between two such questions


class WrongLogin(OpenError):
    """The proxy does not let us in."""


class NoProxy(OpenError):
    """No answer of a proxy's; `for_good`: what listens there is something else."""

    def __init__(self, kind: str, reason: str, for_good: bool = False) -> None:
        super().__init__(kind, reason)
        self.for_good = for_good


class SiteProxy(Dialled):
    """The proxy, from when it answered until it cannot be connected to."""

    def __init__(self, loop: Loop, settings: Settings, way: Way, record: Record) -> None:
        super().__init__(loop, settings, record)
        self.place = Target(way.host, way.port)
        self.file = LoginFile(way.auth_file)
        self.alone = len({way.kind for way in settings.ways}) == 1
        self.doubted_at = -DOUBTED_S

    async def greet(self, stream: Stream, target: Target, deadline: float) -> None:
        """The proxy has joined `stream` to `target`; WrongLogin, NoProxy, or another OpenError if it said why not."""
        raise NotImplementedError

    def plain(self, _stream: Stream) -> Optional[Channel]:
        """What carries requests for http:// URLs without being joined to their far end, if there is such a thing."""
        return None

    async def start(self) -> None:
        """As Upstream: it answers and takes our login, shown by a target at which nobody listens."""
        verdict = await self._trouble()
        if verdict is not None:
            raise Unusable(verdict)

    def doubt(self) -> None:
        """It did not do what a proxy does: is it still one? If there are others in its place."""
        now = time.monotonic()
        if not self.alone and now - self.doubted_at > DOUBTED_S:
            self.doubted_at = now
            self.loop.spawn(self._look_again())

    async def _look_again(self) -> None:
        """It ends if it does not serve any more."""
        verdict = await self._trouble()
        if verdict is not None:
            self.die(verdict._replace(permanent=False))

    async def _trouble(self) -> Optional[Verdict]:
        """Why it does not serve, None if it does."""
        deadline = time.monotonic() + self.settings.connect_timeout_s
        try:
            stream = Stream(self.loop, await self._reach(deadline), is_client=False)
        except OpenError as error:
            return Verdict(LAYER, error.reason, False)
        try:
            await self.greet(stream, Target(*self.settings.probe), deadline)
        except (WrongLogin, NoProxy) as error:
            for_good = error.for_good if isinstance(error, NoProxy) else True
            return Verdict(LAYER, error.reason, for_good and not self.again)
        except OpenError:
            pass  # it answered
        finally:
            stream.close()
        return None

    async def _reach(self, deadline: float) -> socket.socket:
        """A connection to the proxy; OpenError."""
        try:
            return await self.dial(await self.addresses(self.place.host, deadline), self.place.port, deadline)
        except OpenError as error:
            raise OpenError(error.kind, "{} is not reached: {}".format(spell(self.place), error.reason))

    async def open(self, target: Target, ends: Ends, deadline: float) -> Channel:
        """As Upstream."""
        try:
            sock = await self._reach(deadline)
        except OpenError as error:
            self.die(Verdict(LAYER, error.reason, False))
            raise Lost()
        stream = ends.join(sock)
        channel = self.plain(stream) if ends.plain_http else None
        if channel is None:
            try:
                await self.greet(stream, target, deadline)
            except (WrongLogin, NoProxy):
                self.doubt()
                raise
        return channel or Connected(stream)

    def login(self) -> Optional[Login]:
        """What lets us in there; WrongLogin."""
        try:
            return self.file.read()
        except BadSecret as error:
            raise WrongLogin("prohibited", str(error))

    def wrong_login(self, said: str) -> WrongLogin:
        """What is to be done about a proxy that has `said` that it does not let us in."""
        if self.file.path:
            return WrongLogin("prohibited", "the proxy refuses the login in {} ({})".format(self.file.path, said))
        advice = "name a file with one by `proxy_auth_file`"
        return WrongLogin("prohibited", "the proxy asks for a login ({}): {}".format(said, advice))

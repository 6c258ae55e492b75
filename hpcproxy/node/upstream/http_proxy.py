"""The upstream `http`: an HTTP proxy of the site's. CONNECT (RFC 9110, 9.3.6) for all but requests for http:// URLs.

Those go to it in absolute form (RFC 9112, 3.2.2), for proxies let CONNECT through to few ports. It resolves the names.
The credentials (Basic, RFC 7617) are put in here, and what it says of them is never passed on to a client.
"""

import binascii
import re
from typing import List, NamedTuple, Optional, Tuple

from ..io.loop import TimedOut
from ..io.stream import Ended, Stream, TooLong
from .dial import Connected
from .open_error import OpenError, from_errno, tidy
from .site_proxy import NoProxy, SiteProxy
from .target import Target, spell
from .upstream import Channel, Header

ANSWER_BYTES = 65536
STATUS = re.compile(rb"HTTP/1\.\d[ \t]+(\d{3})(?:[ \t]+([^\r\n]*))?\r?\n")
HEAD_END = re.compile(rb"\r?\n\r?\n")
# Of squid's: what went wrong, and the kernel's number for a failed connect.
SQUID = re.compile(rb"\nX-Squid-Error:[ \t]*(ERR_\w+)(?:[ \t]+(\d{1,4}))?", re.IGNORECASE)
UNAUTHORIZED, FORBIDDEN, NEEDS_LOGIN, TIMED_OUT = 401, 403, 407, 504

Answer = NamedTuple("Answer", [("status", int), ("words", str), ("head", bytes)])


class NoAnswer(Exception):
    """What came is no HTTP."""


class HttpProxy(SiteProxy):
    """The proxy, from when it answered until it cannot be connected to."""

    async def greet(self, stream: Stream, target: Target, deadline: float) -> None:
        """As SiteProxy."""
        answer = await self._ask(stream, target, deadline)
        # Some say 401 where 407 is meant; no far end has said anything by now.
        if answer.status in (NEEDS_LOGIN, UNAUTHORIZED):
            raise self.wrong_login("{} {}".format(answer.status, answer.words).strip())
        if not 200 <= answer.status < 300:
            raise failure(answer)

    def plain(self, stream: Stream) -> Optional[Channel]:
        """As SiteProxy."""
        return Plain(self, stream)

    async def _ask(self, stream: Stream, target: Target, deadline: float) -> Answer:
        """What it says to CONNECT; NoProxy, WrongLogin."""
        where = spell(target)
        lines = ["CONNECT {} HTTP/1.1".format(where), "Host: {}".format(where)]
        lines += ["{}: {}".format(key, value) for key, value in self.headers()]
        try:
            await stream.send("\r\n".join(lines + ["", ""]).encode("ascii"), deadline)
            while True:
                answer = await stream.take(parse_answer, ANSWER_BYTES, deadline)
                if answer.status >= 200:
                    return answer
        except TimedOut:
            raise NoProxy("timeout", "no answer from the proxy")
        except (NoAnswer, TooLong):
            raise NoProxy("failed", "what listens at {} is no HTTP proxy".format(spell(self.place)), for_good=True)
        except (Ended, OSError):
            raise NoProxy("failed", "the proxy closed the connection without an answer")

    def headers(self) -> List[Header]:
        """What lets us in there; WrongLogin."""
        login = self.login()
        if login is None:
            return []
        basic = binascii.b2a_base64(login.user + b":" + login.password, newline=False)
        return [("Proxy-Authorization", "Basic {}".format(basic.decode("ascii")))]


class Plain(Connected):
    """A connection to the proxy itself, for requests for http:// URLs."""

    def __init__(self, proxy: HttpProxy, stream: Stream) -> None:
        super().__init__(stream)
        self.proxy = proxy

    def plain_http(self) -> Optional[List[Header]]:
        """As Channel."""
        return self.proxy.headers()

    def judge(self, status: int, challenged: bool) -> None:
        """As Channel."""
        if status == NEEDS_LOGIN or (status == UNAUTHORIZED and challenged):
            self.proxy.doubt()
            raise self.proxy.wrong_login(str(status))


def parse_answer(data: bytes) -> Optional[Tuple[int, Answer]]:
    """The head at the start of `data` and its size; None while it is not whole; NoAnswer."""
    if not data.startswith(b"HTTP/1."[: len(data)]):
        raise NoAnswer()
    end = HEAD_END.search(data)
    if end is None:
        return None
    found = STATUS.match(data)
    if found is None:
        raise NoAnswer()
    words = tidy((found.group(2) or b"").decode("latin-1").strip())
    return end.end(), Answer(int(found.group(1)), words, data[: end.end()])


def failure(answer: Answer) -> OpenError:
    """Why the proxy does not reach a far end, as far as it says."""
    said = "{} {}".format(answer.status, answer.words).strip()
    squid = SQUID.search(answer.head)
    if squid is not None and squid.group(1) == b"ERR_DNS_FAIL":
        return OpenError("name", "Name or service not known (the proxy: {})".format(said))
    if squid is not None and squid.group(1) == b"ERR_CONNECT_FAIL" and squid.group(2):
        error = from_errno(int(squid.group(2)))
        return OpenError(error.kind, "{} (the proxy: {})".format(error.reason, said))
    if answer.status == FORBIDDEN:
        return OpenError("prohibited", "the proxy does not allow it ({})".format(said))
    if answer.status == TIMED_OUT:
        return OpenError("timeout", "the proxy got no answer from the far end ({})".format(said))
    return OpenError("failed", "the proxy does not reach it ({})".format(said))

"""The upstream `socks5`: a SOCKS proxy of the site's (RFC 1928), with a user name and password (RFC 1929) or without.

Names go to it as names: it resolves them.
"""

import struct
from typing import Dict, Optional, Tuple

from ..io.loop import TimedOut
from ..io.stream import Ended, Stream, TooLong
from ..state.policy import MAPPED, pack_address
from .open_error import OpenError
from .site_proxy import NoProxy, SiteProxy
from .target import Target, spell

NO_LOGIN, BY_PASSWORD, NONE = 0, 2, 0xFF
CONNECT = 1
IPV4, NAME, IPV6 = 1, 3, 4
ANSWER_BYTES = 1024
# RFC 1928, section 6, in sshd's words for the same.
REPLIES: Dict[int, Tuple[str, str]] = {
    1: ("failed", "general failure"),
    2: ("prohibited", "not allowed by its rules"),
    3: ("network", "Network is unreachable"),
    4: ("host", "No route to host"),
    5: ("refused", "Connection refused"),
    6: ("timeout", "Connection timed out"),
}


class NoSocks(Exception):
    """What came is no SOCKS 5."""


class SocksProxy(SiteProxy):
    """The proxy, from when it answered until it cannot be connected to."""

    async def greet(self, stream: Stream, target: Target, deadline: float) -> None:
        """As SiteProxy."""
        try:
            await self._log_in(stream, deadline)
            await stream.send(bytes([5, CONNECT, 0]) + address(target) + struct.pack(">H", target.port), deadline)
            code = await stream.take(parse_reply, ANSWER_BYTES, deadline)
        except TimedOut:
            raise NoProxy("timeout", "no answer from the proxy")
        except (NoSocks, TooLong):
            raise NoProxy("failed", "what listens at {} is no SOCKS 5 proxy".format(spell(self.place)), for_good=True)
        except (Ended, OSError):
            raise NoProxy("failed", "the proxy closed the connection without an answer")
        if code:
            kind, words = REPLIES.get(code, ("failed", "code {}".format(code)))
            raise OpenError(kind, "{} (the proxy says so)".format(words))

    async def _log_in(self, stream: Stream, deadline: float) -> None:
        """We are let in; WrongLogin."""
        login = self.login()
        await stream.send(bytes([5, 1, NO_LOGIN]) if login is None else bytes([5, 2, NO_LOGIN, BY_PASSWORD]), deadline)
        method = await stream.take(parse_method, ANSWER_BYTES, deadline)
        if method == BY_PASSWORD and login is not None:
            user, password = login
            said = bytes([1, len(user)]) + user + bytes([len(password)]) + password
            await stream.send(said, deadline)
            if await stream.take(parse_verdict, ANSWER_BYTES, deadline):
                raise self.wrong_login("SOCKS")
        elif method != NO_LOGIN:
            raise self.wrong_login("SOCKS, method {}".format(method))


def address(target: Target) -> bytes:
    """Where to, as the protocol has it."""
    packed = pack_address(target.host)
    if packed is None:
        name = target.host.encode("ascii")
        return bytes([NAME, len(name)]) + name
    if packed.startswith(MAPPED):
        return bytes([IPV4]) + packed[len(MAPPED) :]
    return bytes([IPV6]) + packed


def parse_method(data: bytes) -> Optional[Tuple[int, int]]:
    """How the proxy wants us to log in; NoSocks."""
    if data[:1] not in (b"", b"\5"):
        raise NoSocks()
    return (2, data[1]) if len(data) >= 2 else None


def parse_verdict(data: bytes) -> Optional[Tuple[int, int]]:
    """0 if it takes the password (RFC 1929); its version is not looked at, for some say 5."""
    return (2, data[1]) if len(data) >= 2 else None


def parse_reply(data: bytes) -> Optional[Tuple[int, int]]:
    """The code of its answer, 0 if it is connected; the address in it, which nobody needs, belongs to it; NoSocks."""
    if data[:1] not in (b"", b"\5"):
        raise NoSocks()
    if len(data) < 5:
        return None
    sizes = {IPV4: 10, IPV6: 22, NAME: 7 + data[4]}
    if data[3] not in sizes:
        raise NoSocks()
    return (sizes[data[3]], data[1]) if len(data) >= sizes[data[3]] else None

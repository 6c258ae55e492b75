"""SOCKS 4, 4a and 5 (RFC 1928), pure functions over bytes: each returns (size, value), or None while it needs more."""

import socket
import struct
from typing import NamedTuple, Optional, Tuple

from ..upstream.target import Target, check_host

CONNECT = 1
NO_AUTHENTICATION = 0
NONE_ACCEPTABLE = 0xFF
IPV4, NAME, IPV6 = 1, 3, 4
GENERAL_FAILURE, NOT_SUPPORTED, BAD_ADDRESS_TYPE = 1, 7, 8

Request = NamedTuple("Request", [("command", int), ("target", Target)])


class BadSocks(Exception):
    """Not a request that can be served; `code` is SOCKS 5's name for it, None if no answer would be understood."""

    def __init__(self, reason: str, code: Optional[int] = None) -> None:
        self.code = code
        super().__init__(reason)


def parse_greeting(data: bytes) -> Optional[Tuple[int, bytes]]:
    """SOCKS 5: the authentication methods that the client offers."""
    if len(data) < 2 or len(data) < 2 + data[1]:
        return None
    return 2 + data[1], data[2 : 2 + data[1]]


def parse_request5(data: bytes) -> Optional[Tuple[int, Request]]:
    """SOCKS 5: what the client asks for."""
    if len(data) < 5:
        return None
    version, command, kind = data[0], data[1], data[3]
    if version != 5:
        raise BadSocks("version {} in a SOCKS 5 request".format(version))
    sizes = {IPV4: 8, IPV6: 20, NAME: 5 + data[4]}
    if kind not in sizes:
        raise BadSocks("address type {}".format(kind), BAD_ADDRESS_TYPE)
    end = sizes[kind]
    if len(data) < end + 2:
        return None
    if kind == NAME:
        host = read_name(data[5:end])
    else:
        host = socket.inet_ntop(socket.AF_INET if kind == IPV4 else socket.AF_INET6, data[4:end])
    return end + 2, Request(command, Target(host, struct.unpack_from(">H", data, end)[0]))


def parse_request4(data: bytes) -> Optional[Tuple[int, Request]]:
    """SOCKS 4 and 4a: what the client asks for; its user name is not believed, and not kept."""
    if len(data) < 9:
        return None
    end = data.find(b"\0", 8)
    if end < 0:
        return None
    command, port = struct.unpack_from(">BH", data, 1)
    address = data[4:8]
    if address[:3] == b"\0\0\0" and address[3]:
        start = end + 1
        end = data.find(b"\0", start)
        if end < 0:
            return None
        host = read_name(data[start:end])
    else:
        host = socket.inet_ntoa(address)
    return end + 1, Request(command, Target(host, port))


def read_name(data: bytes) -> str:
    """A host name as the client sent it; BadSocks."""
    host = data.decode("latin-1")
    problem = check_host(host)
    if problem:
        raise BadSocks(problem, GENERAL_FAILURE)
    return host


def reply5(code: int) -> bytes:
    """SOCKS 5's answer; the bound address is not known here, and nobody needs it for CONNECT."""
    return struct.pack(">BBBB4sH", 5, code, 0, IPV4, b"\0" * 4, 0)


def reply4(granted: bool) -> bytes:
    """SOCKS 4's answer: 90 granted, 91 rejected or failed."""
    return struct.pack(">BBH4s", 0, 90 if granted else 91, 0, b"\0" * 4)

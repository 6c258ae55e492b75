"""The bytes of OpenSSH's multiplexing protocol, version 4 (PROTOCOL.mux in its source), as pure functions."""

import struct
from typing import NamedTuple, Optional, Tuple, Union

VERSION = 4
HELLO = 0x00000001
ALIVE_CHECK = 0x10000004
NEW_STDIO_FWD = 0x10000008
PERMISSION_DENIED = 0x80000002
FAILURE = 0x80000003
ALIVE = 0x80000005
SESSION_OPENED = 0x80000006
MAX_PACKET = 256 * 1024

Reply = NamedTuple("Reply", [("kind", int), ("number", int), ("text", str)])


class BadPacket(Exception):
    """What the master said is no PROTOCOL.mux."""


def packet(*numbers: int, body: bytes = b"") -> bytes:
    """The numbers as uint32 and the body, with their length in front."""
    content = struct.pack(">{}I".format(len(numbers)), *numbers) + body
    return struct.pack(">I", len(content)) + content


def string(text: str) -> bytes:
    """A string in ssh wire format."""
    data = text.encode("ascii")
    return struct.pack(">I", len(data)) + data


def hello() -> bytes:
    """The first thing that each side says."""
    return packet(HELLO, VERSION)


def open_channel(request: int, host: str, port: int) -> bytes:
    """Ask for a channel to host:port; two descriptors must follow at once, each with one byte."""
    return packet(NEW_STDIO_FWD, request, body=string("") + string(host) + struct.pack(">I", port))


def alive_check(request: int) -> bytes:
    """Ask whether the master still turns."""
    return packet(ALIVE_CHECK, request)


def parse(data: Union[bytes, bytearray]) -> Optional[Tuple[int, Reply]]:
    """The first packet in `data` and its size, or None while it is not whole.

    `number` is the session id, the version or the pid, according to `kind`; `text` the reason of a failure.
    """
    if len(data) < 4:
        return None
    length = struct.unpack_from(">I", data)[0]
    if not 8 <= length <= MAX_PACKET:
        raise BadPacket("packet of {} bytes".format(length))
    if len(data) < 4 + length:
        return None
    kind, number = struct.unpack_from(">II", data, 4)
    text = ""
    if kind in (SESSION_OPENED, ALIVE) and length >= 12:
        number = struct.unpack_from(">I", data, 12)[0]
    elif kind in (FAILURE, PERMISSION_DENIED) and length >= 12:
        size = struct.unpack_from(">I", data, 12)[0]
        text = data[16 : min(16 + size, 4 + length)].decode("ascii", "replace")
    return 4 + length, Reply(kind, number, text)

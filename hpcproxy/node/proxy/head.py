"""HTTP/1.x heads (RFC 9112): what two readers could read in two ways is refused in requests.

In responses it is mended where the RFC lets a proxy do so: what is written to the client can be read in one way only.
"""

import re
from typing import List, NamedTuple, Optional, Tuple

from ..upstream.target import BadTarget, Target, parse_authority

TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+\Z")
VERSION = re.compile(r"HTTP/(\d)\.(\d)\Z", re.ASCII)
STATUS = re.compile(r"HTTP/1\.(\d)[ \t]+([1-9]\d\d)(?:[ \t](.*))?\Z", re.ASCII)
VISIBLE = re.compile("[!-~\x80-\xff]+\\Z")  # raw UTF-8 in a path is no delimiter to anybody, and servers read it
CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
HEAD_END = re.compile(rb"\r?\n\r?\n")
DIGITS = re.compile(r"[0-9]{1,18}\Z")
# Meant for the next hop only (RFC 9110, 7.6.1). Transfer-Encoding stays: bodies are passed on as they are framed.
HOP_BY_HOP = (
    "connection",
    "proxy-connection",
    "keep-alive",
    "te",
    "proxy-authorization",
    "proxy-authenticate",
    "upgrade",
)
# Naming one of these in `Connection` would remove what the meaning of the message hangs on.
NEVER_NOMINATED = ("host", "content-length", "transfer-encoding", "expect", "cache-control", "authorization")

Header = Tuple[str, str]
Request = NamedTuple("Request", [("method", str), ("target", str), ("minor", int), ("headers", List[Header])])
Response = NamedTuple("Response", [("minor", int), ("status", int), ("line", str), ("headers", List[Header])])


class BadRequest(Exception):
    """Not a message that can be passed on; `kind` is one of answer.ANSWERS."""

    def __init__(self, reason: str, kind: str = "bad") -> None:
        self.kind = kind
        super().__init__(reason)


def parse_request(data: bytes) -> Optional[Tuple[int, Request]]:
    """The request head at the start of `data` and its size; None while it is not whole; BadRequest.

    One empty line before it belongs to it: old clients send that after a body (RFC 9112, 2.2).
    """
    skipped = 2 if data.startswith(b"\r\n") else 0
    found = split_head(data[skipped:])
    if found is None:
        return None
    size, lines = skipped + found[0], found[1]
    parts = lines[0].split(" ")
    if len(parts) != 3:
        raise BadRequest("no request line")
    method, target, version = parts
    if not TOKEN.match(method):
        raise BadRequest("no method")
    matched = VERSION.match(version)
    if not matched:
        raise BadRequest("no HTTP version")
    if matched.group(1) != "1":
        raise BadRequest("{} is not spoken here".format(version), "version")
    if not VISIBLE.match(target):
        raise BadRequest("unprintable characters in the request target")
    return size, Request(method, target, min(1, int(matched.group(2))), parse_headers(lines[1:]))


def parse_response(data: bytes) -> Optional[Tuple[int, Response]]:
    """The response head at the start of `data` and its size; None while it is not whole; BadRequest."""
    found = split_lenient_head(data)
    if found is None:
        return None
    size, lines = found
    matched = STATUS.match(lines[0])
    if not matched:
        raise BadRequest("no HTTP/1 status line")
    minor, status, reason = matched.groups()
    line = "HTTP/1.{} {}".format(minor, status) + ("" if reason is None else " " + reason.strip(" \t"))
    headers = settle_framing(parse_lenient_headers(lines[1:]))
    return size, Response(min(1, int(minor)), int(status), line, headers)


def split_head(data: bytes) -> Optional[Tuple[int, List[str]]]:
    """The lines of the head; every line ends with CR LF, and neither stands anywhere else."""
    end = data.find(b"\r\n\r\n")
    head = data if end < 0 else data[:end]
    if head.startswith(b"\r\n"):
        raise BadRequest("empty lines before the request")
    bare = head.replace(b"\r\n", b"")
    if b"\n" in bare or b"\r" in bare.rstrip(b"\r") or b"\0" in bare:
        raise BadRequest("a bare CR, LF or NUL in the head")
    if end < 0:
        return None
    return end + 4, head.decode("latin-1").split("\r\n")


def split_lenient_head(data: bytes) -> Optional[Tuple[int, List[str]]]:
    """As split_head, but a line may end with LF alone, and any other CR is a blank (RFC 9112, 2.2)."""
    end = HEAD_END.search(data)
    head = data[: end.start()] if end else data
    if b"\0" in head:
        raise BadRequest("a NUL in the head")
    return (end.end(), head.replace(b"\r\n", b"\n").replace(b"\r", b" ").decode("latin-1").split("\n")) if end else None


def parse_headers(lines: List[str]) -> List[Header]:
    """Names and values of a request. Folded lines, spaces before the colon and control characters are refused."""
    headers = []
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon or not TOKEN.match(name):
            raise BadRequest("a header line that is none")
        value = value.strip(" \t")
        if CONTROL.search(value):
            raise BadRequest("control characters in header {}".format(name))
        headers.append((name, value))
    return headers


def parse_lenient_headers(lines: List[str]) -> List[Header]:
    """Names and values of a response, written so that they can be read in one way only.

    A folded line is joined to the one before it, spaces before a colon are removed (RFC 9112, 5.1 and 5.2), and so is a
    line that is no header. Odd names and control characters that delimit nothing are passed on; nothing hangs on them.
    """
    headers: List[Header] = []
    whole: List[str] = []
    for line in lines:
        if line[:1] not in (" ", "\t"):
            whole.append(line)
        elif not whole or not line.strip(" \t"):
            raise BadRequest("a header line that is none")
        else:
            whole[-1] = "{} {}".format(whole[-1], line.strip(" \t"))
    for line in whole:
        name, colon, value = line.partition(":")
        name = name.rstrip(" \t")
        if colon and name and (TOKEN.match(name) or name.isprintable()):
            headers.append((name, value.strip(" \t")))
    return headers


def collapse_lengths(headers: List[Header]) -> List[Header]:
    """One Content-Length instead of several that are the same (RFC 9110, 8.6); others stay, and are refused later."""
    found = [word.strip(" \t") for value in values(headers, "content-length") for word in value.split(",")]
    if len(found) < 2 or len(set(found)) > 1:
        return headers
    others = [header for header in headers if header[0].lower() != "content-length"]
    return [*others, ("Content-Length", found[0])]


def settle_framing(headers: List[Header]) -> List[Header]:
    """The headers of a response with one word on where its body ends (RFC 9112, 6.1 and 6.3).

    `identity` says nothing, `chunked` twice is chunked once, and beside it a Content-Length is removed. What is left is
    refused later: other codings, lengths that differ.
    """
    codings = [word for word in tokens(headers, "transfer-encoding") if word != "identity"]
    if codings and set(codings) != {"chunked"}:
        return headers
    dropped = ("transfer-encoding", "content-length") if codings else ("transfer-encoding",)
    kept = [header for header in headers if header[0].lower() not in dropped]
    return [*kept, ("Transfer-Encoding", "chunked")] if codings else collapse_lengths(kept)


def values(headers: List[Header], name: str) -> List[str]:
    """All values of header `name` (lower case)."""
    return [value for key, value in headers if key.lower() == name]


def tokens(headers: List[Header], name: str) -> List[str]:
    """The comma-separated words of all headers `name`, in lower case."""
    return [word.strip().lower() for value in values(headers, name) for word in value.split(",") if word.strip()]


def body_length(headers: List[Header], minor: int) -> Optional[int]:
    """Bytes of the body that these headers announce: a number, -1 for chunked, None if they say nothing; BadRequest."""
    lengths, codings = values(headers, "content-length"), values(headers, "transfer-encoding")
    if codings:
        if lengths:
            raise BadRequest("both Content-Length and Transfer-Encoding")
        if minor < 1:
            raise BadRequest("Transfer-Encoding in HTTP/1.0")
        if tokens(headers, "transfer-encoding") != ["chunked"] or len(codings) != 1:
            raise BadRequest("a Transfer-Encoding other than chunked", "scheme")
        return -1
    if not lengths:
        return None
    if len(lengths) != 1 or not DIGITS.match(lengths[0]):
        raise BadRequest("a Content-Length that is no number")
    return int(lengths[0])


def split_url(url: str) -> Tuple[Target, str, str]:
    """(where, authority as written, path and query) of an absolute http:// URL; BadRequest."""
    scheme, separator, rest = url.partition("://")
    if not separator or not scheme.isalpha():
        raise BadRequest("this is a proxy: it takes CONNECT host:port and http:// URLs")
    if scheme.lower() not in ("http", "ws"):
        raise BadRequest("{}:// goes through a proxy by CONNECT only".format(scheme.lower()), "scheme")
    cut = min([rest.find(c) for c in "/?#" if c in rest] or [len(rest)])
    authority, path = rest[:cut], rest[cut:].partition("#")[0]
    if "@" in authority:
        raise BadRequest("user and password in the URL")
    try:
        target = parse_authority(authority, 80)
    except BadTarget as error:
        raise BadRequest(str(error))
    return target, authority, path if path.startswith("/") else "/" + path


def end_to_end(headers: List[Header]) -> List[Header]:
    """The headers that are meant for the other end."""
    nominated = [word for word in tokens(headers, "connection") if word not in NEVER_NOMINATED]
    return [(key, value) for key, value in headers if key.lower() not in HOP_BY_HOP and key.lower() not in nominated]


def upgrade(headers: List[Header]) -> Optional[str]:
    """The protocol that the client wants to change to, if it does."""
    wanted = values(headers, "upgrade")
    return ", ".join(wanted) if wanted and "upgrade" in tokens(headers, "connection") else None


def persistent(headers: List[Header], minor: int) -> bool:
    """The sender of these headers keeps the connection open after this message."""
    words = tokens(headers, "connection") + tokens(headers, "proxy-connection")
    if "close" in words:
        return False
    return minor >= 1 or "keep-alive" in words


def write_head(first_line: str, headers: List[Header]) -> bytes:
    """The head as bytes."""
    lines = [first_line] + ["{}: {}".format(key, value) for key, value in headers]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")

"""The outcome of a request in the client's own words: HTTP status lines and SOCKS codes."""

from typing import Dict, NamedTuple

Answer = NamedTuple("Answer", [("status", int), ("phrase", str), ("socks5", int)])

# RFC 9110 for the statuses; RFC 1928, section 6, for the codes.
ANSWERS: Dict[str, Answer] = {
    "refused": Answer(502, "Bad Gateway", 5),
    "name": Answer(502, "Bad Gateway", 4),
    "host": Answer(502, "Bad Gateway", 4),
    "network": Answer(502, "Bad Gateway", 3),
    "prohibited": Answer(502, "Bad Gateway", 2),
    "failed": Answer(502, "Bad Gateway", 1),
    "timeout": Answer(504, "Gateway Timeout", 6),
    "down": Answer(503, "Service Unavailable", 1),
    "busy": Answer(503, "Service Unavailable", 1),
    "denied": Answer(403, "Forbidden", 2),
    "bad": Answer(400, "Bad Request", 1),
    "late": Answer(408, "Request Timeout", 1),
    "long": Answer(431, "Request Header Fields Too Large", 1),
    "scheme": Answer(501, "Not Implemented", 1),
    "version": Answer(505, "HTTP Version Not Supported", 1),
}

CONNECTED = b"HTTP/1.1 200 Connection established\r\n\r\n"


def http_answer(kind: str, reason: str, with_body: bool = True) -> bytes:
    """A whole HTTP response that closes the connection.

    The reason stands in the status line too: many clients print that line and never show the body of a refused CONNECT.
    """
    answer = ANSWERS[kind]
    reason = "".join(c if 32 <= ord(c) < 127 else "?" for c in reason)[:300]
    body = "hpcproxy: {}\n".format(reason)
    head = "HTTP/1.1 {} {} ({})\r\nContent-Type: text/plain\r\nContent-Length: {}\r\nConnection: close\r\n\r\n"
    return (head.format(answer.status, answer.phrase, reason, len(body)) + (body if with_body else "")).encode("ascii")


def socks5_code(kind: str) -> int:
    """RFC 1928's reply field for this outcome."""
    return ANSWERS[kind].socks5

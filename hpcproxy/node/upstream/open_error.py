"""Why there is no way to a far end, as a kind that every dialect has an answer for, and as words."""

import errno
import os
from typing import Dict, Tuple

# What sshd says (it is strerror and gai_strerror of the jump host's C library) and the kind it is.
KINDS: Tuple[Tuple[str, str], ...] = (
    ("administratively prohibited", "prohibited"),
    ("name or service not known", "name"),
    ("name resolution", "name"),
    ("no address associated", "name"),
    ("nodename nor servname", "name"),
    ("non-recoverable failure", "name"),
    ("unknown host", "name"),
    ("name does not resolve", "name"),
    ("connection refused", "refused"),
    ("timed out", "timeout"),
    ("network is unreachable", "network"),
    ("no route to host", "host"),
    ("host is unreachable", "host"),
    ("host is down", "host"),
)
# The same where we connect ourselves (connect(2)).
ERRNO_KINDS: Dict[int, str] = {
    errno.ECONNREFUSED: "refused",
    errno.ETIMEDOUT: "timeout",
    errno.ENETUNREACH: "network",
    errno.ENETDOWN: "network",
    errno.EAFNOSUPPORT: "network",
    errno.EHOSTUNREACH: "host",
    errno.EHOSTDOWN: "host",
    errno.EACCES: "prohibited",
    errno.EPERM: "prohibited",
}


class OpenError(Exception):
    """No way to the far end: `kind` is one of answer.ANSWERS, `reason` is for a person."""

    def __init__(self, kind: str, reason: str) -> None:
        self.kind, self.reason = kind, reason
        super().__init__("{}: {}".format(kind, reason))


def explain(line: str) -> OpenError:
    """What ssh's "open failed: ..." means."""
    low = line.lower()
    for words, kind in KINDS:
        if words in low:
            return OpenError(kind, tidy(line))
    return OpenError("failed", tidy(line))


def from_errno(number: int) -> OpenError:
    """What a connect that ended with errno `number` means."""
    return OpenError(ERRNO_KINDS.get(number, "failed"), os.strerror(number))


def tidy(line: str) -> str:
    """`line` without the words that every such line has, printable, in one line."""
    for prefix in ("connect failed: ", "administratively prohibited: open failed"):
        if line.startswith(prefix):
            line = line[len(prefix) :] or "administratively prohibited"
    return "".join(c if 32 <= ord(c) < 127 else "?" for c in line)[:200]

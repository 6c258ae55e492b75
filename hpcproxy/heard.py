"""What another machine said, made fit for a terminal, a log and a report: the one place where that is done. Pure.

Whoever has a node may answer with escape sequences, with bytes that are no text, or with a secret of somebody's.
Nothing that was heard is shown or kept but by these functions.
"""

from __future__ import annotations

import re

LINE_MAX = 300
_FIELD_MAX = 20_000  # a status, as JSON
HIDDEN = "it looks like a secret and is not shown"
# A private key in any format, and what configuration files call their secrets. In doubt it is one: a diff that is not
# shown costs a look at the host.
_SECRET = re.compile(
    rb"PRIVATE KEY|PuTTY-User-Key-File|"
    rb"(?i:\b(?:pass(?:word|wd|phrase)|secret|(?:api|access|auth|bearer)[_-]?(?:key|token)|token)"
    rb"[\"']?[ \t]*[:=][ \t]*[\"']?[^\s\"'])"
)
# What stands before the host in an address: a user, and often his password.
_LOGIN = re.compile(r"(?<=://)[^/?#\s\"']*@")


def line(said: bytes | str, limit: int = LINE_MAX) -> str:
    """Return `said` as one line of printable text, at most `limit` characters of it."""
    text = said.decode(errors="replace") if isinstance(said, bytes) else said
    # What turns a line around (bidi) is not printable either; U+FFFD no terminal of another code has.
    text = text[: limit + 1].expandtabs(4)
    shown = "".join(each if each.isprintable() and each != "\ufffd" else "?" for each in text)
    return shown if len(shown) <= limit else f"{shown[: limit - 1]}…"


def last_line(said: bytes) -> str:
    """Return the last line of `said` that holds anything, as `line` does; empty if there is none."""
    lines = [each for each in said[-4 * LINE_MAX :].splitlines() if each.strip()]
    return line(lines[-1].strip()) if lines else ""


def is_secret(content: bytes) -> bool:
    """Whether `content` looks as if it held a secret."""
    return _SECRET.search(content) is not None


def without_secrets(said: str, limit: int = LINE_MAX) -> str:
    """Return `said` as `line` does, without a login in an address; HIDDEN if it looks as if it held a secret."""
    return HIDDEN if is_secret(said.encode(errors="replace")) else line(_LOGIN.sub("…@", said), limit)


def fields(said: str) -> str:
    """Return `said`, a line of fields with tabs between them, each as `line` does."""
    return "\t".join(line(each, _FIELD_MAX) for each in said.split("\t"))

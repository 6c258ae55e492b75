"""Put our marked block into somebody's file and take it out again. Pure: bytes in, bytes out.

Laws, held by tests over generated files: `remove(put(t)) == t`, `put(put(t)) == put(t)`, and what stands outside the
markers never changes. Bytes, not text: a file need not be UTF-8.
"""

from __future__ import annotations

import io
from dataclasses import dataclass

from hpcproxy.errors import BlockError
from hpcproxy.shell_lines import shell_line

BEGIN = b"# >>> hpcproxy >>>"
END = b"# <<< hpcproxy <<<"
# Stands behind BEGIN where the text above had no final newline: `put` had to add one and `remove` takes it back.
_ADDED_NEWLINE = b" (the line above had no newline)"
# Stands there where `put` made the file: an empty one that was there before must be there afterwards.
_MADE_FILE = b" (there was no file)"

_BEGIN_LINES = (BEGIN, BEGIN + _ADDED_NEWLINE, BEGIN + _MADE_FILE)


def bashrc_pointer() -> bytes:
    """Return the constant pointer that `.bashrc` gets; all that changes lives in our own file."""
    return f"{shell_line('pointer')}\n".encode()


@dataclass(frozen=True)
class _Found:
    before: bytes
    begin_line: bytes
    after: bytes


def put(text: bytes | None, body: bytes, path: str = "text") -> bytes:
    """Return `text` (None: no file yet) with `body` in our block: in place of an earlier one, else at the end.

    The block's own lines end in LF even where the file's end in CRLF: a shell must be able to read them.
    Raises BlockError if the markers are damaged.
    """
    if text is None:
        return BEGIN + _MADE_FILE + b"\n" + body + END + b"\n"
    found = _find(text, path)
    if found is not None:
        return found.before + found.begin_line + b"\n" + body + END + b"\n" + found.after
    if text and not text.endswith(b"\n"):
        return text + b"\n" + BEGIN + _ADDED_NEWLINE + b"\n" + body + END + b"\n"
    return text + BEGIN + b"\n" + body + END + b"\n"


def remove(text: bytes, path: str = "text") -> bytes:
    """Return `text` without our block, byte for byte as before `put`; raises BlockError if the markers are damaged."""
    found = _find(text, path)
    if found is None:
        return text
    # What somebody appended later stays a line of its own, so the added newline is taken back at the end only.
    if found.begin_line.endswith(_ADDED_NEWLINE) and not found.after:
        return found.before[:-1]
    return found.before + found.after


def is_ours_alone(text: bytes, path: str = "text") -> bool:
    """Whether `put` made the file and nobody has added to it, so that it goes when our block goes."""
    found = _find(text, path)
    return found is not None and found.begin_line.endswith(_MADE_FILE) and not found.before + found.after


def _find(text: bytes, path: str) -> _Found | None:
    lines = io.BytesIO(text).readlines()  # splits at LF only: a lone CR or form feed is part of somebody's line
    begins = [i for i, line in enumerate(lines) if line.rstrip() in _BEGIN_LINES]
    ends = [i for i, line in enumerate(lines) if line.rstrip() == END]
    if not begins and not ends:
        return None
    if len(begins) > 1 or len(ends) > 1:
        numbers = " and ".join(str(number + 1) for number in begins)
        raise BlockError(path, f"holds the hpcproxy block more than once (lines {numbers})")
    if not ends or not begins or ends[0] < begins[0]:
        raise BlockError(path, "holds only half of the hpcproxy block")
    begin, end = begins[0], ends[0]
    return _Found(b"".join(lines[:begin]), lines[begin].rstrip(), b"".join(lines[end + 1 :]))

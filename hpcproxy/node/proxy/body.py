"""Where the body of an HTTP message ends. The bytes are passed on as they came: only counted, and checked."""

import re

# Zeros in front and blanks behind change nothing, and some servers write sizes of a fixed width.
SIZE_LINE = re.compile(rb"0{0,48}([0-9A-Fa-f]{1,15})[ \t]*(;[^\r\n\0]*)?\Z")
LONGEST_LINE = 4096
LONGEST_TRAILER = 65536


class BadBody(Exception):
    """The framing is broken: what follows cannot be told from the next message."""


class Fixed:
    """`length` bytes."""

    def __init__(self, length: int) -> None:
        self.left = length

    @property
    def done(self) -> bool:
        """All bytes have passed."""
        return self.left == 0

    def most(self) -> int:
        """So many bytes may be read at once, and all of them belong to the body."""
        return self.left

    def count(self, size: int) -> None:
        """`size` more bytes have passed."""
        self.left -= size


class UntilClose:
    """All that comes."""

    done = False

    def most(self) -> int:
        """As Fixed."""
        return 1 << 30

    def count(self, size: int) -> None:
        """As Fixed."""


class Chunked:
    """RFC 9112, 7.1: sizes in hex, each on a line, data, a chunk of size 0, trailers, an empty line."""

    def __init__(self) -> None:
        self.done = False
        self.left = 0  # bytes of the present chunk still to come, its final CR LF included
        self.in_trailer = False
        self.trailer = 0

    def feed(self, data: bytes) -> int:
        """How many bytes at the start of `data` belong to the body; less than all of an unfinished line; BadBody."""
        at = 0
        while at < len(data) and not self.done:
            if self.left > 2:
                size = min(self.left - 2, len(data) - at)
                self.left -= size
                at += size
                continue
            step = self._chunk_end(data, at) if self.left else self._line(data, at)
            if not step:
                break
            at += step
        return at

    def _chunk_end(self, data: bytes, at: int) -> int:
        found = data[at : at + 2]
        if not b"\r\n".startswith(found):
            raise BadBody("a chunk longer than its size")
        if len(found) < 2:
            return 0
        self.left = 0
        return 2

    def _line(self, data: bytes, at: int) -> int:
        end = data.find(b"\r\n", at, at + LONGEST_LINE)
        if end < 0:
            if len(data) - at >= LONGEST_LINE:
                raise BadBody("a line of more than {} bytes".format(LONGEST_LINE))
            return 0
        line = data[at:end]
        if b"\n" in line or b"\r" in line or b"\0" in line:
            raise BadBody("a bare CR, LF or NUL between chunks")
        if self.in_trailer:
            self._trailer(line)
        else:
            self._size(line)
        return end + 2 - at

    def _size(self, line: bytes) -> None:
        found = SIZE_LINE.match(line)
        if not found:
            raise BadBody("a chunk size that is no number")
        size = int(found.group(1), 16)
        self.in_trailer = size == 0
        self.left = size + 2 if size else 0

    def _trailer(self, line: bytes) -> None:
        self.trailer += len(line)
        if self.trailer > LONGEST_TRAILER:
            raise BadBody("trailers of more than {} bytes".format(LONGEST_TRAILER))
        if line and (line[:1] in b" \t" or b":" not in line):
            raise BadBody("a trailer line that is none")
        self.done = not line

"""A file with a secret of this user's: his alone, or not used. What is in it goes into no variable, argument or log."""

import os
import stat
from typing import NamedTuple, Optional, Tuple

LONGEST = 4096

# User name and password, as the file has them.
Login = NamedTuple("Login", [("user", bytes), ("password", bytes)])


class BadSecret(Exception):
    """The file cannot be used; the message says why, and nothing of what is in it."""


class LoginFile:
    """`USER:PASSWORD` in the first line of the file at `path`; an empty path: nobody has any."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.seen: Optional[Tuple[int, ...]] = None
        self.login: Optional[Login] = None

    def read(self) -> Optional[Login]:
        """What the file says now, None if there is none to be read; BadSecret. It is read anew when it has changed."""
        if not self.path:
            return None
        try:
            fd = os.open(self.path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            raise BadSecret("{}: {}".format(self.path, error.strerror))
        try:
            found = os.fstat(fd)
            seen = (found.st_dev, found.st_ino, found.st_mtime_ns, found.st_size, found.st_mode, found.st_uid)
            if seen != self.seen or self.login is None:
                self.login = None
                self._check(found)
                self.login = self._parse(os.read(fd, LONGEST))
                self.seen = seen
        finally:
            os.close(fd)
        return self.login

    def _check(self, found: os.stat_result) -> None:
        if not stat.S_ISREG(found.st_mode):
            raise BadSecret("{} is no file".format(self.path))
        if found.st_uid != os.geteuid():
            raise BadSecret("{} belongs to somebody else".format(self.path))
        if stat.S_IMODE(found.st_mode) & 0o077:
            raise BadSecret("others may read or write {}: chmod 600 it".format(self.path))

    def _parse(self, data: bytes) -> Login:
        line = data.split(b"\n", 1)[0].rstrip(b"\r")
        user, colon, password = line.partition(b":")
        # RFC 1929 counts both in one byte; RFC 7617 has no control characters.
        fit = all(0 < len(part) < 256 and min(part) >= 32 and 127 not in part for part in (user, password))
        if not colon or not fit:
            raise BadSecret("{}: its first line is not USER:PASSWORD".format(self.path))
        return Login(user, password)

"""The state directory: ours alone, or not used."""

import os
import stat
from typing import List

PATH_LIMIT = 107  # sun_path holds 108 bytes, its final NUL included
LONGEST_ENV = 1 << 20
SSH_SUFFIX = len("/ctl.") + 16  # ssh makes its control socket under a temporary name first
OURS = ("turn", "ctl", "pid", "host", "log", "status.json", "status.json.tmp", "access.log")


class BadFolder(Exception):
    """The directory cannot be used; says why."""


class TooDeep(Exception):
    """The directory's name is too long for the sockets in it."""


class Folder:
    """The directory at `path`, checked. BadFolder if somebody else could write there, TooDeep."""

    def __init__(self, path: str) -> None:
        self.path = os.path.abspath(path)
        self.pid = os.getpid()  # whoever works for it later: this process holds it
        check(self.path)
        holder = self._holder()
        if holder:
            raise BadFolder("{}: is held by process {}".format(self.path, holder))
        length = len(os.fsencode(self.path)) + SSH_SUFFIX
        if length > PATH_LIMIT:
            raise TooDeep("{}: sockets in it need {} bytes, {} are possible".format(self.path, length, PATH_LIMIT))
        # Somebody's home is 0700 and theirs too. What we find here decides what we may remove at the end.
        self.only_ours = all(plain_file(entry) for entry in os.scandir(self.path))
        self.environment, self.host = self._read("env"), self._read("host")

    def write_pid(self) -> None:
        """`pid` names the process that holds the directory, and no other: PID and start time (proc(5), 22)."""
        words = "{} {}\n".format(self.pid, start_time(self.pid)).encode()
        # tunnel.sh has written the same: to whoever looks while it is written anew, nobody would be here.
        if self._read("pid") != words:
            self._write("pid", words)

    def restore(self) -> bool:
        """The directory is there, with `pid` and tunnel.sh's `env` in it; True if they were not. BadFolder.

        A job may empty its TMPDIR, and what is in it then need not be ours.
        """
        if not os.path.lexists(self.path):
            try:
                os.mkdir(self.path, 0o700)
            except OSError as error:
                raise BadFolder("{}: cannot be made anew: {}".format(self.path, error.strerror))
        check(self.path)
        if os.path.lexists(os.path.join(self.path, "pid")):
            return False
        self.write_pid()
        if self.environment:
            self._write("host", self.host)
            self._write("env", self.environment)
            self._write("turn", b"")
        return True

    def _read(self, name: str) -> bytes:
        """What tunnel.sh or we have written there; b"" if there is none."""
        try:
            fd = os.open(os.path.join(self.path, name), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            return b""
        with open(fd, "rb") as file:
            return file.read(LONGEST_ENV)

    def _write(self, name: str, data: bytes) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            fd = os.open(os.path.join(self.path, name), flags, 0o600)
        except OSError:
            return  # a full disk: nobody can find us, but the way out serves
        try:
            os.write(fd, data)
        except OSError:
            pass  # the same
        finally:
            os.close(fd)

    def _holder(self) -> int:
        """The pid of a living agent whose directory this is, or 0. Two in one directory would remove each other's."""
        try:
            with open(os.path.join(self.path, "pid")) as file:
                pid, started = file.read(64).split()
            # tunnel.sh writes the file and becomes this process: then it names us.
            return int(pid) if int(pid) != self.pid and start_time(int(pid)) == started else 0
        except (OSError, ValueError):
            return 0  # no such file, or none of ours: nobody is there

    def remove(self) -> None:
        """The directory and what is in it are gone. One that held more than files when we came loses only ours."""
        try:
            check(self.path)
        except BadFolder:
            return  # gone, and perhaps somebody else's in its place
        for name in self._names():
            try:
                os.unlink(os.path.join(self.path, name))
            except OSError:
                pass  # gone already, or a directory: then rmdir fails too, and it all stays
        try:
            os.rmdir(self.path)
        except OSError:
            pass  # something is left that is not ours to remove

    def _names(self) -> List[str]:
        try:
            names = os.listdir(self.path)
        except OSError:
            return []
        return [name for name in names if self.only_ours or name in OURS or name.startswith("ctl.")]


def start_time(pid: int) -> str:
    """When process `pid` was started, in the kernel's ticks since boot (proc(5), stat, field 22); OSError."""
    with open("/proc/{}/stat".format(pid), "rb") as file:
        return file.read().rpartition(b")")[2].split()[19].decode()


def check(path: str) -> None:
    """`path` is a directory, not a link, ours, and closed to everybody else; BadFolder."""
    try:
        found = os.lstat(path)
    except OSError as error:
        raise BadFolder("{}: {}".format(path, error.strerror))
    if not stat.S_ISDIR(found.st_mode):
        raise BadFolder("{}: is no directory".format(path))
    if found.st_uid != os.geteuid():
        raise BadFolder("{}: belongs to uid {}, not to {}".format(path, found.st_uid, os.geteuid()))
    if stat.S_IMODE(found.st_mode) & 0o077:
        raise BadFolder("{}: has mode {:04o}, must be 0700".format(path, stat.S_IMODE(found.st_mode)))


def plain_file(entry: "os.DirEntry[str]") -> bool:
    """A file that a state directory may hold."""
    return not entry.is_dir(follow_symlinks=False) and not entry.name.startswith(".")

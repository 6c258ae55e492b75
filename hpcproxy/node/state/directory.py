"""The state directory: ours alone, or not used. It is opened once, checked, and used by that descriptor from then on.

Its name may be another's later: a job empties its TMPDIR, a cleaner of /tmp takes the directory away, and somebody else
makes the name anew. So every file is opened relative to the descriptor; what knows names only (ssh, Unix sockets) uses
names relative to the working directory, which `enter` makes this one.
"""

import os
import stat

from ..io.peer import OVERFLOW_UID, sees_all_users

LONGEST_ENV = 1 << 20
OURS = ("turn", "ctl", "pid", "host", "log", "status.json", "status", "status.tmp", "access.log", "ssh_config", "hop")
DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


class BadFolder(Exception):
    """The directory cannot be used; says why."""


class Folder:
    """The directory at `path`, held open and checked. BadFolder if somebody else could write there."""

    def __init__(self, path: str) -> None:
        self.path = os.path.abspath(path)
        self.pid = os.getpid()  # whoever works for it later: this process holds it
        self.entered = False
        self.fd = open_ours(self.path)
        supervisor = self._supervisor()
        if supervisor:
            raise BadFolder("{}: is held by process {}".format(self.path, supervisor))
        # Somebody's home is 0700 and theirs too. What we find here decides what we may remove at the end.
        self.only_ours = all(plain_file(name, self.fd) for name in os.listdir(self.fd))
        self.environment, self.host = self._read("env"), self._read("host")
        self.config = self._read("ssh_config")  # of a supervisor that root started (userconfig.sh)
        self.hop = self._read("hop")  # where there may be hosts on the way (ssh.sh)

    def enter(self) -> None:
        """It is this process's working directory, and stays so when it is made anew."""
        self.entered = True
        os.fchdir(self.fd)

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
        if self._is_there():
            if self._read("pid"):
                return False
        else:
            self._take(make_ours(self.path))
        self.write_pid()
        if self.environment:
            self._write("host", self.host)
            self._write("env", self.environment)
            self._write("ssh_config", self.config)
            if self.hop:
                self._write("hop", self.hop, 0o700)
            self._write("turn", b"")
        return True

    def _is_there(self) -> bool:
        """The name still means the directory that we hold."""
        try:
            return os.path.samestat(os.lstat(self.path), os.fstat(self.fd))
        except OSError:
            return False

    def _take(self, fd: int) -> None:
        os.close(self.fd)
        self.fd = fd
        if self.entered:
            os.fchdir(fd)

    def _read(self, name: str) -> bytes:
        """What tunnel.sh or we have written there; b"" if there is none."""
        try:
            fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=self.fd)
        except OSError:
            return b""
        with open(fd, "rb") as file:
            return file.read(LONGEST_ENV)

    def _write(self, name: str, data: bytes, mode: int = 0o600) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            fd = os.open(name, flags, mode, dir_fd=self.fd)
        except OSError:
            return  # a full disk: nobody can find us, but the tunnel serves
        try:
            os.write(fd, data)
        except OSError:
            pass  # the same
        finally:
            os.close(fd)

    def _supervisor(self) -> int:
        """The pid of a living agent whose directory this is, or 0. Two in one directory would remove each other's."""
        try:
            pid, started = self._read("pid").decode("ascii").split()
            # tunnel.sh writes the file and becomes this process: then it names us.
            return int(pid) if int(pid) != self.pid and start_time(int(pid)) == started else 0
        except (OSError, ValueError):
            return 0  # no such file, or none of ours: nobody is there

    def remove(self) -> None:
        """The directory and what is in it are gone. One that held more than files when we came loses only ours."""
        try:
            if not self._is_there():  # a worker of ours has made it anew, or somebody else has
                self._take(open_ours(self.path))
            for name in os.listdir(self.fd):
                if self.only_ours or name in OURS or name.startswith(("ctl.", "rev.")):
                    remove_file(name, self.fd)
            os.rmdir(self.path)  # an empty one: whose it is by now, it was to be no more
            if is_home(os.path.dirname(self.path)):
                os.rmdir(os.path.dirname(self.path))
        except (BadFolder, OSError):
            pass  # gone, or somebody else's; or something is left that is not ours to remove


def is_home(path: str) -> bool:
    """`path` is by its name one of those in which the state directories of this user stand; home.sh has the rule."""
    name = "hpcproxy-{}".format(os.geteuid())
    return os.path.basename(path) == name or os.path.basename(path).startswith(name + "-")


def open_ours(path: str) -> int:
    """A descriptor of the directory `path`: not a link, ours, and closed to everybody else; BadFolder."""
    try:
        if not stat.S_ISDIR(os.lstat(path).st_mode):
            raise BadFolder("{}: is no directory".format(path))
        fd = os.open(path, DIRECTORY | os.O_NOFOLLOW)
    except OSError as error:
        raise BadFolder("{}: {}".format(path, error.strerror))
    found = os.fstat(fd)
    why = ""
    if found.st_uid != os.geteuid():
        why = "belongs to uid {}, not to {}".format(found.st_uid, os.geteuid())
    elif stat.S_IMODE(found.st_mode) & 0o077:
        why = "has mode {:04o}, must be 0700".format(stat.S_IMODE(found.st_mode))
    if why:
        os.close(fd)
        raise BadFolder("{}: {}".format(path, why))
    return fd


def make_ours(path: str) -> int:
    """A descriptor of the directory `path`, which is made if it is not there, and so is the user's own above it.

    Only where nobody else can rename or remove it again. BadFolder.
    """
    parent = os.path.dirname(path)
    for directory in (parent, path):
        above = os.path.dirname(directory)
        if directory == parent and (not is_home(parent) or os.path.lexists(parent)):
            continue
        try:
            check_base(above)
            os.mkdir(directory, 0o700)
        except FileExistsError:
            pass  # then it must be ours
        except OSError as error:
            raise BadFolder("{}: cannot be made anew: {}".format(path, error.strerror))
    if is_home(parent):
        os.close(open_ours(parent))
    return open_ours(path)


def check_base(path: str) -> None:
    """Nobody but root and this user can rename or remove what this user makes in `path`; BadFolder, OSError."""
    found = os.stat(path)
    # Inside a user namespace root may show as the overflow uid.
    roots = found.st_uid == 0 or (found.st_uid == OVERFLOW_UID and not sees_all_users())
    others_write = found.st_mode & 0o022
    if roots and (found.st_mode & stat.S_ISVTX or not others_write):
        return
    if found.st_uid != os.geteuid() or others_write:
        raise BadFolder("{}: others can rename what is in it".format(path))


def remove_file(name: str, folder_fd: int) -> None:
    """No file by that name is there, unless it cannot be removed."""
    try:
        os.unlink(name, dir_fd=folder_fd)
    except OSError:
        pass  # gone already, or a directory: then it all stays


def start_time(pid: int) -> str:
    """When process `pid` was started, in the kernel's ticks since boot (proc(5), stat, field 22); OSError."""
    with open("/proc/{}/stat".format(pid), "rb") as file:
        return file.read().rpartition(b")")[2].split()[19].decode()


def plain_file(name: str, folder_fd: int) -> bool:
    """A file that a state directory may hold."""
    return not name.startswith(".") and not stat.S_ISDIR(os.lstat(name, dir_fd=folder_fd).st_mode)

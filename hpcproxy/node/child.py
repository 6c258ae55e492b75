"""One child process: started, its stderr ours, its end noticed, ended only by the pid that fork gave us."""

import fcntl
import os
import signal
from typing import List, Optional

PR_SET_PDEATHSIG = 1
CANNOT_START = 127
# By this one ssh is ended, and it cleans up. The others are for the job's programs: Slurm sends SIGTERM to every
# process of a job that is to end, a user's `scancel --signal` any of them, and ssh must serve on. (OpenSSH keeps what
# it finds ignored when it starts.)
END = signal.SIGHUP
NOT_FOR_US = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)


class Child:
    """`argv` runs, its stdin and stdout /dev/null, its stderr readable at `stderr` (non-blocking)."""

    def __init__(self, argv: List[str]) -> None:
        self.stderr, theirs = os.pipe()  # close-on-exec both (PEP 446)
        parent = os.getpid()
        self.status: Optional[int] = None
        self.pid = os.fork()
        if self.pid == 0:
            become(argv, theirs, parent)
        os.close(theirs)
        fcntl.fcntl(self.stderr, fcntl.F_SETFL, os.O_NONBLOCK)

    def reap(self) -> Optional[int]:
        """The exit code (negative: the signal) once it has ended, else None."""
        if self.status is None:
            try:
                pid, status = os.waitpid(self.pid, os.WNOHANG)
            except ChildProcessError:
                pid, status = self.pid, 0  # somebody else reaped it; it is gone all the same
            if pid:
                self.status = -os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)
        return self.status

    def signal(self, number: int) -> None:
        """Send it a signal, unless it was reaped: then the pid may be somebody else's."""
        if self.reap() is None:
            try:
                os.kill(self.pid, number)
            except ProcessLookupError:
                pass  # it ended this moment

    def close(self) -> None:
        """Its stderr is ours no longer. Twice is once."""
        if self.stderr >= 0:
            os.close(self.stderr)
            self.stderr = -1


def become(argv: List[str], stderr: int, parent: int) -> None:
    """Turn this forked process into `argv`; never returns."""
    try:
        os.setsid()  # no terminal, so no question can be asked on it
        null = os.open("/dev/null", os.O_RDWR)
        for source, target in ((null, 0), (null, 1), (stderr, 2)):
            os.dup2(source, target)
        # Ignored stays ignored across exec.
        for number in NOT_FOR_US:
            signal.signal(number, signal.SIG_IGN)
        for number in (END, signal.SIGPIPE):
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, [])
        end_with_parent(parent)
        os.execvp(argv[0], argv)
    except BaseException as error:
        os.write(2, "cannot start {}: {}\n".format(argv[0], error).encode("utf-8", "replace"))
    os._exit(CANNOT_START)


def end_with_parent(parent: int) -> None:
    """The kernel ends this process when the agent dies, even of SIGKILL. Where ctypes is missing we do without."""
    try:
        import ctypes  # only here, after fork: it costs the agent a megabyte otherwise
    except ImportError:
        return
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, END, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(CANNOT_START)

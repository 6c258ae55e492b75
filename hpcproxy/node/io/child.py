"""One child process: started, its outputs ours, its end noticed, ended with its whole process group."""

import fcntl
import os
import signal
from typing import List, Optional, Tuple

from .loop import Loop, TimedOut

READ = 65536
LONGEST_ANSWER = 1 << 20
PR_SET_PDEATHSIG = 1
CANNOT_START = 127
# By this one ssh is ended, and it cleans up. The others are for the job's programs: Slurm sends SIGTERM to every
# process of a job that is to end, a user's `scancel --signal` any of them, and ssh must serve on. (OpenSSH keeps what
# it finds ignored when it starts.)
END = signal.SIGHUP
NOT_FOR_US = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)


class Child:
    """`argv` runs, its stdin /dev/null, its stdout readable at `log`, its stderr at `talk` (both non-blocking).

    It leads a process group, which is ended with it: ssh may be behind a wrapper, and starts what a ProxyCommand says.
    """

    def __init__(self, argv: List[str], called: str = "") -> None:
        self.log, stdout = os.pipe()  # close-on-exec all (PEP 446)
        self.talk, stderr = os.pipe()
        parent = os.getpid()
        self.status: Optional[int] = None
        self.pid = os.fork()
        if self.pid == 0:
            become(argv, called, stdout, stderr, parent)
        os.close(stdout)
        os.close(stderr)
        for fd in (self.log, self.talk):
            fcntl.fcntl(fd, fcntl.F_SETFL, os.O_NONBLOCK)

    def reap(self) -> Optional[int]:
        """The exit code (negative: the signal) once it has ended, else None; its group has ended with it."""
        if self.status is None:
            try:
                # Not reaped yet: as long as it is there, so to speak, the group's number is nobody else's.
                if os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
                    return None
                self._signal_group(signal.SIGKILL)
                _, status = os.waitpid(self.pid, 0)
            except ChildProcessError:
                status = 0  # somebody else reaped it; it is gone all the same
            self.status = -os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)
        return self.status

    def signal(self, number: int) -> None:
        """Send it and its group a signal, unless it was reaped: then the number may be somebody else's."""
        if self.reap() is None:
            self._signal_group(number)

    def _signal_group(self, number: int) -> None:
        try:
            os.killpg(self.pid, number)
        except ProcessLookupError:
            # It has not come to its `setsid` yet, or has ended this moment.
            try:
                os.kill(self.pid, number)
            except ProcessLookupError:
                pass
        except PermissionError:
            pass  # what is left of it has become somebody else: a setuid program

    def close(self) -> None:
        """Its outputs are ours no longer. Twice is once."""
        for fd in (self.log, self.talk):
            if fd >= 0:
                os.close(fd)
        self.log = self.talk = -1


async def heard(loop: Loop, child: Child, deadline: float) -> Tuple[bytes, bool]:
    """What `child` writes to its stdout by `deadline`, at most LONGEST_ANSWER or little more; True if that is all."""
    watch = loop.watch(child.log)
    said = b""
    try:
        while len(said) < LONGEST_ANSWER:
            try:
                part = os.read(child.log, READ)
            except BlockingIOError:
                await watch.wait_readable(deadline)
                continue
            if not part:
                break
            said += part
    except TimedOut:
        return said, False
    finally:
        loop.unwatch(watch)
    return said, True


def become(argv: List[str], called: str, stdout: int, stderr: int, parent: int) -> None:
    """Turn this forked process into `argv`, which finds `called` for its own name if that is given; never returns."""
    try:
        os.setsid()  # no terminal, so no question can be asked on it
        null = os.open("/dev/null", os.O_RDWR)
        for source, target in ((null, 0), (stdout, 1), (stderr, 2)):
            os.dup2(source, target)
        # Ignored stays ignored across exec.
        for number in NOT_FOR_US:
            signal.signal(number, signal.SIG_IGN)
        for number in (END, signal.SIGPIPE):
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, [])
        end_with_parent(parent)
        os.execvp(argv[0], [called or argv[0]] + argv[1:])
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

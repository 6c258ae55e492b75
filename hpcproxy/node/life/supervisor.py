"""The supervisor: the agent works in a child of it, and another takes its place when that is killed.

It holds the port and does nothing else, so clients wait in the port's queue meanwhile instead of being refused, and
nobody else can take the port. It is the process that `pid` names; what it is sent it passes on.
"""

import gc
import os
import signal
import sys
import time
from typing import Callable, NamedTuple

from .shutdown import HEEDED

PASSED_ON = HEEDED + (signal.SIGUSR2,)
IGNORED = (signal.SIGHUP, signal.SIGPIPE, signal.SIGQUIT)
# By a timer's signal and not sigtimedwait, which may return rubbish after a SIGSTOP (CPython's retry of EINTR).
TICK = signal.SIGALRM
WATCHED = PASSED_ON + (signal.SIGCHLD, TICK)
LOOK_S = 2.0
STEADY_S = 10.0  # who lived that long did not die of what it found at its start
PAUSE_S = 0.5
LONGEST_PAUSE_S = 30.0


class Life(NamedTuple):
    """What a worker is told. `lifeline` is readable when the supervisor is gone: then nobody holds the port for it."""

    restarts: int
    cause: str
    lifeline: int


def supervise(work: Callable[[Life], int], parent: int = 0) -> int:
    """Run `work` in a child until one comes to its end; its exit code. Must be called in a process of one thread.

    Where `parent` is given it ends, too, when that is no longer this process's parent: of a Slurm step whose slurmstepd
    was killed nobody else would end what is left.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, WATCHED)
    for number in IGNORED:
        signal.signal(number, signal.SIG_IGN)
    # Whoever started us may ignore them, and then the kernel tells nobody of a child's end.
    for number in (signal.SIGCHLD, TICK):
        signal.signal(number, signal.SIG_DFL)
    gc.collect()
    getattr(gc, "freeze", gc.collect)()  # from Python 3.7 on: what both share stays shared
    lifeline, ours = os.pipe()  # close-on-exec, and ssh is started by exec
    restarts, pause_s, cause = 0, 0.0, ""
    while True:
        begun = time.monotonic()
        child = os.fork()
        if child == 0:
            os.close(ours)
            live(work, Life(restarts, cause, lifeline))
        code = tend(child, parent)
        if code >= 0 and code != 1:
            return code
        restarts += 1
        cause = "signal {}".format(-code) if code < 0 else "an error of its own"
        steady = time.monotonic() - begun > STEADY_S
        pause_s = 0.0 if steady or restarts == 1 else min(LONGEST_PAUSE_S, max(PAUSE_S, pause_s * 2))
        if ended_in(pause_s):
            return 0


def live(work: Callable[[Life], int], life: Life) -> None:
    """The child's whole life; never returns."""
    code = 1
    try:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGCHLD, TICK))
        gc.enable()
        code = work(life)
    except BaseException as error:
        sys.excepthook(type(error), error, error.__traceback__)
    finally:
        os._exit(code)


def tend(child: int, parent: int) -> int:
    """Pass on to `child` what we are sent until it ends; its exit code (negative: the signal)."""
    signal.setitimer(signal.ITIMER_REAL, LOOK_S if parent else 0.0, LOOK_S)
    while True:
        number = signal.sigwait(WATCHED)
        if number == TICK:
            if parent and os.getppid() != parent:
                os.kill(child, signal.SIGURG)
        elif number == signal.SIGCHLD:
            pid, status = os.waitpid(child, os.WNOHANG)
            if pid:
                return -os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)
        else:
            os.kill(child, number)  # not reaped yet, so the pid is the child's


def ended_in(pause_s: float) -> bool:
    """A signal to end came within the pause; nobody is there to stay for, which is the safe side."""
    signal.setitimer(signal.ITIMER_REAL, max(0.001, pause_s))
    while True:
        number = signal.sigwait(PASSED_ON + (TICK,))
        if number in (TICK, signal.SIGTERM, signal.SIGURG):
            return number != TICK

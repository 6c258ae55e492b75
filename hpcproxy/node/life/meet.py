"""The command `meet`: tells `hpcproxy serve`, by whose ssh it runs, where a job's agent on this node wants its tunnel.

    python3 -I -S agent.pyz meet --job N [--wait SECONDS]

On stdout `here`, then one line: `meet PATH`, where a Unix socket may be made now, or `none REASON`. After `meet` it
stays as long as that agent and stdin are there (which keeps Nagle's algorithm off in the ssh that it runs by: with `-N`
each connection waits 40 ms), says `over` if it was the agent that ended, `gone` if its directory was made anew, and
takes the socket away. Exit code 0, or 2 when the arguments cannot be understood.

The agent's directory is reached through /proc/PID/cwd: so it is the right one though the job has a /tmp of its own, its
TMPDIR is unknown here, or the directory was made anew, and no path is too long for a socket.
"""

import contextlib
import json
import os
import select
import socket
import sys
import time
from typing import Iterator, List, Optional, Tuple

from ..state.directory import start_time

POLL_S = 0.5
LOOK_S = 1.0
WAIT_S = 20.0
REVERSE = "reverse"

Found = Tuple[int, str, str]  # of an agent: the pid of who serves, when that began, its agent.json


def main(words: List[str]) -> int:
    """The exit code."""
    given = dict(zip(words[::2], words[1::2]))
    job, wait = given.get("--job", ""), given.get("--wait", str(WAIT_S))
    if len(words) % 2 or not set(given) <= {"--job", "--wait"} or not job.isdecimal() or not is_time(wait):
        print("usage: agent.pyz meet --job N [--wait SECONDS]", file=sys.stderr)
        return 2
    say("here")
    say(meet(job, time.monotonic() + float(wait)))
    return 0


def is_time(text: str) -> bool:
    """`text` is a number of seconds."""
    return text.replace(".", "", 1).isdecimal() and len(text) < 10


def meet(job: str, deadline: float) -> str:
    """Stay as long as that is needed; the last words."""
    found = wait_for(job, deadline)
    if found is None:
        return "none no tunnel of job {} waits on this node".format(job)
    pid, started, config = found
    why_not = not_by_us(pid, config)
    if why_not:
        return "none " + why_not
    path, why_not = place(pid)
    if why_not:
        return "none " + why_not
    say("meet " + path)
    try:
        return attend(pid, started, path)
    finally:
        with contextlib.suppress(OSError):
            os.unlink(path)


def say(line: str) -> None:
    """One line on stdout, if somebody reads."""
    with contextlib.suppress(OSError):
        os.write(1, (line + "\n").encode("utf-8", "replace"))


def wait_for(job: str, deadline: float) -> Optional[Found]:
    """This user's agent of `job`, as soon as it is there; None at `deadline`, or when nobody reads any more."""
    while True:
        agents = list(agents_of(job))
        parents = {parent for _, parent, _ in agents}
        for pid, parent, config in agents:
            # The one that serves is the child of the one that supervises.
            if pid not in parents and any(pid != other and parent == other for other, _, _ in agents):
                with contextlib.suppress(OSError):
                    return pid, start_time(pid), config
        if time.monotonic() > deadline or ended(POLL_S):
            return None


def agents_of(job: str) -> Iterator[Tuple[int, int, str]]:
    """The processes of this user's agents of `job`: pid, parent, agent.json."""
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        try:
            if os.stat("/proc/" + name).st_uid != os.geteuid():
                continue
            with open("/proc/{}/cmdline".format(name), "rb") as file:
                words = file.read().decode("utf-8", "replace").split("\0")
            with open("/proc/{}/stat".format(name), "rb") as file:
                parent = int(file.read().rpartition(b")")[2].split()[1])
        except (OSError, IndexError, ValueError):
            continue  # it ended meanwhile
        if "hold" in words[:6] and after(words, "--job") == job:
            yield int(name), parent, after(words, "--config")


def after(words: List[str], name: str) -> str:
    """The word behind `name`, "" if there is none."""
    return words[words.index(name) + 1] if name in words[:-1] else ""


def not_by_us(pid: int, config: str) -> str:
    """Why the agent that reads `config` needs no tunnel from here; "" if it does."""
    try:
        with open("/proc/{}/root{}".format(pid, os.path.abspath(config)), "rb") as file:
            kinds = [way["kind"] for way in json.loads(file.read().decode("utf-8"))["ways"]]
    except (OSError, ValueError, LookupError, TypeError):
        return "the agent's settings cannot be read here"
    return "" if REVERSE in kinds else "the job gets out by itself (via: {})".format(", ".join(kinds))


def place(pid: int) -> Tuple[str, str]:
    """Where a socket can be made in the agent's directory, by a name that nobody had; or why not."""
    path = "/proc/{}/cwd/rev.{}".format(pid, os.getpid())
    try:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)  # of an earlier process by our number
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
            sock.bind(path)
        os.unlink(path)
    except OSError as error:
        return "", "no socket can be made in the agent's directory: {}".format(os.strerror(error.errno or 0))
    return path, ""


def attend(pid: int, started: str, path: str) -> str:
    """The agent is gone, or whoever started us, or the socket, once it had been made; the last words."""
    was_there = False
    while not ended(LOOK_S):
        try:
            if start_time(pid) != started:
                return "over"
        except OSError:
            return "over"
        is_there = os.path.lexists(path)
        if was_there and not is_there:
            return "gone"  # with its directory, which the agent has made anew
        was_there = is_there
    return "left"


def ended(seconds: float) -> bool:
    """Stdin has ended; waits for that so long."""
    if not select.select([0], [], [], seconds)[0]:
        return False
    return not os.read(0, 4096)

"""`serve`: brings jobs a tunnel from here, where their user has logged in, as long as it runs. Runs processes.

An agent of ours gets out from here and serves a Unix socket in a directory that is nobody else's; a link to each node
of each job (account/bringing.py) has ssh make a socket there that leads to it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
import shutil
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hpcproxy import heard
from hpcproxy.account import running
from hpcproxy.account.bringing import FIRST_PAUSE_S, FORBIDDEN, LONGEST_PAUSE_S, NONE, OVER, STEADY_S, End, Link
from hpcproxy.account.running import Place
from hpcproxy.config.model import Config, Jump
from hpcproxy.config.places import Home
from hpcproxy.errors import TunnelError
from hpcproxy.files.plan import AGENT_PROGRAM, AGENT_SETTINGS, agent_settings
from hpcproxy.node.build import build
from hpcproxy.node.state.directory import BadFolder, make_ours
from hpcproxy.quoting import word

LOOK_S = 10.0  # between two questions to Slurm
AT_ONCE = 8  # logins at a time: sshd begins to refuse at 10 (MaxStartups)
_STOP = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_READY_S = 60.0
_PART = 4096
_LONGEST = 107 - len(
    "/status.json.new"
)  # bytes of its directory's name: a Unix socket's has no more than 107 (unix(7))

Say = Callable[[str], None]


@dataclass(frozen=True)
class Request:
    """What was asked for: these jobs, none for all; `environ` is where the user has logged in.

    `through`: the jobs are another machine's, the login node, where `program` is hpcproxy. `behind`: this is that one,
    started by the other end, by which it gets out, and it ends with stdin.
    """

    jobs: tuple[str, ...]
    config: Config
    home: Home
    environ: Mapping[str, str]
    through: Jump | None = None
    program: str = "hpcproxy"
    behind: bool = False


def serve(request: Request, say: Say) -> None:
    """Bring tunnels until the jobs are over or a signal comes; raises TunnelError."""
    with _directory(request.environ) as directory:
        asyncio.run(_Server(request, directory, say).run())


@contextlib.contextmanager
def _directory(environ: Mapping[str, str]) -> Iterator[Path]:
    """A directory of this user's alone, on this machine, for as long as the block lasts."""
    name = f"hpcproxy-{os.geteuid()}/serve-{secrets.token_hex(4)}"
    bases = dict.fromkeys((environ.get("TMPDIR") or "/tmp", "/tmp"))  # noqa: S108 - others cannot rename what is in it
    why = ""
    for base in bases:
        path = Path(base) / name
        if len(os.fsencode(path)) > _LONGEST:
            why = f"{base} has a name that is too long for a Unix socket in it; set TMPDIR to another"
            continue
        try:
            os.close(make_ours(str(path)))
        except (BadFolder, OSError) as error:
            why = str(error)
            continue
        try:
            yield path
        finally:
            shutil.rmtree(path, ignore_errors=True)
            with contextlib.suppress(OSError):
                path.parent.rmdir()
        return
    raise TunnelError("state", why)


class _Server:
    """The agent, and the links."""

    _logins: asyncio.Semaphore

    def __init__(self, request: Request, directory: Path, say: Say) -> None:
        self._request, self._directory, self._say = request, directory, say
        self._links: dict[Place, asyncio.Task[None]] = {}
        self._tasks: set[asyncio.Task[None]] = set()  # all links, those that are ending too
        self._over: set[Place] = set()

    async def run(self) -> None:
        """As `serve`."""
        stop, self._logins = asyncio.Event(), asyncio.Semaphore(AT_ONCE)
        for number in _STOP:
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        stopped = asyncio.create_task(stop.wait())
        if self._request.behind:
            self._meet(stop)
        agent = await self._start_agent(stopped)
        if agent is None:
            return
        work = self._follow() if self._request.through is None else self._lead(self._request.through)
        tasks = [asyncio.create_task(self._attend(agent)), asyncio.create_task(work)]
        try:
            await asyncio.wait([stopped, *tasks], return_when=asyncio.FIRST_COMPLETED)
            for task in tasks:
                if task.done():
                    task.result()
        finally:
            stopped.cancel()
            await self._end([*tasks, *self._tasks])
            if agent.returncode is None:
                agent.terminate()
            await agent.wait()

    @staticmethod
    async def _end(tasks: Sequence[asyncio.Task[None]]) -> None:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _meet(self, stop: asyncio.Event) -> None:
        """Say where a socket is to be made, as `agent.pyz meet` does, and heed the end of stdin."""
        loop = asyncio.get_running_loop()

        def read() -> None:
            if not os.read(0, _PART):
                loop.remove_reader(0)
                stop.set()

        loop.add_reader(0, read)
        print(f"here\nmeet {self._directory}/rev.{os.getpid()}", flush=True)

    async def _start_agent(self, stopped: asyncio.Task[bool]) -> asyncio.subprocess.Process | None:
        """Return the agent that gets out from here, once it does; None if it was to end; raises TunnelError."""
        settings = agent_settings(self._request.config, self._request.home.known_hosts)
        for name, data in ((AGENT_PROGRAM, build()), (AGENT_SETTINGS, json.dumps(settings).encode())):
            path = self._directory / name
            path.touch(0o600)
            path.write_bytes(data)
        words = ["hold", "--config", AGENT_SETTINGS, "--socket", "in", "--state", str(self._directory)]
        words += ["--parent", str(os.getpid()), "--node", socket.gethostname().partition(".")[0]]
        agent = await asyncio.create_subprocess_exec(
            *(sys.executable, "-I", "-S", AGENT_PROGRAM, *words),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            cwd=self._directory,
            env=dict(self._request.environ),
            start_new_session=True,
        )
        getting_ready = asyncio.create_task(self._ready(agent))
        await asyncio.wait([stopped, getting_ready], timeout=_READY_S, return_when=asyncio.FIRST_COMPLETED)
        if getting_ready.done() and getting_ready.exception() is None:
            return agent
        await self._end([getting_ready])
        if agent.returncode is None:
            agent.terminate()
        await agent.wait()
        if stopped.done():
            return None
        if not getting_ready.cancelled():
            getting_ready.result()
        raise TunnelError("tunnel", f"there is none from here after {_READY_S:g} s")

    async def _ready(self, agent: asyncio.subprocess.Process) -> None:
        assert agent.stdout is not None  # noqa: S101 - opened with PIPE above
        while line := await agent.stdout.readline():
            verb, _, rest = heard.line(line.strip()).partition(" ")
            _node, _, text = rest.partition(" ")
            layer, _, words = text.partition(" ")
            if verb == "ready":
                return
            if verb == "gave-up":
                raise TunnelError(layer, words)
            if verb == "failed":
                self._say(f"{layer}: {words}")
        raise TunnelError("tunnel", "the agent has ended without a word")

    async def _attend(self, agent: asyncio.subprocess.Process) -> None:
        """Nothing, until the agent ends; raises TunnelError then."""
        assert agent.stdout is not None  # noqa: S101 - opened with PIPE above
        while await agent.stdout.readline():
            pass
        raise TunnelError("tunnel", "the agent has ended")

    async def _follow(self) -> None:
        """Have a link to each node of each job, until all that were named are over."""
        request, trouble = self._request, ""
        while True:
            try:
                found = await asyncio.to_thread(running.jobs, request.jobs, request.environ)
                trouble = ""
            except TunnelError as error:
                if str(error) != trouble:
                    trouble = str(error)
                    self._say(f"{trouble}; what is there stays")
                await asyncio.sleep(LOOK_S)
                continue
            self._take_up(found.places)
            if request.jobs and not found.numbers:
                self._say(f"over: {', '.join(request.jobs)}")
                if request.behind:
                    print("over", flush=True)
                return
            await asyncio.sleep(LOOK_S)

    def _take_up(self, places: frozenset[Place]) -> None:
        self._over &= places
        for place in sorted(places - set(self._links) - self._over, key=str):
            task = self._links[place] = asyncio.create_task(self._keep(place))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        for place in set(self._links) - places:
            self._links.pop(place).cancel()

    async def _lead(self, login: Jump) -> None:
        """Have one of us on the login node, which gets out by us, until it ends; raises TunnelError."""
        request = self._request
        jobs = [each for job in request.jobs for each in ("--job", job)] or ["--all-jobs"]
        command = " ".join(str(word(each)) for each in (request.program, "serve", "--behind", *jobs))
        link = Link(login, f"exec {command}", self._directory, request.config, "login")
        link.person = self._say
        end = await self._again(link, str(login))
        if end.kind == FORBIDDEN:
            raise TunnelError("login", f"{login}: {end.reason}")

    async def _keep(self, place: Place) -> None:
        """Have a link to `place` until the job's agent there ends."""
        agent = self._request.home.directory / AGENT_PROGRAM
        command = f"exec python3 -I -S {word(agent)} meet --job {place.job}"
        host = Jump(place.node)
        link = Link(host, command, self._directory, self._request.config, f"{place.job}.{place.node}")
        end = await self._again(link, str(place))
        self._say(f"{place}: {end.reason or 'over'}")
        self._over.add(place)

    async def _again(self, link: Link, name: str) -> End:
        """Have the link until it is over or forbidden, which is returned; after each loss anew."""
        pause_s, said = FIRST_PAUSE_S, ""

        def up() -> None:
            nonlocal said
            said = ""
            self._say(f"{name}: the tunnel is there")

        while True:
            began, turn = time.monotonic(), _Turn(self._logins)
            await turn.take()
            try:
                end = await link.bring(turn.give, up)
            finally:
                turn.give()
            if end.kind in (OVER, FORBIDDEN):
                return end
            if end.reason != said:
                said = end.reason
                self._say(f"{name}: {said}")
            pause_s = FIRST_PAUSE_S if end.kind == NONE or time.monotonic() - began > STEADY_S else pause_s * 2
            await asyncio.sleep(min(pause_s, LONGEST_PAUSE_S))


class _Turn:
    """One of the logins that may be made at a time; given back once."""

    def __init__(self, logins: asyncio.Semaphore) -> None:
        self._logins, self._mine = logins, False

    async def take(self) -> None:
        """It is our turn."""
        await self._logins.acquire()
        self._mine = True

    def give(self) -> None:
        """It is somebody else's."""
        if self._mine:
            self._mine = False
            self._logins.release()

"""One link of `serve`: an ssh to a node that has a Unix socket made there for a job's agent, again after each loss.

What runs on the node is `agent.pyz meet` (node/life/meet.py). Its ssh ends with the job, with us (its stdin ends), or
by a loss; whichever it was, nothing stays on the node. Runs processes.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from hpcproxy import changes, heard
from hpcproxy.config.model import Config, Jump
from hpcproxy.errors import HpcproxyError
from hpcproxy.openssh import configuration, link, option_list, reasons

LOGIN_S = 15.0  # for authentication, after ssh's own ConnectTimeout
PERSON_S = 180.0  # the same, where somebody is asked
WAIT_S = 20  # for the job's agent to be there
FORWARD_S = 15.0
END_S = 3.0
_LOOK_S, _LAST_WORDS_S = 0.05, 0.3
FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 30.0
STEADY_S = 10.0
_OURS = "hpcproxy: "  # before what another one of us says
_TALK = 64  # lines of what ssh said
_NOISE = 50  # lines that a login prints before we get a word in
HERE = "./in"
_REFUSED = re.compile(r"forward(ing)? (request )?failed")

Say = Callable[[str], None]

OVER, NONE, LOST, FORBIDDEN = "over", "none", "lost", "forbidden"


@dataclass(frozen=True)
class End:
    """How a link ended: OVER, with the job's agent; NONE, there was none; LOST; FORBIDDEN, for good."""

    kind: str
    reason: str = ""


class Link:
    """A link to `host`, where `command` meets the agent; `directory` has our end of the socket, and ssh's own."""

    def __init__(self, host: Jump, command: str, directory: Path, config: Config, name: str) -> None:
        self._host, self._command, self._directory, self._config = host, command, directory, config
        self._name = re.sub(r"[^A-Za-z0-9]", "-", name)
        self._tries = 0
        self.person: Say | None = None  # who may be asked for a login, and is told what is said there

    async def bring(self, logged_in: Callable[[], None], up: Callable[[], None]) -> End:
        """Bring the socket, call `logged_in` and `up` when that is so, and return when it is gone again."""
        self._tries += 1
        control = f"ctl.{self._name}.{self._tries}"
        called = await asyncio.to_thread(self._name_ssh)
        argv = link.master(self._host, control, self._command, self._config, asks=self.person is not None)
        try:
            ssh = await _start(argv, self._directory, away=self.person is None, called=called)
        except OSError as error:
            return End(FORBIDDEN, f"the program ssh cannot be run: {error.strerror}")
        talk: list[str] = []
        listening = asyncio.create_task(_listen(ssh, talk, self.person))
        try:
            return await self._use(ssh, control, talk, logged_in, up)
        except asyncio.TimeoutError:
            return End(LOST, "no answer within the time for a login")
        finally:
            await _end(ssh, leads=self.person is None)
            listening.cancel()
            with contextlib.suppress(OSError):
                (self._directory / control).unlink()

    def _name_ssh(self) -> str:
        """Return what ssh is to be called: for each host of ProxyJump it starts the program of its own name."""
        with contextlib.suppress(HpcproxyError, OSError):  # ssh itself will say what is wrong
            if configuration.ask(self._host).proxy_jump is not None:
                changes.apply([changes.Write(self._directory / "hop", option_list.hop_program().encode(), 0o700)])
                if os.access(self._directory / "hop", os.X_OK):  # not on a file system where nothing may be run
                    return "./hop"
        return "ssh"

    async def _use(
        self,
        ssh: asyncio.subprocess.Process,
        control: str,
        talk: list[str],
        logged_in: Callable[[], None],
        up: Callable[[], None],
    ) -> End:
        login_s = PERSON_S if self.person else LOGIN_S
        word, rest = await asyncio.wait_for(_answer(ssh), self._config.connect_timeout_s + login_s)
        logged_in()
        if word == "here":
            word, rest = await asyncio.wait_for(_answer(ssh), WAIT_S + LOGIN_S)
        if word == "none":
            return End(NONE, rest)
        if word != "meet" or not link.PATH.fullmatch(rest):
            return await _why(ssh, talk)
        refused = await self._forward(control, rest)
        if refused and ssh.returncode is None and not ssh.stdout.at_eof():  # type: ignore[union-attr]
            return End(FORBIDDEN, refused)
        if refused:
            return await _why(ssh, talk)
        up()
        last, _ = await _answer(ssh)
        if last == "over":
            return End(OVER)
        return End(LOST, "its directory on the node was made anew") if last == "gone" else await _why(ssh, talk)

    async def _forward(self, control: str, there: str) -> str:
        """The socket is there; else why not."""
        asking = await _start(link.forward(control, there, HERE), self._directory)
        talk: list[str] = []
        listening = asyncio.create_task(_listen(asking, talk, None))
        try:
            await asyncio.wait_for(_gone(asking), FORWARD_S)
        finally:
            await _end(asking, leads=True)
            await asyncio.wait({listening}, timeout=_LAST_WORDS_S)
            listening.cancel()
        if asking.returncode == 0:
            return ""
        if not any(map(_REFUSED.search, talk)):
            return talk[-1] if talk else "ssh does not take the request for a forward"
        return (
            f"the sshd of {self._host} does not allow a forward to a Unix socket (AllowStreamLocalForwarding, "
            "AllowTcpForwarding or DisableForwarding), so no tunnel can be brought there"
        )


async def _start(
    argv: Sequence[str], directory: Path, *, away: bool = True, called: str = ""
) -> asyncio.subprocess.Process:
    """Return `argv` under way, `called` otherwise if that is given.

    `away` from the terminal, on which ssh else asks whoever sits there.
    """
    program, *words = argv
    pipe = subprocess.PIPE
    return await asyncio.create_subprocess_exec(
        called or program,
        *words,
        executable=program,
        stdin=pipe,
        stdout=pipe,
        stderr=pipe,
        cwd=directory,
        start_new_session=away,
    )


async def _answer(ssh: asyncio.subprocess.Process) -> tuple[str, str]:
    """Return the next word of the node's, and what follows it; nothing at the end."""
    for _ in range(_NOISE):
        line = await _line(ssh)
        word, _, rest = heard.line(line.strip()).partition(" ")
        if not line or word in ("here", "meet", "none", "over", "gone", "left"):
            return word, rest
    return "", ""


async def _line(ssh: asyncio.subprocess.Process) -> bytes:
    """Return the next line; nothing at the end of what it says, or of it: somebody else may hold its output then."""
    assert ssh.stdout is not None  # noqa: S101 - opened with PIPE above
    reading = asyncio.create_task(ssh.stdout.readline())
    ending = asyncio.create_task(_gone(ssh, 1.0))
    try:
        await asyncio.wait({reading, ending}, return_when=asyncio.FIRST_COMPLETED)
        await asyncio.wait({reading}, timeout=_LAST_WORDS_S)
        return reading.result() if reading.done() else b""
    finally:
        reading.cancel()
        ending.cancel()


async def _listen(ssh: asyncio.subprocess.Process, talk: list[str], person: Say | None) -> None:
    assert ssh.stderr is not None  # noqa: S101 - opened with PIPE above
    while line := await ssh.stderr.readline():
        said = heard.line(line.strip())
        if person is not None and said.startswith(_OURS):
            person(said[len(_OURS) :])
        elif said and len(talk) < _TALK:
            talk.append(said)


async def _why(ssh: asyncio.subprocess.Process, talk: Sequence[str]) -> End:
    """Why the ssh, whose output has ended, has."""
    with contextlib.suppress(asyncio.TimeoutError):
        await asyncio.wait_for(_gone(ssh), END_S)
    known = reasons.meaning(talk)
    if known is not None:
        # A login that is refused once is refused again, and counts for more each time.
        return End(FORBIDDEN if known.permanent else LOST, f"{known.layer}: {known}")
    code = "" if ssh.returncode is None else f" (code {ssh.returncode})"
    return End(LOST, talk[-1] if talk else f"the ssh to it ended{code}")


async def _gone(process: asyncio.subprocess.Process, look_s: float = _LOOK_S) -> None:
    """It has ended; who else still holds its outputs, for whom the `wait` of 3.11.2 waits, does not matter."""
    while process.returncode is None:  # noqa: ASYNC110 - the event is what `wait` waits for
        await asyncio.sleep(look_s)


async def _end(process: asyncio.subprocess.Process, *, leads: bool) -> None:
    """It is gone, with all that it started where it `leads` a group; first it is given the time to go by itself."""
    if process.stdin is not None:
        process.stdin.close()
    for number in (None, signal.SIGHUP, signal.SIGKILL):
        if number is not None:
            _signal(process.pid, number, leads=leads)
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(_gone(process), END_S)
            break
    if leads:
        _signal(process.pid, signal.SIGKILL, leads=True)


def _signal(pid: int, number: int, *, leads: bool) -> None:
    with contextlib.suppress(ProcessLookupError):
        (os.killpg if leads else os.kill)(pid, number)

"""The upstream `reverse`: a Unix socket in the state directory, brought there from where a user has logged in.

`hpcproxy serve` has an ssh to this node forward it to an agent of its own. So who listens is this user's process (sshd
as he), which the kernel confirms; one connection stays open as long as the other agent is there (proxy/link.py). Each
new ssh brings a socket by a new name, for none takes its own away: what refuses to connect is removed here.
"""

import errno
import os
import re
import select
import socket
import stat
import time
from typing import List, Optional, Set, Tuple

from ..io.loop import Loop, Task, TimedOut
from ..io.peer import unix_owner
from ..io.stream import Ended, Stream, TooLong
from ..state.settings import Settings
from ..state.status import Record
from .candidate import Verdict
from .dial import FOLDER_GONE, Connected, Dialled
from .http_proxy import ANSWER_BYTES, Answer, NoAnswer, parse_answer
from .open_error import OpenError, explain, tidy
from .target import Target, spell
from .upstream import LINK, LINK_HEADER, Channel, Ends, Lost, Unusable

LAYER = "reverse"
NAME = re.compile(r"rev\.\d{1,10}$")
LOOK_S = 0.2
ANSWER_S = 5.0  # for the other agent to say that it is there
FORGOTTEN_S = 5.0  # what refuses to connect for longer is not one that is just being made
BUSY_S = 0.005
TOLD_S = 0.25  # at most, should an end be told after it is seen
HELLO = re.compile(r"hpcproxy 1 (\d{1,9}) (up|down)(?: (.*))?$")
NOBODY = "nobody brings a tunnel here: run `hpcproxy serve` where you are logged in"
COME_BACK = "run `hpcproxy serve` again where you are logged in"
LEFT = "what brought the tunnel here has ended"
SILENT = "what brings the tunnel here does not answer: its machine is asleep, or off the network"
STATUS_KINDS = {403: "denied", 503: "down", 504: "timeout"}


class Reverse(Dialled):
    """One link to another agent, from when that answered until it is gone."""

    def __init__(self, loop: Loop, settings: Settings, record: Record) -> None:
        super().__init__(loop, settings, record)
        self.name = ""
        self.link: Optional[Stream] = None
        self.listening: Optional[Task] = None
        self.number = self.requests = self.silent = 0
        self.said = b""
        self.under_way: Set[int] = set()  # requests
        self.whole: Set[int] = set()  # those of them whose end was told
        self.reason = NOBODY

    async def start(self) -> None:
        """As Upstream: the first time it says after a while that there is none, and waits on from then."""
        patient = self.record.tries > 0
        if self.again:
            self.reason = "{}: {}".format(LEFT, COME_BACK)
        deadline = time.monotonic() + self.settings.connect_timeout_s
        while not await self._find():
            if os.stat(".").st_nlink == 0:
                raise Unusable(FOLDER_GONE)
            if time.monotonic() > deadline and not patient:
                raise Unusable(Verdict(LAYER, self.reason, False))
            await self.loop.sleep(LOOK_S)
        self.listening = self.loop.spawn(self._listen())

    async def _find(self) -> bool:
        """One of the sockets here answers."""
        for name in newest_first():
            if await self._greet(name):
                self.name = name
                return True
        return False

    async def _greet(self, name: str) -> bool:
        """The other agent behind `name` is there and gets out."""
        deadline = time.monotonic() + ANSWER_S
        try:
            stream = Stream(self.loop, await self._connect(name, deadline), is_client=False)
        except OSError as error:
            if error.errno == errno.ECONNREFUSED:
                remove_forgotten(name)
            return False
        except TimedOut:
            return False
        try:
            await stream.send(LINK, deadline)
            found = HELLO.match(await stream.take(parse_line, ANSWER_BYTES, deadline))
            if found is not None and found.group(2) == "up":
                self.link, self.number, self.said = stream, int(found.group(1)), stream.held
                return True
            self.reason = tidy(found.group(3) or "") if found is not None else "what answers there is another version"
        except TimedOut:
            self.reason = SILENT
        except (Ended, TooLong, OSError):
            self.reason = LEFT
        finally:
            if self.link is not stream:
                stream.close()
        return False

    async def _connect(self, name: str, deadline: float) -> socket.socket:
        """A connection to the socket `name`, held by this user; OSError, TimedOut."""
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        sock.setblocking(False)
        try:
            while True:
                try:
                    sock.connect(name)
                    break
                except BlockingIOError:  # its queue is full
                    if time.monotonic() > deadline:
                        raise TimedOut()
                    await self.loop.sleep(BUSY_S)
            if unix_owner(sock) != os.geteuid():
                raise PermissionError("the socket {} is held by uid {}".format(name, unix_owner(sock)))
            return sock
        except BaseException:
            sock.close()
            raise

    async def open(self, target: Target, ends: Ends, deadline: float) -> Channel:
        """As Upstream."""
        try:
            sock = await self._connect(self.name, deadline)
        except OSError:
            self.die(Verdict(LAYER, LEFT, False))
            raise Lost()
        except TimedOut:
            raise OpenError("timeout", SILENT)
        self.requests += 1
        number = self.requests
        self.under_way.add(number)
        stream = ends.join(sock)
        # The other agent has bounds of its own, and says so when they are reached.
        patience_s = self.settings.hold_s + self.settings.connect_timeout_s
        answer = await self._ask(stream, target, number, deadline + patience_s)
        if answer.status != 200:
            raise failure(answer)
        return Brought(stream, self, number)

    async def _ask(self, stream: Stream, target: Target, number: int, deadline: float) -> Answer:
        """What the other agent says to request `number`; OpenError, Lost."""
        where = spell(target)
        head = "CONNECT {0} HTTP/1.1\r\nHost: {0}\r\n{1}: {2}.{3}\r\n\r\n"
        try:
            await stream.send(head.format(where, LINK_HEADER, self.number, number).encode("ascii"), deadline)
            return await stream.take(parse_answer, ANSWER_BYTES, deadline)
        except TimedOut:
            raise OpenError("timeout", "no answer from the other end of the tunnel")
        except (NoAnswer, TooLong):
            raise OpenError("failed", "what answers at the other end of the tunnel is no agent")
        except (Ended, OSError):
            if self.gone_by_now():
                raise Lost()
            raise OpenError("failed", "the other end of the tunnel closed the connection without an answer")

    async def _listen(self) -> None:
        """Take in what the other agent says of itself, until it is gone."""
        link = self.link
        while self.end is None and link is not None and not self.gone_by_now():
            await link.watch.wait_readable()

    def gone_by_now(self) -> bool:
        """The link has ended; all that was said there is taken in."""
        while self.end is None and self.link is not None:
            try:
                data = self.link.sock.recv(ANSWER_BYTES)
            except BlockingIOError:
                self.link.watch.readable = False
                return False
            except OSError:
                data = b""
            if not data:
                self.die(Verdict(LAYER, LEFT, False))
                break
            self.silent = 0
            *lines, self.said = (self.said + data.replace(LINK, b"")).split(b"\n")
            ends = (int(line[4:]) for line in lines if line.startswith(b"end ") and line[4:].isdigit())
            self.whole.update(self.under_way.intersection(ends))
        return True

    def is_whole(self, number: int) -> bool:
        """The other agent has told the end of request `number`, which it does before that can be seen.

        In between are two programs that look at their connections in the order of their numbers, so it is here by now.
        """
        deadline = time.monotonic() + TOLD_S
        while number not in self.whole and not self.gone_by_now():
            left_s = deadline - time.monotonic()
            if self.link is None or left_s <= 0 or not select.select([self.link.sock], [], [], left_s)[0]:
                break
        return number in self.whole

    def over(self, number: int) -> None:
        """Nobody asks about request `number` any more."""
        self.under_way.discard(number)
        self.whole.discard(number)

    async def watch(self) -> None:
        """As Upstream: the other agent is asked now and then whether it is there, for a machine that sleeps says
        nothing. Turns are counted and not time: a job that was suspended finds its link as it was."""
        while self.end is None:
            await self.loop.sleep(self.settings.alive_interval_s)
            if os.stat(".").st_nlink == 0:
                self.die(FOLDER_GONE)
            elif self.silent >= self.settings.alive_count:
                self.die(Verdict(LAYER, SILENT, False))
            elif self.link is not None and self.end is None:
                self.silent += 1
                try:
                    self.link.sock.send(LINK)
                except OSError:
                    pass  # full, so nobody reads; or ended, which is noticed where it is read

    def die(self, why: Verdict) -> None:
        """As Dialled."""
        super().die(why)
        if self.listening is not None:
            self.listening.cancel()
        if self.link is not None:
            self.link.close()

    def stop(self) -> None:
        """As Upstream."""
        self.die(FOLDER_GONE)


class Brought(Connected):
    """Request `number` of one life of the upstream."""

    def __init__(self, stream: Stream, upstream: Reverse, number: int) -> None:
        super().__init__(stream)
        self.upstream, self.number = upstream, number

    def lost(self) -> bool:
        """As Channel: what is cut off ends as what is whole does, so the other agent says of the latter that it is."""
        return self.stream.broken or not self.upstream.is_whole(self.number)

    def close(self) -> None:
        """As Channel."""
        self.upstream.over(self.number)
        super().close()


def newest_first() -> List[str]:
    """The names of the sockets that were brought here."""
    found = []
    for name in os.listdir("."):
        if NAME.match(name):
            try:
                facts = os.lstat(name)
            except OSError:
                continue
            if stat.S_ISSOCK(facts.st_mode):
                found.append((facts.st_mtime_ns, name))
    return [name for _, name in sorted(found, reverse=True)]


def remove_forgotten(name: str) -> None:
    """Nobody listens at `name`; it is taken away unless somebody is just about to."""
    try:
        if time.time() - os.lstat(name).st_mtime > FORGOTTEN_S:
            os.unlink(name)
    except OSError:
        pass  # gone


def parse_line(data: bytes) -> Optional[Tuple[int, str]]:
    """The first line and its size."""
    end = data.find(b"\n")
    return None if end < 0 else (end + 1, data[:end].decode("utf-8", "replace"))


def failure(answer: Answer) -> OpenError:
    """Why the other agent does not reach a far end, which it says in brackets (proxy/replies.py)."""
    words = answer.words
    start = words.find("(")
    reason = words[start + 1 : -1] if start >= 0 and words.endswith(")") else words
    kind = STATUS_KINDS.get(answer.status)
    return OpenError(kind, reason) if kind is not None else explain(reason)

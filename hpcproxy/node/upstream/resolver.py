"""Names into addresses by this node's own name service, which may be slow or silent: others are served meanwhile.

getaddrinfo(3) cannot be interrupted, so it runs in threads of their own, a few at a time; who waits for an answer waits
no longer than he wants, whatever becomes of the thread.
"""

import _thread
import collections
import os
import socket
from typing import Deque, Dict, List, Optional, Tuple

from ..io.loop import Loop, Signal, TimedOut
from .open_error import OpenError, explain
from .upstream import Lost

THREADS = 8
STACK = 262144
READ = 4096

# Family and packed address, in the order of getaddrinfo (RFC 6724).
Address = Tuple[int, str]


class Question:
    """One name that somebody asks about, and the answer as soon as it is there."""

    def __init__(self, loop: Loop, host: str) -> None:
        self.host = host
        self.answered = Signal(loop)
        self.addresses: List[Address] = []
        self.error: Optional[str] = None
        self.done = False
        self.askers = 0  # who still wait for the answer

    def ask(self) -> None:
        """In a thread."""
        try:
            # Bytes: of text Python would load all that it knows of international names.
            found = socket.getaddrinfo(
                self.host.encode("ascii"), None, type=socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG
            )
            self.addresses = [(family, str(where[0])) for family, _, _, _, where in found]
        except (OSError, UnicodeError) as error:
            self.error = getattr(error, "strerror", None) or "Name or service not known"


class Resolver:
    """Asks, at most THREADS names at once; the same name once, however many want it."""

    def __init__(self, loop: Loop) -> None:
        self.loop = loop
        self.asked: Dict[str, Question] = {}
        self.waiting: Deque[Question] = collections.deque()
        self.answers: Deque[Question] = collections.deque()
        self.threads = 0
        self.closing = self.closed = False
        self.lock = _thread.allocate_lock()
        self.inner, self.outer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self.task = loop.spawn(self._hear())

    async def addresses(self, host: str, deadline: float) -> List[Address]:
        """What `host`, a name, means here; OpenError, Lost if this is closed meanwhile."""
        if self.closing:
            raise Lost()
        question = self.asked.get(host)
        if question is None:
            question = self.asked[host] = Question(self.loop, host)
            self._put(question)
        question.askers += 1
        try:
            while not question.done:
                if self.closing:
                    raise Lost()
                await question.answered.wait(deadline)
        except TimedOut:
            raise OpenError("name", "no answer from this node's name service about {}".format(host))
        finally:
            question.askers -= 1
            self._forget(question)
        if question.error is not None:
            error = explain(question.error)
            raise OpenError("name", error.reason)
        return question.addresses

    def _forget(self, question: Question) -> None:
        """A name that nobody wants to know any more is not asked about: a thread may be busy with it for long."""
        with self.lock:
            if not question.askers and question in self.waiting:
                self.waiting.remove(question)
                self.asked.pop(question.host, None)

    def _put(self, question: Question) -> None:
        with self.lock:
            self.waiting.append(question)
            if self.threads >= THREADS:
                return
            self.threads += 1
        try:
            _thread.stack_size(STACK)
            _thread.start_new_thread(self._work, ())
        except RuntimeError:  # this user may have no more of them: those that are there do it
            with self.lock:
                self.threads -= 1
                if not self.threads:
                    self.waiting.remove(question)
                    question.error = "this node starts no thread to ask its name service"
                    self._tell(question)

    def _work(self) -> None:
        """A thread, until nobody asks."""
        while True:
            with self.lock:
                if not self.waiting:
                    self.threads -= 1
                    self._let_go()
                    return
                question = self.waiting.popleft()
            question.ask()
            self.answers.append(question)
            try:
                os.write(self.outer, b"\0")
            except OSError:
                pass  # full: it is about to be read

    def close(self) -> None:
        """Nobody asks any more; who waits for an answer is told so, and what threads still find out nobody hears."""
        self.closing = True
        self.task.cancel()
        for question in self.asked.values():
            question.answered.fire()

    def _let_go(self) -> None:
        """The pipe goes with the last who uses it."""
        if self.closed and not self.threads:
            os.close(self.inner)
            os.close(self.outer)

    async def _hear(self) -> None:
        """Answers go to those who wait for them."""
        watch = self.loop.watch(self.inner)
        try:
            while True:
                await watch.wait_readable()
                try:
                    os.read(self.inner, READ)
                except BlockingIOError:
                    pass
                while self.answers:
                    self._tell(self.answers.popleft())
        finally:
            self.loop.unwatch(watch)
            with self.lock:
                self.closed = True
                self.waiting.clear()
                self._let_go()

    def _tell(self, question: Question) -> None:
        question.done = True
        self.asked.pop(question.host, None)
        question.answered.fire()

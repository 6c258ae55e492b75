"""Coroutines over epoll: the part of asyncio that the agent needs, at a tenth of its memory.

Descriptors are registered once, edge-triggered, so waiting costs no system call: try the call first, and wait only
after it said EAGAIN. An event that nobody waits for is remembered in the Watch. Room to write is asked for only once a
write found none: a Unix socket would wake us each time that the other end has read something.
"""

import collections
import heapq
import select
import time
import types
from typing import Any, Callable, Coroutine, Deque, Dict, Generator, List, Optional, Set, Tuple

STEPS = 256
ROOM = 1 << 20
FEW_TIMERS = 64
# Who stood still for so long (a suspended job, a disk that does not write) hears first what has come meanwhile.
LATE_S, TURNS = 0.5, 8
EDGES = select.EPOLLIN | select.EPOLLRDHUP | select.EPOLLET
READABLE = select.EPOLLIN | select.EPOLLRDHUP | select.EPOLLHUP | select.EPOLLERR
WRITABLE = select.EPOLLOUT | select.EPOLLHUP | select.EPOLLERR
ENDED = select.EPOLLRDHUP | select.EPOLLHUP | select.EPOLLERR


class Cancelled(BaseException):
    """Thrown into a task that is to end; not an Exception, so that no handler swallows it."""


class TimedOut(Exception):
    """The deadline of a wait has passed."""


@types.coroutine
def _park() -> Generator[None, None, None]:
    """Give the thread back until somebody resumes this task."""
    yield


class Timer:
    """A call that is due at `when` (seconds of time.monotonic)."""

    __slots__ = ("loop", "when", "call")

    def __init__(self, loop: "Loop", when: float, call: Callable[[], None]) -> None:
        self.loop, self.when = loop, when
        self.call: Optional[Callable[[], None]] = call

    def cancel(self) -> None:
        """Never called from now on. Twice is once."""
        if self.call is not None:
            self.call = None
            self.loop.cancelled += 1


class Task:
    """A coroutine under way. `error` is what it ended with, if anything."""

    __slots__ = ("loop", "coro", "done", "result", "error", "queued", "throw", "joiners")

    def __init__(self, loop: "Loop", coro: Coroutine[Any, Any, Any]) -> None:
        self.loop, self.coro = loop, coro
        self.done = self.queued = False
        self.result: Any = None
        self.error: Optional[BaseException] = None
        self.throw: Optional[BaseException] = None
        self.joiners: Optional[List[Task]] = None

    def resume(self, throw: Optional[BaseException] = None) -> None:
        """Run on at the next turn of the loop; `throw` is raised where the task waits."""
        if self.done:
            return
        if throw is not None and not isinstance(self.throw, Cancelled):
            self.throw = throw
        if not self.queued:
            self.queued = True
            self.loop.ready.append(self)

    def cancel(self) -> None:
        """Ends at its next turn, its `finally` parts included."""
        self.resume(Cancelled())

    async def end(self) -> None:
        """It has been cancelled and is over, so what it waited for is free for the next who waits."""
        self.cancel()
        # A loop that is being closed has no next turn, and ends every task itself.
        while not self.done and self.loop.current is not None:
            await self.loop.sleep(0)

    def time_out(self) -> None:
        """Run on with TimedOut raised where the task waits."""
        self.resume(TimedOut())

    async def join(self, deadline: Optional[float] = None) -> Any:
        """What the task returned; raises what it raised; TimedOut after `deadline`."""
        while not self.done:
            me = self.loop.current
            assert me is not None
            self.joiners = (self.joiners or []) + [me]
            await self.loop.pause(deadline)
        if self.error is not None:
            raise self.error
        return self.result

    def step(self) -> None:
        """One turn: run until the coroutine waits or ends."""
        self.queued = False
        throw, self.throw = self.throw, None
        try:
            if throw is None:
                self.coro.send(None)
            else:
                self.coro.throw(throw)
            return
        except StopIteration as stop:
            self.result = stop.value
        except (Exception, Cancelled) as error:
            self.error = error
        self.done = True
        self.loop.tasks.discard(self)
        for task in self.joiners or ():
            task.resume()
        if self.joiners is None and isinstance(self.error, Exception):
            self.loop.on_error(self.error)


class Watch:
    """What epoll has said about one descriptor and nobody has used yet."""

    __slots__ = ("loop", "fd", "events", "readable", "writable", "ended", "reader", "writer")

    def __init__(self, loop: "Loop", fd: int) -> None:
        self.loop, self.fd, self.events = loop, fd, EDGES
        self.readable = self.writable = self.ended = False
        self.reader: Optional[Task] = None
        self.writer: Optional[Task] = None

    async def wait_readable(self, deadline: Optional[float] = None) -> None:
        """Something arrived since the last wait, or the other end is done; TimedOut after `deadline`."""
        if not self.readable:
            self.reader = self.loop.current
            try:
                await self.loop.pause(deadline)
            finally:
                self.reader = None
        self.readable = False

    async def wait_writable(self, deadline: Optional[float] = None) -> None:
        """There is room since the last wait; TimedOut after `deadline`."""
        if not self.events & select.EPOLLOUT:
            self.events |= select.EPOLLOUT
            self.loop.epoll.modify(self.fd, self.events)  # which tells at once if there is room by now
        if not self.writable:
            self.writer = self.loop.current
            try:
                await self.loop.pause(deadline)
            finally:
                self.writer = None
        self.writable = False

    def notice(self, events: int) -> None:
        """Remember `events` and wake whom they concern."""
        if events & READABLE:
            self.readable = True
            self.ended = self.ended or bool(events & ENDED)
            if self.reader is not None:
                self.reader.resume()
        if events & WRITABLE:
            self.writable = True
            if self.writer is not None:
                self.writer.resume()


class Signal:
    """Something that happens again and again; tasks wait for the next time."""

    __slots__ = ("loop", "waiting")

    def __init__(self, loop: "Loop") -> None:
        self.loop = loop
        self.waiting: List[Task] = []

    def fire(self) -> None:
        """All that wait run on."""
        waiting, self.waiting = self.waiting, []
        for task in waiting:
            task.resume()

    async def wait(self, deadline: Optional[float] = None) -> None:
        """It has fired once more; TimedOut after `deadline`."""
        me = self.loop.current
        assert me is not None
        self.waiting.append(me)
        try:
            await self.loop.pause(deadline)
        finally:
            if me in self.waiting:
                self.waiting.remove(me)


class Loop:
    """One thread's worth of tasks. `on_error` is told of a task that ended with an exception nobody waited for."""

    def __init__(self, on_error: Callable[[BaseException], None]) -> None:
        self.on_error = on_error
        self.epoll = select.epoll()
        self.watches: Dict[int, Watch] = {}
        self.tasks: Set[Task] = set()
        self.ready: Deque[Task] = collections.deque()
        self.timers: List[Tuple[float, int, Timer]] = []  # a heap; the number tells those of the same moment apart
        self.numbered = self.cancelled = self.put_off = 0
        self.room = memoryview(bytearray(ROOM))  # what passes through is here for a moment, whoever's it is
        self.current: Optional[Task] = None
        self.stopping = False

    def spawn(self, coro: Coroutine[Any, Any, Any]) -> Task:
        """A new task; it starts at the next turn."""
        task = Task(self, coro)
        self.tasks.add(task)
        task.resume()
        return task

    def watch(self, fd: int) -> Watch:
        """The descriptor is watched until `unwatch`, which must come before its close: a copy in ssh keeps it alive."""
        self.epoll.register(fd, EDGES)
        watch = self.watches[fd] = Watch(self, fd)
        return watch

    def unwatch(self, watch: Watch) -> None:
        """No more events for this descriptor."""
        if self.watches.get(watch.fd) is watch and not self.epoll.closed:
            del self.watches[watch.fd]
            self.epoll.unregister(watch.fd)

    def mute(self, watch: Watch, muted: bool) -> None:
        """No events while muted; afterwards one at once, if there is something to read."""
        if watch.fd in self.watches:
            self.epoll.modify(watch.fd, 0 if muted else watch.events)

    def call_at(self, when: float, call: Callable[[], None]) -> Timer:
        """`call` is called once, at `when` of time.monotonic or soon after."""
        # Nearly all are cancelled long before they are due; without this each would stay until then.
        if self.cancelled > FEW_TIMERS and 2 * self.cancelled > len(self.timers):
            self.timers = [entry for entry in self.timers if entry[2].call is not None]
            heapq.heapify(self.timers)
            self.cancelled = 0
        timer = Timer(self, when, call)
        self.numbered += 1
        heapq.heappush(self.timers, (when, self.numbered, timer))
        return timer

    async def pause(self, deadline: Optional[float]) -> None:
        """Return when somebody resumes this task; raise TimedOut at `deadline`."""
        if deadline is None:
            await _park()
            return
        me = self.current
        assert me is not None
        timer = self.call_at(deadline, me.time_out)
        try:
            await _park()
        finally:
            timer.cancel()

    async def sleep(self, seconds: float) -> None:
        """That much later."""
        await self.sleep_until(time.monotonic() + seconds)

    async def sleep_until(self, when: float) -> None:
        """It is `when`, of time.monotonic, or soon after."""
        try:
            await self.pause(when)
        except TimedOut:
            pass

    def run(self) -> None:
        """Run until `stopping` is set."""
        while not self.stopping:
            self._turn()

    def close(self) -> None:
        """All tasks have ended where they waited, their `finally` parts included."""
        self.current = None
        for task in list(self.tasks):
            task.coro.close()
        self.tasks.clear()
        self.epoll.close()

    def _turn(self) -> None:
        for _ in range(STEPS):  # bounded: tasks that keep each other busy must not keep events out
            if not self.ready:
                break
            self.current = task = self.ready.popleft()
            task.step()
        self.current = None
        happened = self._poll(self._patience())
        for fd, events in happened:
            watch = self.watches.get(fd)
            if watch is not None:
                watch.notice(events)
        now = time.monotonic()
        if (happened or self.ready) and self.put_off < TURNS and self.timers and self.timers[0][0] < now - LATE_S:
            self.put_off += 1  # an answer that is there is not too late
            return
        self.put_off = 0
        while self.timers and self.timers[0][0] <= now:
            call = self._next_call()
            if call is not None:
                call()

    def _next_call(self) -> Optional[Callable[[], None]]:
        """What the first timer calls, None if it was cancelled; it is a timer no more."""
        timer = heapq.heappop(self.timers)[2]
        call, timer.call = timer.call, None  # cancelling it has no meaning any more
        if call is None:
            self.cancelled -= 1
        return call

    def _patience(self) -> float:
        while self.timers and self.timers[0][2].call is None:
            self._next_call()
        if self.ready or self.stopping:
            return 0
        return max(0.0, self.timers[0][0] - time.monotonic()) if self.timers else -1

    def _poll(self, patience_s: float) -> List[Tuple[int, int]]:
        return self.epoll.poll(patience_s, 256)

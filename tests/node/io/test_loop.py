"""The loop and its streams: nothing is lost for being waited for late, and nothing stays for having been waited for."""

import contextlib
import os
import socket
import threading
import time

import pytest

from hpcproxy.node.io.loop import LATE_S, STEPS, TURNS, Loop, Signal, TimedOut
from hpcproxy.node.io.peer import Peers, query
from hpcproxy.node.io.stream import Stream
from hpcproxy.node.proxy.listener import bind
from hpcproxy.node.proxy.relay import first_words
from hpcproxy.node.state.access_log import Access
from hpcproxy.node.state.log import Journal
from hpcproxy.node.state.status import EVERY_S, Record

SOON_S = 10


def run(main):
    """What `main(loop)` returns; no task may have failed meanwhile."""
    errors = []
    loop = Loop(errors.append)

    async def whole():
        try:
            return await main(loop)
        finally:
            loop.stopping = True

    task = loop.spawn(whole())
    task.joiners = []  # somebody asks for its error: we, below
    loop.run()
    loop.close()
    if task.error is not None:
        raise task.error
    assert errors == []
    return task.result


@contextlib.contextmanager
def pair(loop):
    ours, theirs = socket.socketpair()
    with theirs:
        stream = Stream(loop, ours)
        yield stream, theirs
        stream.close()


def deadline():
    return time.monotonic() + SOON_S


def test_what_came_with_the_end_is_read_before_it():
    async def main(loop):
        with pair(loop) as (ours, theirs):
            theirs.send(b"last words")
            theirs.close()
            assert await ours.recv(4096, deadline()) == b"last words"
            assert await ours.recv(4096, deadline()) == b""

    run(main)


def test_the_end_may_come_between_two_reads():
    async def main(loop):
        with pair(loop) as (ours, theirs):
            theirs.send(b"one")
            assert await ours.recv(4096, deadline()) == b"one"
            theirs.send(b"two")
            theirs.close()
            assert await ours.recv(4096, deadline()) == b"two"
            assert await ours.recv(4096, deadline()) == b""

    run(main)


def test_what_a_peek_left_is_read():
    async def main(loop):
        with pair(loop) as (ours, theirs):
            theirs.send(b"x")
            assert await ours.recv(4096, deadline()) == b"x"
            theirs.send(b"head\nbody")
            await loop.sleep(0)  # the watch has told of it by now
            assert await ours.take(lambda data: (5, data[:5]) if len(data) > 5 else None, 100, deadline()) == b"head\n"
            assert await ours.recv(4096, deadline()) == b"body"
            theirs.send(b"in parts")
            assert [await ours.recv(3, deadline()) for _ in range(3)] == [b"in ", b"par", b"ts"]

    run(main)


def test_a_read_has_a_deadline():
    async def main(loop):
        with pair(loop) as (ours, _theirs):
            with pytest.raises(TimedOut):
                await ours.recv(1, time.monotonic() + 0.05)

    run(main)


def test_a_write_waits_for_room_and_ends_when_nobody_reads_any_more():
    async def main(loop):
        with pair(loop) as (ours, theirs):
            much = bytes(4 << 20)
            sender = loop.spawn(ours.send(much, deadline()))
            reader = Stream(loop, theirs)
            size = 0
            while size < len(much):
                size += len(await reader.recv(65536, deadline()))
            await sender.join(deadline())
            sender = loop.spawn(ours.send(much, deadline()))
            await reader.recv(65536, deadline())
            reader.close()
            with pytest.raises((BrokenPipeError, ConnectionResetError)):
                await sender.join(deadline())

    run(main)


def test_nobody_is_woken_for_room_that_nobody_asked_for():
    async def main(loop):
        with pair(loop) as (ours, theirs):
            await ours.send(b"x" * 1000)
            assert theirs.recv(4096) == b"x" * 1000
            await loop.sleep(0.05)
            assert not ours.watch.writable

    run(main)


def test_cancelled_timers_do_not_stay():
    async def main(loop):
        for _ in range(5000):
            loop.call_at(time.monotonic() + 3600, loop.close).cancel()
        kept = [loop.call_at(time.monotonic() + 3600, loop.close) for _ in range(100)]
        assert len(loop.timers) < 400
        for timer in kept:
            timer.cancel()
            timer.cancel()

    run(main)


def test_timers_of_one_moment_are_called_in_their_order():
    async def main(loop):
        called, now = [], time.monotonic()
        for number in range(10):
            loop.call_at(now, lambda number=number: called.append(number))
        loop.call_at(now, lambda: called.append("no")).cancel()
        await loop.sleep(0.01)
        return called

    assert run(main) == list(range(10))


def test_what_is_accepted_sends_at_once():
    with bind("127.0.0.1", 0) as listener, socket.create_connection(listener.getsockname()):
        accepted, _ = listener.accept()
        with accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_the_status_is_fresh_while_connections_are_open(tmp_path):
    async def main(loop):
        folder_fd, journal = os.open(str(tmp_path), os.O_RDONLY), Journal("1", "c1", "info", False)
        record = Record(loop, folder_fd, journal, ("127.0.0.1", 1), Access(journal, 0, False, False))
        record.active = 1
        record.changed()
        await loop.sleep(0.05)  # it is written, and will be for the open connection's sake, much later
        record.requests = 7
        record.changed()
        assert record.timer.when <= time.monotonic() + EVERY_S

    run(main)


def test_an_answer_to_an_earlier_question_is_none_to_this_one():
    peers = Peers()
    assert peers.netlink is not None
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(bind("127.0.0.1", 0))
        first = stack.enter_context(socket.create_connection(listener.getsockname()))
        here = listener.getsockname()
        nobody = ("127.0.0.1", 1)
        peers.netlink.send(query(first.getsockname(), here, 99))  # its answer stays in the queue
        assert peers.owner(nobody, here) is None
        assert peers.owner(first.getsockname(), here) is not None
    assert peers.netlink is not None
    peers.close()


def test_a_loop_that_is_closed_ends_who_waits_for_the_first_word():
    """The agent is told to end while a client and a far end are both silent; it said so in a traceback."""
    errors = []
    loop = Loop(errors.append)
    here, there = socket.socketpair(), socket.socketpair()
    task = loop.spawn(first_words(loop, Stream(loop, here[0]), Stream(loop, there[0]), 4096))

    async def stop_soon():
        await loop.sleep(0.05)
        loop.stopping = True

    loop.spawn(stop_soon())
    loop.run()
    assert not task.done
    loop.close()
    assert errors == []
    assert loop.tasks == set()
    for end in (*here, *there):
        end.close()


def test_an_answer_that_came_while_we_stood_still_is_not_too_late():
    async def main(loop):
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        watch, told = loop.watch(ours.fileno()), Signal(loop)

        async def hear():
            await watch.wait_readable()
            told.fire()

        loop.spawn(hear())
        waiting = loop.spawn(told.wait(time.monotonic() + 0.1))
        waiting.joiners = []
        await loop.sleep(0)
        theirs.send(b"x")
        time.sleep(0.1 + 2 * LATE_S)  # noqa: ASYNC251 - as by SIGSTOP, or a disk that does not write
        await waiting.join()
        loop.unwatch(watch)
        ours.close()
        theirs.close()

    run(main)


def test_who_is_late_and_busy_still_calls_what_is_due():
    async def main(loop):
        called = []
        loop.call_at(time.monotonic() - 2 * LATE_S, lambda: called.append(True))
        for step in range(100 * STEPS):
            if called:
                return step
            me = loop.current
            me.resume()  # something to do at every turn
            await loop.pause(None)
        raise AssertionError("never")

    assert run(main) <= (TURNS + 2) * STEPS


@pytest.mark.parametrize("timed", [False, True])
def test_one_that_has_nothing_to_do_does_nothing(timed):
    """It waits in the kernel, until something comes or the next timer is due."""

    async def main(loop):
        turns, poll = [], loop._poll
        loop._poll = lambda patience_s: turns.append(patience_s) or poll(patience_s)
        with pair(loop) as (ours, theirs):
            later = threading.Timer(0.3, theirs.send, [b"at last"])
            later.start()
            until = deadline() if timed else None
            said = await ours.recv(100, until)
            later.join()
            return said, turns

    said, turns = run(main)
    assert said == b"at last"
    assert len(turns) < 10, "it would take a whole core"
    assert turns[0] > 1 if timed else turns[0] < 0, "for ever"

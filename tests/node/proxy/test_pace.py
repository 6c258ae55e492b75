"""Small packets wait for each other while much flows to the client, and at no other time."""

import socket
import threading
import time

import pytest

from hpcproxy.node.io.loop import Loop, Signal
from hpcproxy.node.io.stream import Stream
from hpcproxy.node.io.tcp_info import Counters, Marks
from hpcproxy.node.proxy import pace as module
from hpcproxy.node.proxy.hand_over import HandedOver
from hpcproxy.node.proxy.listener import bind
from hpcproxy.node.proxy.pace import ENOUGH, GATHER_S, LONGEST_S, MUCH, MUCH_S, TICK_S, WINDOW_S, Gathering, Pace

SOON_S = 30


class Played:
    """Loop, socket, counters and clock of a connection whose client has had so many bytes at each look."""

    def __init__(self, counts):
        self.counts, self.now, self.slept, self.no_delay = list(counts), 1000.02, [], []
        self.call = None

    def monotonic(self):
        return self.now

    def acknowledged(self):
        return self.counts.pop(0)

    def call_at(self, when, call):
        self.slept.append(when - self.now)
        self.call = call
        return self

    def cancel(self):
        self.call = None

    def setsockopt(self, level, option, value):
        assert (level, option) == (socket.IPPROTO_TCP, socket.TCP_NODELAY)
        self.no_delay.append(bool(value))


def play(monkeypatch, counts):
    """What became of a connection, looked at once for each of `counts` but the first, which was its beginning."""
    played = Played(counts)
    monkeypatch.setattr(module, "time", played)
    pace = Pace(played, played, played, played.counts.pop(0))
    while played.counts:
        played.now += played.slept[-1]
        played.call()
    pace.stop()
    assert played.call is None
    return played


class Clock:
    """A loop and a clock that a test moves."""

    def __init__(self):
        self.now, self.until = 1000.0001, []

    def monotonic(self):
        return self.now

    async def sleep_until(self, when):
        self.until.append(when)


def gathered(monkeypatch, rate, size):
    """Whether parts of `size` bytes, at `rate` bytes per second, wait for more: until the next tick of the clock."""
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    gathering = Gathering(clock)
    for _ in range(int(3 * WINDOW_S * rate / size) + 3):
        clock.now += size / rate
        with pytest.raises(StopIteration):
            gathering.after(size).send(None)
        for when in clock.until:
            assert clock.now < when <= clock.now + GATHER_S + 1e-9
            assert abs(when / GATHER_S - round(when / GATHER_S)) < 1e-3  # all that wait go on together
        waited, clock.until = bool(clock.until), []
    return waited


@pytest.mark.parametrize(
    "rate, size, waits",
    [(10 * MUCH, 32768, True), (MUCH / 2, 32768, False), (10 * MUCH, ENOUGH, False), (1000, 100, False)],
)
def test_parts_in_our_hands_wait_for_more_while_much_flows(monkeypatch, rate, size, waits):
    assert gathered(monkeypatch, rate, size) is waits


LOTS = int(MUCH)  # in the half second between two looks twice what is called much


@pytest.mark.parametrize(
    "counts, no_delay",
    [
        ([0] * 9, []),
        (range(0, 40_000, 10_000), []),  # answers of some kilobytes
        ([70, 70 + LOTS, 70 + 2 * LOTS, 70 + 3 * LOTS], [False]),
        ([0, LOTS, 2 * LOTS, 2 * LOTS + 900], [False, True]),
        ([0, 0, LOTS, LOTS, 9 * LOTS], [False, True, False]),
        ([LOTS, 0], []),  # its counts are gone
    ],
)
def test_only_much_in_little_time_changes_anything(monkeypatch, counts, no_delay):
    assert play(monkeypatch, counts).no_delay == no_delay


def test_a_quiet_connection_is_looked_at_ever_more_seldom(monkeypatch):
    slept = play(monkeypatch, [0] * 20).slept
    assert all(later > sooner - 1.5 * TICK_S for sooner, later in zip(slept, slept[1:]))
    assert slept[-1] == pytest.approx(LONGEST_S, abs=1.01 * TICK_S)


def test_a_fast_one_is_looked_at_as_often_as_its_last_words_may_wait(monkeypatch):
    slept = play(monkeypatch, range(0, 20 * LOTS, LOTS)).slept
    assert slept[1:] == pytest.approx([MUCH_S] * len(slept[1:]), abs=1.01 * TICK_S)


def test_connections_are_looked_at_together(monkeypatch):
    played = play(monkeypatch, [0, 0])
    assert played.now / TICK_S == pytest.approx(round(played.now / TICK_S))


class Session:
    """A channel that is open as long as a test wants."""

    eof = False

    def __init__(self, loop):
        self.end = Signal(loop)

    async def closed(self):
        await self.end.wait()

    def lost(self):
        return False


def write_while(flowing, sock):
    """What ssh does with its copy of the client's socket."""
    with sock:
        sock.setblocking(True)
        while flowing.is_set():
            sock.sendall(bytes(32768))


def test_a_connection_in_the_hands_of_ssh_is_looked_after_until_its_end():
    errors = []
    loop = Loop(errors.append)
    listener = bind("127.0.0.1", 0)
    client = socket.create_connection(listener.getsockname())
    flowing = threading.Event()
    flowing.set()

    async def seen(sock, wanted):
        end = time.monotonic() + SOON_S
        while bool(sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)) != wanted:
            assert time.monotonic() < end
            await loop.sleep(0.01)

    async def main():
        sock = listener.accept()[0]
        threads = [
            threading.Thread(target=lambda: [None for _ in iter(lambda: client.recv(1 << 20), b"")]),
            threading.Thread(target=write_while, args=(flowing, sock.dup())),
        ]
        stream, session = Stream(loop, sock), Session(loop)
        try:
            await seen(sock, True)
            handed_over = HandedOver(loop, stream, Counters(sock), session, Marks(0, 0, 0))
            under_way = loop.spawn(handed_over.run())
            for thread in threads:
                thread.start()
            await seen(sock, False)
            flowing.clear()
            await seen(sock, True)
            session.end.fire()
            await under_way.join(time.monotonic() + SOON_S)
            assert [timer for _, _, timer in loop.timers if timer.call is not None] == []
        finally:
            flowing.clear()
            stream.close()
            for thread in threads:
                thread.join()
            loop.stopping = True

    try:
        loop.spawn(main())
        loop.run()
    finally:
        loop.close()
        listener.close()
        client.close()
    assert errors == []

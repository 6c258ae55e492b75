"""A request whose tunnel goes while it is opened: tried anew, unless something of the client's has gone with it."""

import os
import socket

import pytest

from hpcproxy.node.io.loop import Loop, Signal
from hpcproxy.node.io.stream import Stream
from hpcproxy.node.io.tcp_info import Counters
from hpcproxy.node.proxy.hand_over import ClientEnds
from hpcproxy.node.upstream import tunnel as module
from hpcproxy.node.upstream.open_error import OpenError
from hpcproxy.node.upstream.target import Target
from hpcproxy.node.upstream.tunnel import Tunnel
from hpcproxy.node.upstream.upstream import Channel, Lost, Upstream

TARGET = Target("far.test", 443)


class Dying(Upstream):
    """Goes away with the first request: after it has read `takes` bytes of the client's, as ssh may have."""

    def __init__(self, takes):
        self.takes, self.opened = takes, []

    def dead(self):
        return False

    async def open(self, target, ends, deadline):
        fd, _ = ends.descriptors()
        self.opened.append(os.read(fd, self.takes or 100) if self.takes or self.opened else b"")
        if len(self.opened) == 1:
            raise Lost
        return Channel()


class Settings:
    hold_s, connect_timeout_s = 5, 5


class Record:
    held, last_error = 0, "the jump host hung up"


def tunnel_of(loop, upstream):
    found = Tunnel.__new__(Tunnel)
    found.loop, found.settings, found.record = loop, Settings(), Record()
    found.upstream, found.changed, found.down_since, found.was_ready = upstream, Signal(loop), 0.0, True
    return found


@pytest.mark.parametrize("takes, again", [(0, True), (3, False)])
def test_what_has_gone_with_the_old_one_is_not_lost_without_a_word(monkeypatch, takes, again):
    monkeypatch.setattr(module, "AGAIN_S", 0.001)
    loop, outcomes = Loop(lambda error: outcomes.append(repr(error))), []
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as client:
        sock = server.accept()[0]
        stream, counters = Stream(loop, sock), Counters(sock)
        upstream = Dying(takes)

        async def ask():
            ends = ClientEnds(stream, counters, counters.marks())
            client.sendall(b"PUT / HTTP/1.1")  # before it has our answer, which it may
            try:
                await tunnel_of(loop, upstream).open(TARGET, ends)
                outcomes.append("opened")
            except OpenError as error:
                outcomes.append(error.kind)
            loop.stopping = True

        loop.spawn(ask())
        loop.run()
        stream.close()
    loop.close()
    assert outcomes == (["opened"] if again else ["down"])
    assert upstream.opened == ([b"", b"PUT / HTTP/1.1"] if again else [b"PUT"])

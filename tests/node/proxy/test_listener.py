"""How many connections there may be where descriptors are few: each needs some, and the agent itself too."""

import os
import resource
import socket

import pytest

from hpcproxy.node.io.loop import Loop
from hpcproxy.node.proxy import listener, port

INFINITE = resource.RLIM_INFINITY
NEEDED = 10 * listener.FDS_EACH + listener.OVER + listener.FDS_SPARE


@pytest.mark.parametrize(
    "soft, hard, raised, connections",
    [
        (NEEDED, NEEDED, None, 10),
        (INFINITE, INFINITE, None, 10),
        (NEEDED + 1, 2 * NEEDED, None, 10),
        (NEEDED - 1, INFINITE, NEEDED, 10),
        (64, 2 * NEEDED, NEEDED, 10),
        (64, NEEDED - 1, NEEDED - 1, 9),
        (64, NEEDED - listener.FDS_EACH, NEEDED - listener.FDS_EACH, 9),
        (1, 1, 1, 1),
    ],
)
def test_no_more_than_there_are_descriptors_for(monkeypatch, soft, hard, raised, connections):
    asked = []
    monkeypatch.setattr(resource, "getrlimit", lambda which: (soft, hard))
    monkeypatch.setattr(resource, "setrlimit", lambda which, pair: asked.append(pair))
    assert listener.raise_fd_limit(10) == connections
    assert asked == ([] if raised is None else [(raised, hard)])


def test_the_port_that_root_has_taken_is_no_business_of_what_the_agent_starts():
    """ssh would keep it from the job's next run."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        fd = os.dup(taken.fileno())
        os.set_inheritable(fd, True)  # as it comes through root's exec
        with port.adopt(fd) as adopted:
            assert not os.get_inheritable(adopted.fileno())
            assert adopted.getsockname() == taken.getsockname()
            assert adopted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            assert adopted.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)


def test_the_backlog_is_a_crowds(monkeypatch):
    """Clients that come while the agent is begun anew wait there."""
    asked = []
    monkeypatch.setattr(socket.socket, "listen", lambda sock, count: asked.append(count))
    with socket.create_server(("127.0.0.1", 0), backlog=1) as taken, port.adopt(os.dup(taken.fileno())):
        pass
    listener.bind("127.0.0.1", 0).close()
    assert asked[-2:] == [1024, 1024]


def test_where_nothing_can_listen_no_socket_is_left(tmp_path):
    files = len(os.listdir("/proc/self/fd"))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        with pytest.raises(OSError, match="Address already in use"):
            listener.bind(*taken.getsockname())
        with pytest.raises(OSError, match=r"Bad file descriptor|Socket operation on non-socket"):
            port.adopt(os.open(str(tmp_path), os.O_RDONLY))
    assert len(os.listdir("/proc/self/fd")) <= files + 1


class Admits:
    """An entrance where everybody may come in."""

    listener, counted = None, True

    def admits(self, sock, address):
        return True


class Counts:
    refused = 0

    def changed(self):
        pass


class OfAll:
    """What conversations share, as far as it is needed before the first of them has begun."""

    def __init__(self):
        self.entrance, self.record = Admits(), Counts()


def test_a_few_beyond_the_bound_are_answered_and_the_rest_is_closed(monkeypatch):
    """Else a crowd would take all descriptors, and with them those who are served."""
    monkeypatch.setattr(listener, "OVER", 3)
    loop = Loop(lambda error: None)
    clients = listener.Clients(loop, OfAll(), 2)
    here, there = zip(*(socket.socketpair() for _ in range(10)))
    for sock in here:
        clients._admit(sock, ("", 0))
    assert [sock.fileno() >= 0 for sock in here] == [True] * 5 + [False] * 5
    assert sorted(talk.busy for talk in clients.talks) == ["", ""] + ["2 connections are open, no more are allowed"] * 3
    assert clients.shared.record.refused == 8
    loop.close()
    for sock in (*here, *there):
        sock.close()

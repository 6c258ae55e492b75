"""Who reached what: one line each in the system's log, bounded, never waited for, and never two."""

import os
import re
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcproxy.node.state import access_log
from hpcproxy.node.state.access_log import BURST, EACH_S, Access
from hpcproxy.node.state.log import Journal
from tests.node.harness import echo


class Clock:
    """Time that the test moves."""

    now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def system(tmp_path):
    """The system's log: a socket that is read when the test asks."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    sock.bind(str(tmp_path / "log"))
    sock.setblocking(False)
    yield sock
    sock.close()


def told(system):
    """The lines in it by now, without their head, which is checked."""
    found = []
    while True:
        try:
            line = system.recv(65536).decode()
        except BlockingIOError:
            return found
        head = r"<30>\w{{3}} [\d ]\d \d\d:\d\d:\d\d hpcproxy\[{}\]: job 17 node c1: ".format(os.getpid())
        assert re.match(head, line)
        found.append(re.sub(head, "", line))


def access_to(path, clock):
    return Access(Journal("17", "c1", "error", False, str(path)), 1001, False, True, clock)


def test_a_line_says_who_where_how_much_and_what_became_of_it(system, tmp_path):
    made = access_to(tmp_path / "log", Clock())
    made.write("internet.test:443", 512, 10234, 1.2345, "ok")
    made.write("[::1]:80", 0, 0, 0, "denied: it is\nclosed\x1b[2J\u2028x" + "y" * 500)
    first, second = told(system)
    assert first == "access uid=1001 to=internet.test:443 up=512 down=10234 seconds=1.234 outcome=ok"
    assert second.startswith(
        "access uid=1001 to=[::1]:80 up=0 down=0 seconds=0.000 outcome=denied: it is?closed?[2J?xyy"
    )
    assert len(second) < 300


@given(st.text(max_size=60), st.text(max_size=60))
def test_nothing_that_a_client_says_begins_a_line(host, outcome):
    lines = []
    journal = Journal("17", "c1", "error", False, "")
    journal.tell_system = lambda level, text: lines.append(text) or True
    Access(journal, 7, False, True, Clock()).write(host, 1, 2, 3, outcome)
    assert len(lines) == 1
    assert lines[0].isprintable()
    assert lines[0].startswith("access uid=7 to=")


def test_a_storm_is_bounded_and_what_was_left_out_is_said(system, tmp_path, monkeypatch):
    monkeypatch.setattr(access_log, "BURST", 5.0)
    clock = Clock()
    made = access_to(tmp_path / "log", clock)
    lines = []
    for number in range(50):
        made.write("h:{}".format(number), 0, 0, 0, "ok")
        lines += told(system)
    assert [line.split()[2] for line in lines] == ["to=h:{}".format(number) for number in range(5)]
    clock.now += 1.5 / EACH_S
    made.write("h:99", 0, 0, 0, "ok")
    lost, line = told(system)
    assert (lost, line.split()[2]) == ("access uid=1001 left_out=45", "to=h:99")
    made.write("h:100", 0, 0, 0, "ok")
    made.close()
    assert told(system) == ["access uid=1001 left_out=1"]
    made.close()
    assert told(system) == []


def test_a_log_that_is_away_or_full_is_not_waited_for_and_its_losses_are_counted(system, tmp_path):
    made = access_to(tmp_path / "log", Clock())
    for number in range(int(BURST)):  # more than an unread queue of datagrams holds
        made.write("h:{}".format(number), 0, 0, 0, "ok")
    kept = len(told(system))
    assert 0 < kept < BURST
    made.close()
    assert told(system) == ["access uid=1001 left_out={}".format(int(BURST) - kept)]
    away = access_to(tmp_path / "none", Clock())
    away.write("h:1", 0, 0, 0, "ok")
    away.close()
    assert away.left_out == 1


def test_what_is_under_way_when_the_agent_is_told_to_end_has_its_line(start_agent, far_end):
    agent = start_agent(access_log=True)
    server = far_end(echo)
    sock, _ = agent.tunnel(("127.0.0.1", server.port))
    sock.sendall(b"x" * 1000)
    assert len(sock.recv(1000, socket.MSG_WAITALL)) == 1000
    with open(str(agent.state / "access.log")) as log, sock:
        assert log.read() == ""
        agent.stop()
        (line,) = log.read().splitlines()
    assert line.split()[1:4] == ["127.0.0.1:{}".format(server.port), "1000", "1000"]

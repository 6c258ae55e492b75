"""What the kernel counts, read while it goes on counting."""

import itertools
import termios

from hpcproxy.node.io.tcp_info import TRIES, Counters


class Moving(Counters):
    """70000 bytes have been written; `acked` is how many of them the client has acknowledged at each reading."""

    def __init__(self, acked):
        self.acked = iter(acked)
        self.now = 0

    def _read(self):
        self.now = next(self.acked, self.now)
        return 1, self.now, 0

    def _queue(self, request):
        # The next acknowledgement comes just before this reading.
        if request == termios.TIOCOUTQ:
            self.now = next(self.acked, self.now)
            return 70000 - self.now
        return 0


def test_what_is_acknowledged_between_two_readings_is_counted():
    for acked in ([65535, 70000], [0, 10, 20, 20, 20], [0, 0, 65535, 65535, 70000], [70000]):
        assert Moving(acked).sent() == 70000
        assert Moving(acked).marks().sent == 70000


def test_a_connection_that_never_rests_ends_the_readings_and_is_never_said_to_have_less():
    moving = Moving(itertools.count(0, 7))
    assert 70000 <= moving.sent() <= 70000 + 7
    assert moving.now <= 7 * 2 * (TRIES + 1)

"""Who speaks first: to which far ends a client's socket is handed over, and what becomes of one that was quicker."""

import pytest

from hpcproxy.node.io.tcp_info import Marks
from hpcproxy.node.proxy.first_speaker import REMEMBERED, FirstSpeaker
from hpcproxy.node.proxy.hand_over import HandedOver
from hpcproxy.node.upstream.target import Target

TLS = b"\x16\x03\x01\x02\x00\x01"
ELSEWHERE = Target("h.example", 9000)


@pytest.mark.parametrize("port", [22, 80, 443, 8080, 8443, 9000])
@pytest.mark.parametrize("first, known", [(TLS, True), (b"GET / HT", True), (b"SSH-2.0-", False), (b"\0\0\0\1", False)])
def test_no_port_says_who_speaks_first_only_what_a_client_was_seen_to_say(port, first, known):
    order = FirstSpeaker()
    target = Target("h.example", port)
    assert not order.may_hand_over(target)
    order.learn(target, first)
    assert order.may_hand_over(target) is known
    assert not order.may_hand_over(Target("other.example", port))


def test_a_far_end_that_was_caught_speaking_first_stays_so():
    order = FirstSpeaker()
    for target in (ELSEWHERE, Target("h.example", 443)):
        order.learn(target, TLS)
        order.learn(target, b"")
        order.learn(target, TLS)
        assert not order.may_hand_over(target)


def test_the_oldest_is_forgotten():
    order = FirstSpeaker()
    for number in range(REMEMBERED + 1):
        order.learn(Target("h{}".format(number), 9000), TLS)
    assert len(order.client_first) == REMEMBERED
    assert not order.may_hand_over(Target("h0", 9000))


class Client:
    """A client's stream and socket, and the kernel's counts for it: `sent` is what each look finds written to it."""

    def __init__(self, sent, received=0):
        self.sock = self
        self.looks, self.heard = list(sent), received
        self.said = b""
        self.finish = None

    def detach(self):
        """Nobody watches."""

    def send(self, data):
        self.said += data
        return len(data)

    def sent(self):
        return self.looks.pop(0)

    def received(self):
        return self.heard


class Session:
    eof = heeded = False

    def heed(self, on_eof):
        self.heeded = True


@pytest.mark.parametrize(
    "sent, received, good, said",
    [
        ([5, 8], 0, True, b"yes"),
        ([7], 0, False, b""),  # before our answer
        ([5, 10], 0, False, b"yes"),  # perhaps in between: the client has said nothing that it could answer
        ([5, 10], 4, True, b"yes"),  # the client has spoken, and was answered
    ],
)
def test_our_answer_is_the_first_that_the_client_gets(sent, received, good, said):
    client, session = Client(sent, received), Session()
    handed_over = HandedOver(None, client, client, session, Marks(taken=0, waiting=0, sent=5))
    assert handed_over.confirm(b"yes") is good
    assert (client.said, session.heeded) == (said, good)

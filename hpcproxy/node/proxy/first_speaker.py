"""Which end speaks first, and so when a client's socket may be handed to ssh.

Once handed over, ssh writes to the client on its own. Our "connected" must come before the far end's first byte, and it
must be true, so it cannot be written before ssh says that the channel is open. Nothing tells beforehand who speaks
first: ssh listens on 443, and web servers on every port. So a far end that nobody knows yet gets a relay, our answer
goes out, and whoever speaks next decides (proxy/connection.py):

- the client, with what only a client of TLS or HTTP says: such a far end serves many connections, and this one has
  heard nothing yet, so it is let go and a new one gets the client's own socket. Our answer is out, and stays the first;
- anybody else: the relay stays;
- a far end that was seen to wait for TLS or HTTP is handed the next client at once. One that then speaks first all the
  same is caught after the fact (proxy/hand_over.py), broken off, and relayed from then on.
"""

from typing import Dict

from ..upstream.target import Target

REMEMBERED = 1024
OPENING_BYTES = 16
HTTP_METHODS = (b"GET ", b"HEAD ", b"POST ", b"PUT ", b"DELETE ", b"OPTIONS ", b"PATCH ", b"PRI * HTTP/2")


def opens_as_client(first: bytes) -> bool:
    """Only a client says this, and only to a far end that waits for it: TLS or HTTP. An ssh client speaks first too."""
    return first[:2] == b"\x16\x03" or first.startswith(HTTP_METHODS)


class FirstSpeaker:
    """What was learned about each far end, the oldest forgotten."""

    def __init__(self) -> None:
        self.client_first: Dict[Target, bool] = {}

    def may_hand_over(self, target: Target) -> bool:
        """The far end at `target` was seen to wait for the client to speak; in doubt, no."""
        return self.client_first.get(target, False)

    def learn(self, target: Target, first: bytes) -> None:
        """A client opened with `first` before it heard anything; b"" if the far end spoke before it, which stays so."""
        if opens_as_client(first):
            self.client_first.setdefault(target, True)
        elif not first:
            self.client_first[target] = False
        while len(self.client_first) > REMEMBERED:
            del self.client_first[next(iter(self.client_first))]

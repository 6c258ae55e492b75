"""Which end speaks first, and so whether a client's socket may be handed to ssh.

Once handed over, ssh writes to the client on its own. Our "connected" must come before the far end's first byte, and it
must be true, so it cannot be written before ssh says that the channel is open. Where the far end waits for the client
(TLS, HTTP) that is no race: the client says nothing before it has our answer. Where the far end may speak first (ssh,
smtp, ftp, mysql) only a relay keeps the order. Nothing tells the two apart beforehand, so:

- ports that are client-first by registration, and widely used as such, are handed over at once;
- all others are relayed the first time, and handed over once a client was seen to open with TLS or HTTP there;
- a far end that is caught speaking first is relayed from then on (Direct in direct.py checks after the fact, and breaks
  the connection off rather than let a client take the far end's bytes for ours);
- a name that says ssh (ssh.github.com:443) is relayed always.
"""

from typing import Dict

from .target import Target

CLIENT_FIRST_PORTS = frozenset([80, 443, 8080, 8443])
REMEMBERED = 1024
HTTP_METHODS = (b"GET ", b"HEAD ", b"POST ", b"PUT ", b"DELETE ", b"OPTIONS ", b"PATCH ", b"PRI * HTTP/2")


class Order:
    """What was learned about each far end, the oldest forgotten."""

    def __init__(self) -> None:
        self.client_first: Dict[Target, bool] = {}

    def may_hand_over(self, target: Target) -> bool:
        """The far end at `target` waits for the client to speak; in doubt, no."""
        if "ssh" in target.host.lower():
            return False
        return self.client_first.get(target, target.port in CLIENT_FIRST_PORTS)

    def learn(self, target: Target, first: bytes) -> None:
        """A client opened with `first` before it heard anything; b"" if the far end spoke before it.

        Only TLS and HTTP prove that the client always will: an ssh client speaks first too, now and then.
        """
        if first[:2] == b"\x16\x03" or first.startswith(HTTP_METHODS):
            self.client_first.setdefault(target, True)
        elif not first:
            self.client_first[target] = False
        while len(self.client_first) > REMEMBERED:
            del self.client_first[next(iter(self.client_first))]

"""What all conversations share: the way out, the policy, what was learned, the record."""

from .loop import Loop
from .order import Order
from .peer import Peers
from .policy import closed_by, denied_by
from .record import Record
from .settings import Settings
from .target import Target, spell
from .tunnel import Tunnel
from .way import WayError


class Gate:
    """One per agent."""

    def __init__(self, loop: Loop, settings: Settings, tunnel: Tunnel, record: Record) -> None:
        self.loop, self.settings, self.tunnel, self.record = loop, settings, tunnel, record
        self.order = Order()
        self.peers = Peers()

    def check(self, target: Target, busy: str) -> None:
        """`target` may be reached, and there is room for one more; WayError."""
        if busy:
            raise WayError("busy", busy)
        if target.port == 0:
            raise WayError("bad", "port 0 does not exist")
        policy = self.settings.policy
        rule = denied_by(policy, target.host, target.port)
        if rule is not None:
            raise self._denied("{} is denied by {} ({})".format(spell(target), self.settings.rules_of, rule))
        what = closed_by(policy, target.host, target.port)
        if what is not None:
            raise self._denied("{} is {}, which is closed unless `allow` names it".format(spell(target), what))

    def _denied(self, reason: str) -> WayError:
        self.record.denied += 1
        return WayError("denied", reason)

    def finished(self, host_port: str, up: int, down: int, seconds: float, outcome: str) -> None:
        """One request is over."""
        self.record.bytes_up += up
        self.record.bytes_down += down
        self.record.access.write(host_port, up, down, seconds, outcome)
        self.record.changed()

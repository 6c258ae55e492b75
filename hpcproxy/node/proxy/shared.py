"""What all conversations share: the tunnel, the entrance, the policy, what was learned, the record."""

from typing import Dict, List, Tuple

from ..io.loop import Loop
from ..io.stream import Stream, nothing
from ..state.policy import closed_by, denied_by
from ..state.settings import Settings
from ..state.status import Record
from ..upstream.open_error import OpenError
from ..upstream.target import Target, spell
from ..upstream.tunnel import Tunnel
from ..upstream.upstream import LINK_HEADER
from .entrance import Entrance
from .first_speaker import FirstSpeaker

REMEMBERED = 1024  # targets whose verdict is kept


class Links:
    """Connections of other agents that are told of each end that is one: what is cut off ends a Unix socket, and a
    channel of ssh, in the same way."""

    def __init__(self) -> None:
        self.streams: Dict[int, Stream] = {}
        self.last = 0

    def add(self, stream: Stream) -> int:
        """The number by which its requests name it."""
        self.last += 1
        self.streams[self.last] = stream
        return self.last

    def follow(self, client: Stream, headers: List[Tuple[str, str]]) -> None:
        """Whoever asked for what `client` gets is told that it has all, before it sees the end."""
        named = next((value for key, value in headers if key.lower() == LINK_HEADER.lower()), "") if self.last else ""
        link, _, number = named.partition(".")
        stream = self.streams.get(int(link)) if link.isdecimal() and number.isdecimal() else None
        if stream is not None:
            client.before_end = lambda: self._tell(client, stream, number)

    @staticmethod
    def _tell(client: Stream, stream: Stream, number: str) -> None:
        client.before_end = nothing
        try:
            stream.sock.send("end {}\n".format(number).encode("ascii"))
        except OSError:
            pass  # it is gone, and takes the end for a loss


class Shared:
    """One per agent."""

    def __init__(self, loop: Loop, settings: Settings, tunnel: Tunnel, record: Record, entrance: Entrance) -> None:
        self.loop, self.settings, self.tunnel, self.record = loop, settings, tunnel, record
        self.entrance = entrance
        self.links = Links()
        self.judged: Dict[Target, str] = {}
        self.first_speaker = FirstSpeaker()

    def check(self, target: Target, busy: str) -> None:
        """`target` may be reached, and there is room for one more; OpenError."""
        if busy:
            raise OpenError("busy", busy)
        if target.port == 0:
            raise OpenError("bad", "port 0 does not exist")
        why = self._why_not(target)
        if why:
            self.record.denied += 1
            raise OpenError("denied", "{} is {}".format(spell(target), why))

    def _why_not(self, target: Target) -> str:
        """Why `target` may not be reached, "" if it may; the rules stay, and most clients ask for few targets."""
        found = self.judged.get(target)
        if found is None:
            if len(self.judged) >= REMEMBERED:
                self.judged.clear()
            found = self.judged[target] = self._judge(target)
        return found

    def _judge(self, target: Target) -> str:
        rule = denied_by(self.settings.policy, target.host, target.port)
        if rule is not None:
            return "denied by {} ({})".format(self.settings.rules_of, rule)
        what = closed_by(self.settings.policy, target.host, target.port)
        return "" if what is None else "{}, which is closed unless `allow` names it".format(what)

    def finished(self, host_port: str, up: int, down: int, seconds: float, outcome: str) -> None:
        """One request is over."""
        self.record.bytes_up += up
        self.record.bytes_down += down
        self.record.access.write(host_port, up, down, seconds, outcome)
        self.record.changed()

"""What ssh's stderr tells about channels, which the multiplexing protocol does not.

Why an open failed stands only there, and so does that the far end has ended its sending: ssh then closes its copy of
the client's socket, which nobody can see from outside. `LogVerbose` (OpenSSH 8.5 and later) prints exactly these
functions, with the number of the channel, which MUX_S_SESSION_OPENED gives too. An older ssh prints only the reasons,
in the order of the failures.
"""

import collections
import re
from typing import Callable, Deque, Dict, Optional

from .target import Target

LOG_VERBOSE = "LogVerbose=" + ",".join(
    [
        "mux.c:muxserver_listen():*",  # when its control socket is there; Master.start waits for that
        "mux.c:mux_master_process_stdio_fwd():*",
        "nchan.c:chan_shutdown_write():*",
        "channels.c:channel_input_open_failure():*",
        "kex.c:kex_exchange_identification():*",
        "sshconnect2.c:input_userauth_service_accept():*",  # how far a login is, as in command.py; once for each
        "sshconnect2.c:userauth_pubkey():*",
        "sshconnect2.c:input_userauth_pk_ok():*",
        "sshconnect2.c:send_pubkey_test():*",
    ]
)
LINE = re.compile(
    r"channel(?:_new:)? (\d+)"
    r"(?:: stdio fwd to (?P<host>.*):(?P<port>\d+)$"
    r"| control (?P<control>\d+)$"
    r"|: (?P<closed>\(i\d+ o\d+ sock -1 wfd )"
    r"|: open failed: (?P<failed>.*))"
)
OURS = re.compile(r"(mux\.c|nchan\.c|channels\.c):\w+\(\):\d+ ")


class Channel:
    """One channel as ssh's log shows it; `on_eof` is called when the far end has said all."""

    __slots__ = ("target", "eof", "on_eof")

    def __init__(self, target: Target) -> None:
        self.target = target
        self.eof = False
        self.on_eof: Optional[Callable[[], None]] = None


class SshLog:
    """Fed with every line of one ssh's stderr."""

    def __init__(self) -> None:
        self.channels: Dict[int, Channel] = {}
        self.asked: Dict[int, Target] = {}
        self.reasons: Dict[Target, Deque[str]] = {}
        self.nameless: Deque[str] = collections.deque(maxlen=1024)

    def feed(self, line: str) -> bool:
        """Take `line` in; False when it is no talk about channels."""
        found = LINE.search(line)
        if found is None:
            return bool(OURS.search(line))
        number, kind = int(found.group(1)), found.lastgroup
        if kind == "port":
            self.asked[number] = Target(found.group("host"), int(found.group("port")))
        elif kind == "control":
            self.channels[number] = Channel(self.asked.pop(int(found.group("control")), Target("", 0)))
        elif kind == "closed":
            self._write_closed(number)
        else:
            self._failed(number, found.group("failed"))
        return True

    def _failed(self, number: int, reason: str) -> None:
        channel = self.channels.pop(number, None)
        if channel is None:
            self.nameless.append(reason)
            return
        # Bounded: a client that does not wait for its answer leaves its reason behind.
        if len(self.reasons) > 1024:
            self.reasons.clear()
        self.reasons.setdefault(channel.target, collections.deque(maxlen=64)).append(reason)

    def _write_closed(self, number: int) -> None:
        channel = self.channels.get(number)
        if channel is not None:
            channel.eof = True
            if channel.on_eof is not None:
                channel.on_eof()

    def reason(self, target: Target) -> str:
        """Why the open to `target` that failed first, of those not asked about yet, failed; "" if ssh did not say."""
        waiting = self.reasons.get(target)
        if not waiting:
            return self.nameless.popleft() if self.nameless else ""
        reason = waiting.popleft()
        if not waiting:
            del self.reasons[target]
        return reason

    def attach(self, number: int, on_eof: Callable[[], None]) -> None:
        """`on_eof` is called when channel `number` ends its sending; at once if it has already."""
        channel = self.channels.get(number)
        if channel is None:
            return
        channel.on_eof = on_eof
        if channel.eof:
            on_eof()

    def detach(self, number: int, on_eof: Callable[[], None]) -> None:
        """No call to `on_eof` from now on; the number may belong to a newer channel already."""
        channel = self.channels.get(number)
        if channel is not None and channel.on_eof == on_eof:
            del self.channels[number]

"""Which upstream is tried when: in turn, with pauses that grow, and not by all nodes of a cluster at once."""

import binascii
import os
import time
from typing import List, NamedTuple, Optional, Tuple

from ..state.settings import SSH, Way

SHORTEST_S = 0.5  # between attempts that may succeed the next time; retry_max_s is the longest
# Between attempts that need somebody to mend something, or retry_max_s if that is more; twice as long each time. Each
# costs the address 5 s of sshd's patience (PerSourcePenalties), and the address may be the whole cluster's: a job of
# many nodes waits longer.
RARELY_S = 120.0
RARELY_FOR_EACH_NODE_S = 15.0
RAREST_S = 3600.0
STABLE_S = 10.0  # an upstream that lived that long was good: begin at the shortest pause again
# A jump host that hangs up before the login has too many of them (MaxStartups), or shuts our address out for a while
# (PerSourcePenalties, where one address may be the whole cluster's): longer pauses, spread widely.
BUSY = "busy"
# What an sshd that answered has refused: who is shut out afterwards is shut out for that.
REFUSALS = ("key", "ssh", "login", "host-key", "forwarding")
BUSY_S = 4.0
BUSY_MAX_S = 30.0
# Nodes of a job that begin at once do no harm (MaxStartups begins to refuse at 10); and nobody waits longer than this.
FEW_NODES = 8
SPREAD_MAX_S = 120.0

Verdict = NamedTuple("Verdict", [("layer", str), ("reason", str), ("permanent", bool)])


class Spread:
    """The place of one node among the `nodes` of its `job`, the same whoever works it out.

    `spread_s` is the time over which the nodes' first logins are spread, `logins_per_s` for each of `jumps` hosts, none
    where nobody logs in; tunnel.sh and job.sh reckon the same (spread.sh).
    """

    def __init__(self, job: str, node: str, nodes: int, jumps: int, logins_per_s: float) -> None:
        self.nodes = nodes
        self.number = binascii.crc32("{} {}".format(job, node).encode("utf-8", "replace")) & 0xFFFFFFFF if job else 0
        crowd = nodes if nodes > FEW_NODES else 0
        self.spread_s = min(SPREAD_MAX_S, crowd / (logins_per_s * jumps)) if jumps else 0.0
        # Other bits than those that choose the jump host: else each host would get its logins in a lump.
        self.delay_s = self.spread_s * (self.number >> 16) / 0x10000

    def order(self, ways: Tuple[Way, ...]) -> List[Way]:
        """The tunnels as this node tries them: each node has another first jump host, and the rest to fall back on."""
        jumps = [way for way in ways if way.kind == SSH]
        first = (self.number & 0xFFFF) % len(jumps) if jumps else 0
        return [way for way in ways if way.kind != SSH] + jumps[first:] + jumps[:first]


class Candidate:
    """An upstream and when it is its turn again; `retry_max_s` bounds the pause after a passing failure."""

    def __init__(self, way: Way, retry_max_s: float, spread_s: float = 0.0, nodes: int = 1) -> None:
        self.way, self.retry_max_s = way, retry_max_s
        self.busy_s = min(BUSY_MAX_S, max(BUSY_S, spread_s))
        self.rarely_s = max(RARELY_S, retry_max_s, RARELY_FOR_EACH_NODE_S * nodes)
        self.verdict: Optional[Verdict] = None
        self.refusals = 0
        self.pause_s = 0.0
        self.next_try = 0.0

    def failed(self, verdict: Verdict) -> None:
        """Not its turn for a while: a permanent failure rarely, another one sooner, with jitter, longer each time."""
        if verdict.layer != BUSY or self.verdict is None or self.verdict.layer not in REFUSALS:
            self.verdict = verdict
        if verdict.permanent:
            pause_s = jitter(max(self.rarely_s, min(RAREST_S, self.rarely_s * 2.0**self.refusals)))
            self.refusals = min(16, self.refusals + 1)
        elif verdict.layer == BUSY:
            self.pause_s = min(max(BUSY_MAX_S, self.retry_max_s), max(self.busy_s, self.pause_s * 2))
            pause_s = jitter(self.pause_s, 0.1)
        else:
            self.pause_s = min(self.retry_max_s, max(SHORTEST_S, self.pause_s * 2))
            pause_s = jitter(self.pause_s)
        self.next_try = time.monotonic() + pause_s

    def lost(self, lived_s: float) -> None:
        """It worked and does so no more: next try almost at once, unless it never works for long."""
        self.verdict = None
        self.refusals = 0
        self.pause_s = 0.0 if lived_s >= STABLE_S else min(self.retry_max_s, max(SHORTEST_S / 2, self.pause_s * 2))
        # With jitter even then: all nodes of the cluster lose the same jump host in the same moment.
        self.next_try = time.monotonic() + jitter(max(self.pause_s, SHORTEST_S / 2))


def jitter(seconds: float, least: float = 0.5) -> float:
    """Between `least` (a part of 1) and all of `seconds`."""
    return seconds * (least + (1 - least) * int.from_bytes(os.urandom(2), "big") / 65536.0)

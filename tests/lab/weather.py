"""What happens to the tunnel of all jobs at once, from outside: spells that a seed has chosen, and calm between."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from hpcproxy.lab import Lab
from hpcproxy.lab.spec import CLUSTER

from .outages import restart_sshd

JUMP = "jump1"
CALM_S = (3.0, 9.0)


@dataclass(frozen=True)
class Kind:
    """`begin` breaks something, for so many seconds, and returns what mends it."""

    name: str
    seconds: tuple[float, float]
    begin: Callable[[Lab], Callable[[], None]]


def _unreachable(lab: Lab) -> Callable[[], None]:
    lab.link(JUMP, up=False, network_name=CLUSTER)
    return lambda: lab.link(JUMP, up=True, network_name=CLUSTER)


def _unreachable_from_a_node(lab: Lab) -> Callable[[], None]:
    lab.wire("c2", JUMP, up=False)
    return lambda: lab.wire("c2", JUMP, up=True)


def _listener_restarted(lab: Lab) -> Callable[[], None]:
    lab.sshd_stop(JUMP, sessions=False)
    return lambda: lab.sshd(JUMP)


KINDS = (
    Kind("the jump host is unreachable", (2, 7), _unreachable),
    Kind("the jump host is unreachable from c2", (2, 7), _unreachable_from_a_node),
    Kind("the jump host's sshd is away with all sessions", (0.5, 3), lambda lab: restart_sshd(lab, JUMP)),
    Kind("the jump host's sshd is away, sessions live on", (0.5, 3), _listener_restarted),
)


@dataclass
class Spell:
    """One of them; `begun` and `mended` are time.time()."""

    name: str
    begun: float
    mended: float | None = None


class Weather:
    """A thread that makes it, until the block ends; whatever it has broken is mended then."""

    def __init__(self, lab: Lab, seed: int) -> None:
        self.lab = lab
        self.spells: list[Spell] = []
        self.broken: Exception | None = None
        self._chance = random.Random(f"weather {seed}")  # noqa: S311  chance, no secret
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._make)

    def __enter__(self) -> Weather:  # noqa: PYI034  typing.Self is newer than our oldest Python
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.end()
        if self.broken is not None:
            raise self.broken

    def end(self) -> None:
        """It is calm from now on."""
        self._stop.set()
        self._thread.join()

    @property
    def over(self) -> bool:
        """No other spell will come."""
        return not self._thread.is_alive()

    @property
    def calm_since(self) -> float | None:
        """When the last spell was mended, 0 before the first; None while one lasts."""
        return self.spells[-1].mended if self.spells else 0.0

    def between(self, begun: float, ended: float) -> list[str]:
        """The spells that had a part of that time."""
        return [spell.name for spell in self.spells if spell.begun < ended and (spell.mended or ended) >= begun]

    def _make(self) -> None:
        try:
            while not self._stop.wait(self._chance.uniform(*CALM_S)):
                kind = self._chance.choice(KINDS)
                spell = Spell(kind.name, time.time())
                self.spells.append(spell)
                mend = kind.begin(self.lab)
                self._stop.wait(self._chance.uniform(*kind.seconds))
                mend()
                spell.mended = time.time()
        except Exception as error:  # noqa: BLE001  shown when the block ends
            self.broken = error

"""Checks run by what they need of each other, side by side, each with a bound. Starts threads.

A check that hangs is left behind in a thread of its own: it keeps nobody from the rest, and ends with the program.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Sequence
from typing import TypeVar

from hpcproxy.doctor.finding import Check, Finding, Found, Mark, bad, broken, untried
from hpcproxy.errors import HpcproxyError

P = TypeVar("P")
_TELL_S = 1.0  # between two looks at how far it is
_AT_ONCE = 8  # most of them wait for a far end or a shell
Told = Callable[[int, int], None]  # how many checks are done, of how many


def run(checks: Sequence[Check[P]], patient: P, total_s: float, told: Told = lambda _done, _all: None) -> list[Found]:
    """Return what came of each of `checks`, in their order, after `total_s` seconds at the latest."""
    return _Run(checks, patient, total_s, told).found()


def order(checks: Sequence[Check[P]]) -> list[str]:
    """Return the names so that each stands behind what it needs.

    Raises ValueError for a circle, an unknown need, a double name.
    """
    done: list[str] = []
    left = {check.name: check for check in checks}
    if len(left) < len(checks):
        raise ValueError("two checks have one name")
    while left:
        ready = [name for name, check in left.items() if all(need in done for need in check.needs)]
        if not ready:
            raise ValueError(f"these checks need each other, or what is no check: {', '.join(left)}")
        done += ready
        for name in ready:
            del left[name]
    return done


def closure(checks: Sequence[Check[P]], name: str) -> set[str]:
    """Return the check `name` and all that it needs, near and far."""
    known = {check.name: check.needs for check in checks}
    wanted, left = set(), [name]
    while left:
        wanted.add(left[-1])
        left += known[left.pop()]
    return wanted


class _Run:
    def __init__(self, checks: Sequence[Check[P]], patient: P, total_s: float, told: Told) -> None:
        self._checks = {check.name: check for check in checks}
        self._look: Callable[[str], Finding] = lambda name: _asked(self._checks[name], patient)
        self._told, self._deadline = told, time.monotonic() + total_s
        self._findings: dict[str, Finding] = {}
        self._until: dict[str, float] = {}  # of those that run: when they must be done
        self._answers: queue.SimpleQueue[tuple[str, Finding]] = queue.SimpleQueue()
        order(checks)

    def found(self) -> list[Found]:
        while len(self._findings) < len(self._checks):
            self._begin()
            self._hear()
            self._told(len(self._findings), len(self._checks))
        return [Found(name, check.family, self._findings[name]) for name, check in self._checks.items()]

    def _begin(self) -> None:
        """Start what may be tried now, and settle what will not be tried any more."""
        waiting = [name for name in self._checks if name not in self._findings and name not in self._until]
        for name in waiting:
            needs = {need: self._findings.get(need) for need in self._checks[name].needs}
            because = next((why(need, said) for need, said in needs.items() if said and said.mark != Mark.GOOD), None)
            if because is not None:
                self._findings[name] = untried(because)
            elif all(needs.values()) and len(self._until) < _AT_ONCE:
                self._until[name] = min(time.monotonic() + self._checks[name].limit_s, self._deadline)
                threading.Thread(target=self._ask, args=(name,), name=f"doctor {name}", daemon=True).start()

    def _ask(self, name: str) -> None:
        self._answers.put((name, self._look(name)))

    def _hear(self) -> None:
        """Wait a moment for the next answer, or for the first of those that run to be late."""
        if not self._until:
            return
        try:
            left_s = min(self._until.values()) - time.monotonic()
            name, finding = self._answers.get(timeout=max(0.0, min(_TELL_S, left_s)))
        except queue.Empty:
            self._give_up()
            return
        if self._until.pop(name, None) is not None:  # else it was given up before
            self._findings[name] = finding

    def _give_up(self) -> None:
        now = time.monotonic()
        for name in [name for name, until in self._until.items() if until <= now]:
            del self._until[name]
            limit_s = self._checks[name].limit_s
            self._findings[name] = broken(f"no answer within {limit_s:g} s, or the time for all checks was up")
        if now >= self._deadline:
            for name in self._checks:
                self._findings.setdefault(name, untried("the time for all checks was up"))
            self._until.clear()


def why(need: str, said: Finding) -> str:
    """Return why what needs `need` is not tried, after it `said` that."""
    if said.mark is Mark.BAD:
        return f"“{need}” failed"
    if said.mark is Mark.BROKEN:
        return f"doctor could not look at “{need}”"
    return said.words.removeprefix("not tried, because ")


def _asked(check: Check[P], patient: P) -> Finding:
    try:
        return check.look(patient)
    except HpcproxyError as error:
        return bad(str(error), check.fix)
    except Exception as error:  # noqa: BLE001 - a mistake of ours costs one check, and is told as ours
        return broken(f"{type(error).__name__}: {error}")

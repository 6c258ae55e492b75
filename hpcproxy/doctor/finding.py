"""What a check is and what it finds. Pure."""

from __future__ import annotations

import enum
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from hpcproxy import heard

_WORDS_MAX = 400  # characters: a sentence, not a log
P = TypeVar("P")


class Mark(enum.Enum):
    """How a check ended. UNTRIED is no failure, BROKEN is the doctor's own."""

    GOOD = "good"
    BAD = "bad"
    UNTRIED = "untried"
    BROKEN = "broken"


@dataclass(frozen=True)
class Finding:
    """How one check ended, in words; `fix` is the one thing to do about it, a command where there is one."""

    mark: Mark
    words: str
    fix: str = ""

    def as_json(self) -> dict[str, Any]:
        """Return it for another program."""
        return {"mark": self.mark.value, "words": self.words, **({"fix": self.fix} if self.fix else {})}


def good(words: str) -> Finding:
    """Return that all is well."""
    return Finding(Mark.GOOD, heard.line(words, _WORDS_MAX))


def bad(words: str, fix: str) -> Finding:
    """Return that something is wrong, and what to do about it."""
    return Finding(Mark.BAD, heard.line(words, _WORDS_MAX), heard.line(fix, _WORDS_MAX))


def untried(because: str) -> Finding:
    """Return that the check was not made."""
    return Finding(Mark.UNTRIED, heard.line(f"not tried, because {because}", _WORDS_MAX))


def broken(why: str) -> Finding:
    """Return that doctor itself could not look."""
    words = heard.line(f"doctor could not look: {why}", _WORDS_MAX)
    return Finding(Mark.BROKEN, words, "hpcproxy doctor --bundle FILE, and report it")


@dataclass(frozen=True)
class Check(Generic[P]):
    """One question about a patient `P`: `name` is the thing itself, a noun, as messages have it.

    `asks` is the question and `fix` what usually helps, both for the manual. It is asked only if all
    of `needs` are good.
    """

    name: str
    family: str
    asks: str
    fix: str
    look: Callable[[P], Finding]
    needs: tuple[str, ...] = ()
    limit_s: float = 60


@dataclass(frozen=True)
class Found:
    """A check's name and family with what came of it; `node` is where, empty for this machine."""

    name: str
    family: str
    finding: Finding
    node: str = ""

    def as_json(self) -> dict[str, Any]:
        """Return it for another program."""
        where = {"node": self.node} if self.node else {}
        return {"check": self.name, "family": self.family, **where, **self.finding.as_json()}


def exit_code(found: Sequence[Found]) -> int:
    """Return 0 if all is well, 1 if something is wrong, 2 if doctor itself could not look at all of it."""
    marks = {one.finding.mark for one in found}
    return 1 if Mark.BAD in marks else 2 if Mark.BROKEN in marks else 0

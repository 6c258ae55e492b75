"""Who says that a key is right: a person at the terminal, or the command line. Talks on stderr, reads stdin."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from hpcproxy.cli.output import say
from hpcproxy.cluster import inventory
from hpcproxy.errors import UsageError
from hpcproxy.openssh.recognition import CHANGED, Consent, Shown

YES_HELP = "Keep keys that are new without asking; a stranger in between would be believed."
FINGERPRINT_HELP = "Keep a new key only if it has this fingerprint, SHA256:…; may be given several times."
_PREFIX = "SHA256:"
_Group = TypeVar("_Group", bound=tuple[str, ...])


@dataclass(frozen=True)
class Flags:
    """What the command line says of new keys."""

    yes: bool
    fingerprints: tuple[str, ...]

    @classmethod
    def of(cls, yes: bool, fingerprints: Sequence[str]) -> Flags:
        """Return them; raises UsageError for what is no fingerprint."""
        if yes and fingerprints:
            raise UsageError("--yes and --fingerprint exclude each other")
        for text in fingerprints:
            if not text.startswith(_PREFIX):
                raise UsageError(f"{text!r} is no fingerprint; it looks as ssh-keygen -l prints it: {_PREFIX}…")
        return cls(yes, tuple(text.rstrip("=") for text in fingerprints))

    def ask(self, keys: Sequence[Shown]) -> list[str]:
        """Return for each of `keys` why it is not kept, "" if it is; asks once where a person is there."""
        if self.yes:
            return [""] * len(keys)
        if self.fingerprints:
            return [self.unlike(one) for one in keys]
        show(keys)
        if not (sys.stdin.isatty() and sys.stderr.isatty()):
            return [
                "is not confirmed: there is no terminal to ask on; compare it, then say --fingerprint or --yes"
            ] * len(keys)
        return _answers(keys)

    def unlike(self, one: Shown) -> str:
        """Return why the key of `one` is none of those given, "" if it is."""
        fine = one.key is not None and one.key.fingerprint in self.fingerprints
        return "" if fine else f"has not the fingerprint that was given: {one.key}"


def show(keys: Sequence[Shown]) -> None:
    """Say which keys are new, hosts with the same one together."""
    by_key = _folded((one, (str(one.key), one.news, one.where)) for one in keys)
    for (key, news, where), hosts in by_key.items():
        old = f", another than in {where}" if news == CHANGED else ", for the first time"
        say(f"{hosts} shows {key}{old}")


def told(shown: Sequence[Shown]) -> list[str]:
    """Return a line for each different key and what it is to us, with the hosts that show it."""
    keys = _folded((one, (str(one.key), one.news)) for one in shown if one.key is not None)
    return [f"{hosts}  {key}  ({news})" for (key, news), hosts in keys.items()]


def complaints(shown: Sequence[Shown]) -> list[str]:
    """Return a line for each different reason why a key is not kept, with its hosts."""
    reasons = _folded((one, _reason(one)) for one in shown if one.error is not None)
    return [text.format(hosts) for (text,), hosts in reasons.items()]


def _reason(one: Shown) -> tuple[str]:
    """Return the words of an error with a place for the host's name."""
    text = str(one.error).replace("{", "{{").replace("}", "}}")
    return (text.replace(f"{one.host}: ", "{}: ", 1),) if f"{one.host}: " in text else ("{}: " + text,)


def _folded(pairs: Iterable[tuple[Shown, _Group]]) -> dict[_Group, str]:
    groups: dict[_Group, list[str]] = {}
    for one, group in pairs:
        groups.setdefault(group, []).append(one.host)
    return {group: inventory.fold_words(hosts) for group, hosts in groups.items()}


class Count:
    """Counts hosts on a terminal while they are asked."""

    def __init__(self, title: str, progress: Any) -> None:  # noqa: ANN401 - loaded where it is shown
        self.title, self.progress = title, progress
        self.bar: Any = None

    def __call__(self, shown: Shown | int) -> None:
        """One more host has shown its key; a number says how many there are."""
        if self.progress is None:
            return
        if isinstance(shown, int):
            self.bar = self.progress.add_task(self.title, total=shown)
        else:
            self.progress.advance(self.bar)

    def aside(self, consent: Consent) -> Consent:
        """Return `consent`, which the display makes room for."""

        def ask(keys: Sequence[Shown]) -> Sequence[str]:
            if self.progress is not None:
                self.progress.stop()
            return consent(keys)

        return ask


@contextlib.contextmanager
def counting(title: str) -> Iterator[Count]:
    """Have a display on stderr, if that is a terminal."""
    if not sys.stderr.isatty():
        yield Count(title, None)
        return
    # Here, not above: only who looks at it has a use for it.
    from rich.console import Console  # noqa: PLC0415
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn  # noqa: PLC0415

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        yield Count(title, progress)


def _answers(keys: Sequence[Shown]) -> list[str]:
    one = len({str(shown.key) for shown in keys}) == 1
    question = (
        "Is it right? Type yes, or its fingerprint" if one else "Are they all right? Type yes, or one's fingerprint"
    )
    print(f"hpcproxy: {question}: ", end="", file=sys.stderr, flush=True)
    typed = sys.stdin.readline().strip()
    if typed == "yes":
        return [""] * len(keys)
    if typed.startswith(_PREFIX):
        return [Flags(yes=False, fingerprints=(typed.rstrip("="),)).unlike(shown) for shown in keys]
    return ["is not confirmed"] * len(keys)

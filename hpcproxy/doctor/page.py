"""What came of the checks, as a person reads it: the verdict, a line each, what to do, what one has. Pure."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from hpcproxy.doctor import graph
from hpcproxy.doctor.finding import Found, Mark
from hpcproxy.doctor.table import ALL

Line = tuple[str, Mark | None]  # a line, and the mark that it begins with
_WAY = "tunnel"
_NAME_COLUMNS = 19
_MANY = 3
_MARKS: Mapping[Mark, str] = {Mark.GOOD: "✓", Mark.BAD: "✗", Mark.UNTRIED: "⊘", Mark.BROKEN: "?"}
_ASCII: Mapping[Mark, str] = {Mark.GOOD: "ok", Mark.BAD: "XX", Mark.UNTRIED: "--", Mark.BROKEN: "??"}
_UNTRIED = "not tried, "
_PLAIN = str.maketrans({"“": '"', "”": '"', "…": "...", "►": ">"})
AGAIN = "hpcproxy doctor"
USE = "hpcproxy wrap --in-place JOB.sh, and sbatch it; in a shell: hpcproxy up, then proxy_on"


@dataclass(frozen=True)
class Look:
    """How it is to look: `columns` wide, with letters beyond ASCII or without; `home` is shown as `~`."""

    columns: int = 80
    ascii_only: bool = False
    home: str = ""

    def fit(self, text: str) -> str:
        """Return `text` in the letters that the terminal has, with `~` for the home."""
        if self.home:
            text = text.replace(f"{self.home}/", "~/")
        return text.translate(_PLAIN).encode("ascii", "replace").decode() if self.ascii_only else text


def page(found: Sequence[Found], look: Look) -> list[Line]:
    """Return the lines of the whole report."""
    lines: list[Line] = [*_wrapped("", verdict(found), look), ("", None)]
    lines += _rows(found, look)
    lines.append(("", None))
    lines += _deeds(found, look)
    for label, text in summary(found):
        lines += _wrapped(label, text, look)
    return lines


def verdict(found: Sequence[Found]) -> str:
    """Return in one sentence how things are."""
    wrong = _urgent(one for one in found if one.finding.mark is Mark.BAD)
    failed = [one for one in found if one.finding.mark is Mark.BROKEN]
    if wrong:
        first = wrong[0]
        more = f" ({len(wrong) - 1} more below)" if len(wrong) > 1 else ""
        works = "The tunnel works, but: " if _good(found, _WAY) else ""
        return f"{works}{_of(first)}: {_ended(first.finding.words)}{more}"
    if failed:
        return f"Nothing wrong was found, but doctor could not look at everything: {_of(failed[0])}."
    return "The tunnel works." if _good(found, _WAY) else "Nothing is wrong here."


def _urgent(found: Iterable[Found]) -> list[Found]:
    """Return `found` with what keeps the tunnel from coming up before the rest."""
    needed = graph.closure(ALL, _WAY)
    return sorted(found, key=lambda one: one.name not in needed)


def _ended(sentence: str) -> str:
    return sentence if sentence.endswith((".", "?", "!")) else f"{sentence}."


def _of(one: Found) -> str:
    name = one.name[:1].upper() + one.name[1:]
    return f"{name} on {one.node}" if one.node else name


def _good(found: Sequence[Found], name: str) -> bool:
    return any(one.name == name and one.finding.mark is Mark.GOOD for one in found)


def _rows(found: Sequence[Found], look: Look) -> Iterator[Line]:
    node = ""
    for row in folded(found):
        one, names = row[0], [each.name for each in row]
        if one.node != node:
            node = one.node
            yield from ((("", None)), (look.fit(f"On {node}:"), None))
        mark = one.finding.mark
        shown = (_ASCII if look.ascii_only else _MARKS)[mark]
        label = f"{shown} {names[0] if len(names) == 1 else one.family:{_NAME_COLUMNS}} "
        words = one.finding.words
        if mark is Mark.UNTRIED and words.startswith(_UNTRIED):
            label, words = (
                f"{shown} {'not tried':{_NAME_COLUMNS}} ",
                f"{', '.join(_few(row))}, {words[len(_UNTRIED) :]}",
            )
        elif len(names) > 1:
            words = f"{', '.join(names)}: {words}"
        for number, (text, _) in enumerate(_wrapped(label, words, look)):
            yield text, mark if number == 0 else None


def folded(found: Sequence[Found]) -> list[list[Found]]:
    """Return what is shown as one line: checks of a family that are well alike, what is not tried for one cause."""
    rows: dict[tuple[str, ...], list[Found]] = {}
    for one in found:
        alone = one.finding.mark in {Mark.BAD, Mark.BROKEN}
        untried = one.finding.words.startswith(_UNTRIED)
        key = (
            one.node,
            one.finding.mark.value,
            one.finding.words,
            one.name if alone else "" if untried else one.family,
        )
        rows.setdefault(key, []).append(one)
    return list(rows.values())


def _few(row: Sequence[Found]) -> list[str]:
    """Return the names of `row`, those of a family that has many in it as one."""
    families = [one.family for one in row]
    many = {family for family in families if families.count(family) >= _MANY}
    return list(dict.fromkeys(_all(one.family, families) if one.family in many else one.name for one in row))


def _all(family: str, families: Sequence[str]) -> str:
    return f"{family} ({families.count(family)})"


def _deeds(found: Sequence[Found], look: Look) -> Iterator[Line]:
    fixes = list(dict.fromkeys(one.finding.fix for one in _urgent(found) if one.finding.fix))
    for number, fix in enumerate(fixes):
        yield from _wrapped("Fix:  " if number == 0 else "Then: ", fix, look)
    yield from _wrapped("Next: ", AGAIN if fixes else USE, look)


def summary(found: Sequence[Found]) -> list[tuple[str, str]]:
    """Return what one has, and what nobody can have."""
    have = "a tunnel for programs that know a proxy" if _good(found, _WAY) else "no tunnel yet"
    cannot = (
        "programs that know no proxy (for many there is a way: hpcproxy env, hpcproxy nc; docs/clients.md), UDP, and"
        " so QUIC and ping"
    )
    return [("You have:   ", have), ("You cannot: ", cannot)]


def _wrapped(label: str, text: str, look: Look) -> list[Line]:
    label, text = look.fit(label), look.fit(text)
    lines = textwrap.wrap(
        text,
        look.columns,
        initial_indent=label,
        subsequent_indent=" " * len(label),
        break_long_words=False,
        break_on_hyphens=False,
    )
    return [(line, None) for line in lines or [label.rstrip()]]

"""A demo as a row of acts, played and shown one after the other until one does not come out as expected."""

from __future__ import annotations

import itertools
import textwrap
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.text import Text

_INDENT = "    "
_OUTPUT_MAX_LINES = 40
TIMED_OUT = 124  # the exit code of timeout(1)


@dataclass(frozen=True)
class Output:
    """What a command printed, on stdout and stderr together, and the exit code it ended with."""

    text: str
    code: int = 0


@dataclass(frozen=True)
class Act:
    """One thing to do: the `commands` as a user types them, what does it, and what must come of it, told and tested."""

    title: str
    commands: tuple[str, ...]
    play: Callable[[], Output]
    expectation: str
    holds: Callable[[Output], bool]


@dataclass(frozen=True)
class Step:
    """One act played: `ok` says whether `output` and exit `code` are as the `expectation` says."""

    title: str
    commands: tuple[str, ...]
    output: str
    code: int
    expectation: str
    ok: bool


def play(act: Act) -> Step:
    """Play `act` and return what came of it."""
    output = act.play()
    return Step(act.title, act.commands, output.text.rstrip("\n"), output.code, act.expectation, act.holds(output))


def tell(console: Console, acts: Sequence[Act]) -> bool:
    """Play and show `acts` in order, up to the first that is not as expected; True if all of them were."""
    begin = time.monotonic()
    for number, act in enumerate(acts, 1):
        _show_act(console, f"{number}/{len(acts)}", act)
        with console.status(Text("working"), spinner="line"):
            step = play(act)
        _show_step(console, step)
        if not step.ok:
            _line(console, f"Stopped at step {number} of {len(acts)}, which did not come out as expected.", "bold red")
            return False
    _line(console, f"All {len(acts)} steps came out as expected, in {time.monotonic() - begin:.0f} s.", "bold green")
    return True


def show_scene(console: Console, headline: str, parts: Iterable[tuple[str, str]]) -> None:
    """Show what the demo plays on: a headline and a row of name and description for each part."""
    rows = list(parts)
    margin = 4 + max(len(name) for name, _ in rows)
    for line in textwrap.wrap(headline, _width(console)):
        _line(console, line, "bold")
    for name, description in rows:
        lead = f"  {name}".ljust(margin)
        for line in textwrap.wrap(description, _width(console), initial_indent=lead, subsequent_indent=" " * margin):
            _line(console, line)
    _line(console)


def _show_act(console: Console, number: str, act: Act) -> None:
    _line(console, f"{number}  {act.title}", "bold")
    for command in act.commands:
        for prompt, line in zip(itertools.chain("$", itertools.repeat(">")), command.splitlines()):
            _line(console, f"{_INDENT}{prompt} {line}", "cyan")


def _show_step(console: Console, step: Step) -> None:
    lines = step.output.splitlines()
    shown = lines if len(lines) <= _OUTPUT_MAX_LINES else [*lines[:_OUTPUT_MAX_LINES], "..."]
    for line in shown:
        _show_output(console, line)
    if step.ok:
        _labelled(console, "ok        ", step.expectation, "green")
    else:
        _labelled(console, "expected  ", step.expectation, "red")
        came = "the output above" if step.output.strip() else "no output"
        _labelled(console, "came      ", f"{came}, exit code {step.code}", "red")
    _line(console)


def _show_output(console: Console, line: str) -> None:
    """Show a line of output; on a terminal it keeps its indent where it wraps, in a pipe it stays one line."""
    printable = "".join(char if char.isprintable() else " " for char in line.expandtabs())
    if not console.is_terminal or len(printable) + len(_INDENT) <= _width(console):
        _line(console, _INDENT + printable)
        return
    for part in textwrap.wrap(
        printable, _width(console), initial_indent=_INDENT, subsequent_indent=_INDENT + "  ", replace_whitespace=False
    ):
        _line(console, part)


def _labelled(console: Console, label: str, text: str, style: str) -> None:
    margin = _INDENT + " " * len(label)
    for line in textwrap.wrap(text, _width(console), initial_indent=_INDENT + label, subsequent_indent=margin):
        _line(console, line, style)


def _line(console: Console, text: str = "", style: str = "") -> None:
    # A Text, so that brackets in a program's output are not taken for markup.
    console.print(Text(text, style=style), soft_wrap=True)


def _width(console: Console) -> int:
    return max(40, min(console.width, 100))

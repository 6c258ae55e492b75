"""Values become shell text in this module only: words that are safe wherever a word may stand.

Pure. The `ShellText` type is the proof that a value went through here; the renderer accepts nothing else.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from pathlib import Path


class ShellText:
    """Text that is already quoted for a shell; made by `word`, `array` and `table` only."""

    __slots__ = ("text",)

    def __init__(self, text: str) -> None:
        self.text = text

    def __str__(self) -> str:
        return self.text


def word(value: str | int | bool | Path) -> ShellText:
    """Return `value` as one shell word, the same in bash and dash; true is `1` and false the empty word.

    Raises ValueError for a NUL, which no shell word can hold.
    """
    text = ("1" if value else "") if isinstance(value, bool) else str(value)
    if "\0" in text:
        raise ValueError("a shell word cannot hold a NUL character")
    return ShellText(shlex.quote(text))


def fish(value: str) -> ShellText:
    """Return `value` as one word of fish (its manual, "Quotes"); raises ValueError for a NUL."""
    word(value)
    escaped = value.replace("\\", "\\\\").replace("'", "\\'")
    return ShellText(f"'{escaped}'")


def fish_list(rows: Iterable[Iterable[str]]) -> ShellText:
    """Return `rows`, of n words each, as the words of one `set` of fish: word k of row i is element i * n + k + 1."""
    return ShellText(" ".join(str(fish(value)) for row in rows for value in row))


def csh(value: str) -> ShellText:
    """Return `value` as one word of csh and tcsh (tcsh(1), "Lexical structure").

    Raises ValueError for a line break, which no word of an `eval` there can hold, and for a NUL.
    """
    word(value)
    if "\n" in value or "\r" in value:
        raise ValueError("a word of csh cannot hold a line break")
    # History is looked for within quotes, too.
    escaped = value.replace("'", "'\\''").replace("!", "\\!")
    return ShellText(f"'{escaped}'")


def tcl(value: str | ShellText) -> ShellText:
    """Return `value` as one word of Tcl (Tcl(n), rule 9); raises ValueError for a control character."""
    return ShellText("".join(f"\\{one}" if _is_special(one) else one for one in _printable(str(value))) or "{}")


def lua(value: str | ShellText) -> ShellText:
    """Return `value` as one string of Lua (its manual, 3.1); raises ValueError for a control character."""
    escaped = "".join(f"\\{ord(one):03d}" if _is_special(one) else one for one in _printable(str(value)))
    return ShellText(f'"{escaped}"')


def _printable(value: str) -> str:
    if any(ord(one) < ord(" ") or ord(one) == 127 for one in value):  # noqa: PLR2004 - ASCII's DEL
        raise ValueError("a word of a modulefile cannot hold a control character")
    return value


def _is_special(one: str) -> bool:
    return one.isascii() and not one.isalnum() and one not in "/._-"


def array(values: Iterable[str | int | Path]) -> ShellText:
    """Return `values` as a bash array, one element a line, as shfmt would lay it out."""
    lines = "".join(f"    {word(value)}\n" for value in values)
    return ShellText(f"(\n{lines})" if lines else "()")


def table(rows: Iterable[Iterable[str | int]]) -> ShellText:
    """Return `rows`, of n words each, as one bash array, a row a line: word k of row i is element i * n + k."""
    lines = "".join(f"    {' '.join(str(word(value)) for value in row)}\n" for row in rows)
    return ShellText(f"(\n{lines})" if lines else "()")

"""The reference of docs/configuration.md, made of the table of settings: the one way to write it anew."""

from __future__ import annotations

import types
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

from hpcproxy.config.model import Setting, settings
from tests import REPOSITORY

PAGE = REPOSITORY / "docs" / "configuration.md"
_HEAD = "| key | values | default | what it means |\n|---|---|---|---|\n"

# Words beside a form, which the type does not tell.
_WORDS = {
    "via": "`ssh`, `direct`, `auto`, an address",
    "via_first": "`direct`, an address",
    "proxy_ca": "`auto`, a path",
}


def table() -> str:
    """Return the table of settings."""
    rows = (f"| `{row.key}` | {_values(row)} | {_default(row)} | {row.text} |\n" for row in settings())
    return _HEAD + "".join(rows)


def page() -> str:
    """Return the page with the table as it is now."""
    before, _, behind = PAGE.read_text().partition(_HEAD)
    assert behind, "the table's head is not there"
    return before + table() + "\n" + behind.partition("\n\n")[2]


def write_page() -> None:
    """Write the page anew; read the difference before you commit it."""
    PAGE.write_text(page())


def _default(row: Setting) -> str:
    if row.told:
        return row.told
    if row.default in (None, ()):
        return "none"
    return f"`{str(row.default).lower()}`"


def _values(row: Setting) -> str:
    if row.low is not None:
        return f"{row.low} to {row.high}"
    if row.key in _WORDS:
        return _WORDS[row.key]
    kind = _given(row.kind)
    if kind is bool:
        return "`true`, `false`"
    if get_origin(kind) is Literal:
        return ", ".join(f"`{word}`" for word in get_args(kind))
    return {tuple: "one or a list", Path: "a path", str: "an address"}[get_origin(kind) or kind]


def _given(kind: Any) -> Any:
    """Return a type without the None that stands for what nobody has said."""
    if get_origin(kind) in (Union, getattr(types, "UnionType", Union)):
        (kind,) = (one for one in get_args(kind) if one is not type(None))
    return kind

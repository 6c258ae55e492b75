"""The manual's page on programs, as what is tried."""

from __future__ import annotations

import re

from .services import REPOSITORY

PAGE = REPOSITORY / "docs" / "clients.md"


def snippet(language: str, beginning: str) -> str:
    """The manual's block of `language` that begins so."""
    found = re.search(rf"```{language}\n({re.escape(beginning)}.*?)```", PAGE.read_text(), re.DOTALL)
    assert found is not None, beginning
    return found[1]

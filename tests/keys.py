"""Who says that a key is right, in tests."""

from __future__ import annotations

from collections.abc import Sequence

from hpcproxy.openssh.recognition import Shown


def accept(keys: Sequence[Shown]) -> list[str]:
    """Every key is right."""
    return [""] * len(keys)


def refuse(keys: Sequence[Shown]) -> list[str]:
    """No key is right."""
    return ["is not confirmed"] * len(keys)


def nobody(keys: Sequence[Shown]) -> list[str]:
    """Nobody is to be asked."""
    raise AssertionError(f"asked about {[str(one.key) for one in keys]}")

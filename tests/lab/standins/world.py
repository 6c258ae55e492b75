"""What the services share: a token that only the internet knows, a directory, and the book of what was asked."""

from __future__ import annotations

import json
import threading
from dataclasses import dataclass, field
from pathlib import Path

BOOK = "book.jsonl"


@dataclass(frozen=True)
class World:
    """The token, and a book of one line of JSON for each request or fact."""

    directory: Path
    token: str
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def write(self, **facts: object) -> None:
        """The facts stand in the book."""
        with self._lock, (self.directory / BOOK).open("a") as book:
            book.write(json.dumps(facts) + "\n")

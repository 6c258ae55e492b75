"""The tests: `tests/` needs no root, `tests/lab/` needs root and builds a real cluster."""

from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]

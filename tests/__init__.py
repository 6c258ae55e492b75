"""The tests: `tests/` needs no root, `tests/lab/` needs root and builds a real cluster."""

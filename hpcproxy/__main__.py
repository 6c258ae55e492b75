"""The program `hpcproxy`, which is also `python -m hpcproxy`."""

import gc

_GARBAGE_THRESHOLD = 100_000  # objects; Python's own is 700


def main() -> None:
    """Load the tasks and run the one that was asked for."""
    # What is loaded stays to the end. To look for garbage among it again and again takes a fifth of the start.
    gc.set_threshold(_GARBAGE_THRESHOLD)
    from hpcproxy import cli  # noqa: PLC0415 - after the above

    cli.main()


if __name__ == "__main__":
    main()

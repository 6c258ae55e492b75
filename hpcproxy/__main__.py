"""The program `hpcproxy`, which is also `python -m hpcproxy`."""

import contextlib
import gc
import os
import sys
from types import ModuleType

_GARBAGE_THRESHOLD = 100_000  # objects; Python's own is 700


def main() -> None:
    """Load the tasks and run the one that was asked for."""
    _fill_gaps()
    if sys.argv[1:2] == ["nc"]:
        from hpcproxy.account import netcat  # noqa: PLC0415 - this and little more

        code_of_nc = netcat.by_itself(sys.argv[2:], os.environ)
        if code_of_nc is not None:
            _end(code_of_nc)
    from hpcproxy.cli import front  # noqa: PLC0415 - this loads nothing

    words, quiet = front.without_quiet(sys.argv[1:])
    answered = front.answer(words)
    if answered is not None:
        _end(answered)
    # What is loaded stays to the end. To look for garbage among it again and again takes a fifth of the start.
    gc.set_threshold(_GARBAGE_THRESHOLD)
    # Pydantic would read what every package around it says of itself, for plugins that have no business here.
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
    if words[:1] == ["status"]:
        from hpcproxy.cli import status  # noqa: PLC0415 - Invoke and all tasks would be two thirds of its time

        answered = status.by_itself(words[1:], os.environ, quiet=quiet)
        if answered is not None:
            _end(answered)
    _load_invoke()
    from hpcproxy.cli import program  # noqa: PLC0415 - after the above

    code: object = 0
    try:
        program.main()
    except SystemExit as error:
        code = error.code
    _end(code)


def _fill_gaps() -> None:
    """Stand in for streams that the caller has closed: the next file would have their numbers."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode))  # noqa: PTH123, SIM115 - to the end


def _end(code: object) -> None:
    """End with `code` and take nothing apart, as mypy's `hard_exit`: 10 ms of the 500 that 64 hosts take.

    What cannot be written is for Python to say.
    """
    if isinstance(code, int) and not os.environ.get("HPCPROXY_DEBUG"):
        with contextlib.suppress(OSError):
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    sys.exit(code)  # type: ignore[arg-type]  # it is what SystemExit was given


def _load_invoke() -> None:
    """Invoke is loaded without `unittest.mock`, which only its class for other people's tests uses.

    With that come asyncio and ssl: a sixth of the start, and 3 MB.
    """
    stand_in = ModuleType("unittest.mock")
    vars(stand_in)["Mock"] = None
    known = sys.modules.setdefault(stand_in.__name__, stand_in)
    import invoke.context  # noqa: F401, PLC0415 - that is the one that looks for it

    if known is stand_in:
        del sys.modules[stand_in.__name__]


if __name__ == "__main__":
    main()

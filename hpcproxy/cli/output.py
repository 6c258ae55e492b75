"""How a task speaks to its user: talk on stderr, data on stdout, errors in one line with an exit code."""

from __future__ import annotations

import contextlib
import errno
import functools
import io
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit

from hpcproxy import heard
from hpcproxy.changes import Outcome, Result
from hpcproxy.errors import HpcproxyError, UsageError

if TYPE_CHECKING:  # `status` and `say` load neither: a line of talk needs no library
    from invoke.context import Context
    from rich.console import Console
    from rich.table import Table

_PIPE_COLUMNS = 240  # a table that no person reads needs no folding

_LOST = "what it says cannot be written: {}"
_OF_OUTPUT = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)


_quiet = False


def be_quiet(wanted: bool) -> None:
    """From now on `say` and `results` print nothing (--quiet): what is left is data, errors and the exit code."""
    global _quiet  # noqa: PLW0603 - the one thing that every task has in common
    _quiet = wanted


def say(text: str) -> None:
    """Print one line of talk on stderr; stdout is for data."""
    if _quiet:
        return
    print(f"hpcproxy: {_fit(text)}", file=sys.stderr, flush=True)


def _fit(text: str) -> str:
    """Return `text` so that no terminal obeys it: what another machine said may be part of any sentence."""
    return "\n".join(heard.line(line, len(line) + 1) for line in text.split("\n"))


def console() -> Console:
    """Return the console for tables and stories on stdout; what hosts and programs said is shown, brackets and all."""
    from rich.console import Console  # noqa: PLC0415 - 40 ms that only who has a table to show pays

    return Console(highlight=False, markup=False, emoji=False, width=None if sys.stdout.isatty() else _PIPE_COLUMNS)


def table(*columns: str) -> Table:
    """Return an empty table whose long values are folded, never cut."""
    from rich.table import Table  # noqa: PLC0415 - as above

    made = Table(box=None, pad_edge=False)
    for column in columns:
        made.add_column(column, overflow="fold")
    return made


def results(done: list[Result]) -> None:
    """Print what became of each file."""
    for result in [] if _quiet else done:
        gone = result.action == "remove" and result.outcome is Outcome.CHANGED
        print(f"{'removed' if gone else result.outcome.value:12}  {result.path}")


def number(value: Any, low: int = 1, high: int = 65535) -> int | None:  # noqa: ANN401 - Invoke hands over what was typed
    """Return a flag's number, from `low` to `high`; raises UsageError for what is none, None for what was not given."""
    if value is None:
        return None
    try:
        found = int(value)
    except ValueError:
        raise UsageError(f"{value!r} is not a whole number") from None
    if not low <= found <= high:
        raise UsageError(f"{value} is not between {low} and {high}")
    return found


def far_end(url: str) -> str:
    """Return an address as typed, with https where it names no scheme; raises UsageError for what is none."""
    whole = url if "://" in url else f"https://{url}"
    try:
        parts = urlsplit(whole)
        named = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        named = False
    if not named or not whole.isascii() or not whole.isprintable() or " " in whole:
        raise UsageError(f"{url!a} is no http:// or https:// address")
    return whole


def from_here(path: str) -> Path:
    """Return a path as it was typed so that it holds in every other directory; raises UsageError."""
    try:
        return Path(path).expanduser().absolute()
    except RuntimeError:  # what a ~ stands for is nobody's home, which is said where the path is checked
        return Path(path)
    except OSError:
        raise UsageError(f"{path}: the directory that this was started in is gone") from None


@contextlib.contextmanager
def quiet_pipe() -> Iterator[None]:
    """End with the code of a SIGPIPE when whoever read our output has gone; there is nobody left to tell."""
    for stream in (sys.stdin, sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal may know other letters than a host, a path or we do
            stream.reconfigure(errors="backslashreplace")
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        _hush()
        sys.exit(128 + signal.SIGPIPE)
    except OSError as error:
        if not _is_of_output(error):
            raise
        _hush()
        say(_LOST.format(error.strerror))
        sys.exit(1)


def _is_of_output(error: OSError) -> bool:
    """Whether our own output could not be written; the error of an opened file has its name, and is translated."""
    return error.filename is None and error.errno in _OF_OUTPUT


def _hush() -> None:
    """What is left of our output goes nowhere, and Python does not try it again."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class Told(NamedTuple):
    """What a user hears of an error, and what the process ends with."""

    text: str
    exit_code: int


def told(error: BaseException) -> Told | None:
    """Return what is said of `error` in one line; None for what is to be raised on."""
    if isinstance(error, HpcproxyError):
        return Told(f"hpcproxy: {_fit(str(error))}", error.exit_code)
    if isinstance(error, KeyboardInterrupt):
        return Told("hpcproxy: interrupted", 130)
    if isinstance(error, BrokenPipeError) or not isinstance(error, Exception):
        return None
    if isinstance(error, OSError) and _is_of_output(error):
        _hush()
        return Told(f"hpcproxy: {_LOST.format(error.strerror)}", 1)
    if os.environ.get("HPCPROXY_DEBUG"):
        return None
    what = f"{type(error).__name__}: {_fit(str(error))}"
    return Told(f"hpcproxy: internal error, {what}; HPCPROXY_DEBUG=1 shows where, please report it", 70)


def verb(body: Callable[..., None]) -> Callable[..., None]:
    """Turn what `body` raises into one line on stderr and an exit code; a user never meets a traceback."""

    @functools.wraps(body)
    def guarded(context: Context, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - Invoke fills the signature
        from invoke.exceptions import Exit  # noqa: PLC0415 - Invoke calls this, so it is loaded

        try:
            body(context, *args, **kwargs)
        except Exit:
            raise
        except BaseException as error:
            said = told(error)
            if said is None:
                raise
            raise Exit(said.text, code=said.exit_code) from None

    return guarded

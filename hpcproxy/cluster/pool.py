"""Threads for what is done side by side, and a sentence where this machine starts no more of them."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

from hpcproxy.errors import HpcproxyError

NO_THREAD = "this machine starts no more threads (ulimit -u, or its cgroup's pids.max): a smaller --fanout needs fewer"
_Result = TypeVar("_Result")


class NoThreadError(HpcproxyError):
    """This machine starts no more threads."""


class Pool(ThreadPoolExecutor):
    """As Python's own, which says that as a RuntimeError."""

    def submit(self, fn: Callable[..., _Result], /, *args: Any, **kwargs: Any) -> Future[_Result]:  # noqa: ANN401 - as above
        """As Python's; raises NoThreadError."""
        try:
            return super().submit(fn, *args, **kwargs)
        except RuntimeError as error:
            if not is_lacking(error):
                raise
            # What was to be done is in the queue already: nobody would hear what comes of it, so it is not begun.
            self.shutdown(wait=False, cancel_futures=True)
            raise NoThreadError(NO_THREAD) from None


def is_lacking(error: Exception) -> bool:
    """Whether `error` is what Python raises where no thread can be started."""
    return isinstance(error, RuntimeError) and "start new thread" in str(error)

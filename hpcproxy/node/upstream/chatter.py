"""What is said beside ssh's log: a jump host's banner, what stands on the way there, a wrapper, the dynamic linker.

Read to its end, for who waits for us to read would wait for ever, and forgotten but for the last of it: it may be as
long as the jump host likes.
"""

import os

from ..io.loop import Loop

PART = 65536
KEPT = 4096
TURN_S = 0.001  # between parts: others get their turn, however much of it there is


class Chatter:
    """Hears what comes through the descriptor `fd`, until `close`."""

    def __init__(self, loop: Loop, fd: int) -> None:
        self.loop, self.fd = loop, fd
        self.tail = b""
        self.watch = loop.watch(fd)
        self.task = loop.spawn(self._hear())

    async def _hear(self) -> None:
        while True:
            try:
                data = os.read(self.fd, PART)
            except BlockingIOError:
                await self.watch.wait_readable()
                continue
            if not data:
                return
            self._keep(data)
            await self.loop.sleep(TURN_S)

    def _keep(self, data: bytes) -> None:
        self.tail = (self.tail + data)[-KEPT:]

    def close(self) -> None:
        """What there is by now was heard, if it is not too much; the descriptor is its owner's again."""
        self.task.cancel()
        self.loop.unwatch(self.watch)
        try:
            self._keep(os.read(self.fd, PART))
        except BlockingIOError:
            pass

    def last(self) -> str:
        """The last line with anything in it."""
        lines = [line.strip() for line in self.tail.decode("utf-8", "replace").splitlines()]
        return next((line for line in reversed(lines) if line), "")

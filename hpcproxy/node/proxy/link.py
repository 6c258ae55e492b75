"""A connection by which another agent knows that this one is there, and what is whole; upstream/reverse.py is its end.

It says LINK; the answer is one line, `hpcproxy 1 NUMBER up` or `hpcproxy 1 NUMBER down REASON`, by which NUMBER its
requests name it. What it says then comes back, and a line `end N` says that all of request N has been said.
"""

from ..io.stream import Stream
from ..state.log import one_line
from ..upstream.upstream import LINK
from .shared import Shared

PART = 4096


async def serve_link(shared: Shared, client: Stream) -> None:
    """The other agent has ended the connection; OSError."""
    await client.recv(len(LINK))
    number = shared.links.add(client)
    try:
        await client.send("hpcproxy 1 {} {}\n".format(number, state(shared)).encode("utf-8", "replace"))
        while True:
            data = await client.recv(PART)
            if not data:
                return
            await client.send(data)
    finally:
        del shared.links.streams[number]


def state(shared: Shared) -> str:
    """Whether this agent gets out now."""
    tunnel = shared.tunnel
    if tunnel.upstream is not None and not tunnel.upstream.dead():
        return "up"
    return "down {}".format(one_line(tunnel.outage()))

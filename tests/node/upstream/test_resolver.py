"""Names are looked up in threads: who waits is told when the upstream ends, and a forgotten name delays none."""

import socket
import threading
import time

import pytest

from hpcproxy.node.io.loop import Loop
from hpcproxy.node.upstream import resolver
from hpcproxy.node.upstream.open_error import OpenError
from hpcproxy.node.upstream.upstream import Lost
from tests.waiting import until


@pytest.fixture
def service(monkeypatch):
    """A name service that answers nobody until it is told to; `asked` are the names in their order."""
    answers, asked = threading.Event(), []

    def getaddrinfo(host, *_, **__):
        asked.append(host.decode())
        assert answers.wait(60)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("192.0.2.1", 0))]

    monkeypatch.setattr(resolver.socket, "getaddrinfo", getaddrinfo)
    answers.asked = asked
    yield answers
    answers.set()


def run(main):
    """What `main` returns, which is given the loop that it runs in."""
    errors = []
    loop = Loop(errors.append)

    async def all_of_it():
        try:
            return await main(loop)
        finally:
            loop.stopping = True

    task = loop.spawn(all_of_it())
    loop.run()
    loop.close()
    assert errors == []
    if task.error is not None:
        raise task.error
    return task.result


async def attempt(found, host, seconds=60.0):
    try:
        return await found.addresses(host, time.monotonic() + seconds)
    except (OpenError, Lost) as error:
        return type(error).__name__


def test_who_waits_when_it_is_closed_is_told_at_once(service):
    """An upstream that ends while a name is looked up: the request is held and tried again, and has not failed."""

    async def main(loop):
        found = resolver.Resolver(loop)
        waiting = [loop.spawn(attempt(found, "a.test")) for _ in range(2)]
        while not service.asked:
            await loop.sleep(0.01)
        found.close()
        said = [await task.join(time.monotonic() + 30) for task in waiting]
        return [*said, await attempt(found, "b.test")]

    assert run(main) == ["Lost", "Lost", "Lost"]
    assert service.asked == ["a.test"]


def test_names_that_nobody_waits_for_any_more_are_not_asked_about(service):
    async def main(loop):
        found = resolver.Resolver(loop)
        # As many as there are threads, all silent; and more, given up before their turn.
        busy = [loop.spawn(attempt(found, "busy{}.test".format(n))) for n in range(resolver.THREADS)]
        given_up = [loop.spawn(attempt(found, "old{}.test".format(n), 0.05)) for n in range(20)]
        assert [await task.join() for task in given_up] == ["OpenError"] * 20
        last = loop.spawn(attempt(found, "last.test"))
        await loop.sleep(0)
        service.set()
        answers = [await task.join(time.monotonic() + 30) for task in [*busy, last]]
        found.close()
        return answers

    assert run(main) == [[(socket.AF_INET, "192.0.2.1")]] * (resolver.THREADS + 1)
    until(lambda: "last.test" in service.asked, "it was asked about")
    assert not [name for name in service.asked if name.startswith("old")]

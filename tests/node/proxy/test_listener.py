"""How many connections there may be where descriptors are few: each needs some, and the agent itself too."""

import resource

import pytest

from hpcproxy.node.proxy import listener

INFINITE = resource.RLIM_INFINITY
NEEDED = 10 * listener.FDS_EACH + listener.OVER + listener.FDS_SPARE


@pytest.mark.parametrize(
    "soft, hard, raised, connections",
    [
        (NEEDED, NEEDED, None, 10),
        (INFINITE, INFINITE, None, 10),
        (NEEDED + 1, 2 * NEEDED, None, 10),
        (NEEDED - 1, INFINITE, NEEDED, 10),
        (64, 2 * NEEDED, NEEDED, 10),
        (64, NEEDED - 1, NEEDED - 1, 9),
        (64, NEEDED - listener.FDS_EACH, NEEDED - listener.FDS_EACH, 9),
        (1, 1, 1, 1),
    ],
)
def test_no_more_than_there_are_descriptors_for(monkeypatch, soft, hard, raised, connections):
    asked = []
    monkeypatch.setattr(resource, "getrlimit", lambda which: (soft, hard))
    monkeypatch.setattr(resource, "setrlimit", lambda which, pair: asked.append(pair))
    assert listener.raise_fd_limit(10) == connections
    assert asked == ([] if raised is None else [(raised, hard)])

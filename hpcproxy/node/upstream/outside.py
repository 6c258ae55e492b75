"""Whether this node reaches the internet by itself: two of three targets answer with a TLS handshake that is verified.

The handshakes are made by a process of its own (handshakes.py), which is ended with the question.
"""

import os
import signal
import sys
import time
from typing import Dict, List, Tuple

from ..io.child import Child, heard
from ..io.loop import Loop
from .open_error import tidy

END_S = 1.0  # for a process that was killed


def needed(count: int) -> int:
    """So many of `count` targets must answer: two thirds, rounded up."""
    return (2 * count + 2) // 3


async def why_not(loop: Loop, targets: Tuple[str, ...], deadline: float) -> str:
    """Why this node does not reach the internet by itself, as far as `targets` tell; "" if it does."""
    answers = await ask(loop, targets, deadline)
    bad = ["{}: {}".format(target, answers.get(target, "no answer")) for target in targets if answers.get(target, "no")]
    if len(targets) - len(bad) >= needed(len(targets)):
        return ""
    words = "of {} targets {} must answer with a verified certificate: {}"
    return tidy(words.format(len(targets), needed(len(targets)), "; ".join(bad)))


async def ask(loop: Loop, targets: Tuple[str, ...], deadline: float) -> Dict[str, str]:
    """What was found out of each target: "" if it answered, else why not. Who has no answer is not in it."""
    lines = await lines_of(loop, list(targets), deadline)
    return {line[1]: line[2] if line[0] == "no" else "" for line in lines if len(line) == 3}


async def lines_of(loop: Loop, words: List[str], deadline: float) -> List[List[str]]:
    """What handshakes.py says to `words` by `deadline`, each line in three."""
    child = Child([sys.executable, "-I", "-S", os.path.abspath(sys.argv[0]), "handshakes", *words])
    try:
        said, _ = await heard(loop, child, deadline)  # a node that has not begun it by then has not answered
    finally:
        end(child)
    return [line.split(" ", 2) for line in said.decode("utf-8", "replace").splitlines()]


def end(child: Child) -> None:
    """It is gone, and nothing is left of it."""
    child.signal(signal.SIGKILL)
    deadline = time.monotonic() + END_S
    while child.reap() is None and time.monotonic() < deadline:
        time.sleep(0.001)
    child.close()

"""A rank of a job that has last words. Runs as a program on a node, with the python3 that is there.

    rank.py SIGNAL [SECONDS]

It gets a page, says `up`, waits for SIGNAL and says `signal`; then it gets pages one after the other, for SECONDS (0:
one page), and says how many were answered.
"""

import signal
import subprocess
import sys
import time

FETCH = ["curl", "-sS", "--max-time", "20", "https://internet.test/ip"]


def fetch() -> bool:
    """A page was had."""
    return subprocess.run(FETCH, stdout=subprocess.DEVNULL, check=False).returncode == 0


def say(word: str) -> None:
    """One line, at once."""
    sys.stdout.write(word + "\n")
    sys.stdout.flush()


def main(name: str, seconds: float) -> None:
    """The rank's life."""
    number = getattr(signal, "SIG" + name)
    signal.pthread_sigmask(signal.SIG_BLOCK, {number})
    say("out" if fetch() else "not out")
    say("up")
    signal.sigwait({number})
    say("signal")
    end = time.monotonic() + seconds
    answers = [fetch()]
    while time.monotonic() < end:
        answers.append(fetch())
        time.sleep(0.1)
    say("all answered" if all(answers) else f"{sum(answers)} of {len(answers)} answered")


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]) if len(sys.argv) > 2 else 0)

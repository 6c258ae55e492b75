"""What `hpcproxy serve` does for an agent, by hand: an agent that gets out, and a real ssh that brings its socket."""

import os
import subprocess
import sys

from tests.waiting import until

from .harness import Agent, argv_of, clean_environment

REVERSE = [{"kind": "reverse"}]


class Served(Agent):
    """The agent at the other end: it serves a Unix socket and gets out by `ways`."""

    def __init__(self, folder, ways, **settings):
        super().__init__(folder, ways, words=("--socket", "in"), **settings)
        self.kind = "direct"

    @property
    def socket(self):
        return self.state / "in"


class Bringer:
    """ssh -R to `sshd`, as long as its process lives; a new name for each."""

    def __init__(self, sshd, source, directory, command="echo here; exec sleep 600"):
        self.path = directory / "rev.{}".format(int.from_bytes(os.urandom(3), "big"))
        words = argv_of(sshd, "-R", "{}:{}".format(self.path, source))
        argv = [word.replace("ClearAllForwardings=yes", "ClearAllForwardings=no") for word in words if word != "-N"]
        self.process = subprocess.Popen(
            [*argv, command],
            env=clean_environment(directory.parent),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=sys.stderr,
        )

    def wait(self):
        assert self.process.stdout.readline() == b"here\n"
        until(self.path.exists, "the socket is there")
        return self

    def stop(self):
        if self.process.stdin.closed:
            return
        self.process.kill()
        self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()


def bring(sshd, source, directory):
    return Bringer(sshd, source, directory).wait()

"""The oldest programs that this works with, the newest that it was tried with, and what is said of an older one. Pure.

A floor is a fact and no taste: below it something of ours fails, or nobody has looked. Above the newest nothing is
refused, for most of what comes is as before. The README's table says the same; a test compares them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

Version = tuple[int, ...]


@dataclass(frozen=True)
class Floor:
    """One program: `pattern` finds its version in what it says of itself, `below` is what becomes of an older one."""

    name: str
    least: str
    newest: str
    pattern: str
    below: str

    @property
    def number(self) -> int:
        """The floor as shell scripts compare it: 7.4 is 704, 20.11 is 2011."""
        major, minor = version(self.least)
        return major * 100 + minor

    def too_old(self, said: str) -> str:
        """Return a sentence if what the program `said` of itself is a version below the floor; nothing in doubt."""
        found = re.search(self.pattern, said)
        if found is None or version(found[1]) >= version(self.least):
            return ""
        return f"{self.name} {found[1]} is too old, {self.least} is needed: {self.below}"


def version(text: str) -> Version:
    """Return the first two numbers of `text`, 24.05.3 as (24, 5)."""
    major, minor = text.split(".")[:2]
    return int(major), int(minor)


_NUMBERS = r"(\d+\.\d+[.\d]*)"
SLURM = Floor("Slurm", "20.11", "26.05", rf"^(?:slurm\S* )?{_NUMBERS}", "its srun has no --overlap, which a job needs")
OPENSSH = Floor("OpenSSH", "7.4", "10.6", r"OpenSSH_(\d+\.\d+)", "nobody has looked at what its ssh knows and says")
PYTHON = Floor("Python", "3.9", "3.14", rf"Python {_NUMBERS}", "hpcproxy cannot be installed with it")
NODE_PYTHON = Floor("Python", "3.6", "3.14", rf"Python {_NUMBERS}", "the agent does not run, and ssh itself listens")
BASH = Floor("bash", "4.2", "5.3", rf"^(?:GNU bash, version )?{_NUMBERS}", "our scripts do not run")
# Others (uutils, busybox) count their versions from elsewhere.
COREUTILS = Floor("coreutils", "8.22", "9.10", rf"GNU coreutils\) {_NUMBERS}", "they lack options that we use")
LINUX = Floor("Linux", "3.10", "6.18", rf"^{_NUMBERS}", "nobody has looked at what its kernel can do")

FLOORS = (SLURM, OPENSSH, PYTHON, NODE_PYTHON, BASH, COREUTILS, LINUX)
# What a host says of itself (`facts` in receive.sh), by the name of the fact.
OF_HOSTS = {"ssh": OPENSSH, "python3": NODE_PYTHON, "bash": BASH, "coreutils": COREUTILS, "kernel": LINUX}

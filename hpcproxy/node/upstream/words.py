"""What one ssh's own log and the talk beside it say of why it failed, by the table of agent.json (openssh/reasons.py).

The log decides, line by line in the order of time; talk (a jump host's banner, what stands on the way) is shown where
nothing else is known, and never understood.
"""

import re
from typing import List, Match, Optional, Tuple

from ..state.settings import Failure
from .candidate import Verdict
from .open_error import tidy

# `-E` opens it anew, for the log alone; a banner goes to stderr. With -N nothing else is written there.
LOG = "/proc/self/fd/1"
# What LogVerbose puts before a line, and a level below VERBOSE. `bin=ssh, ` from OpenSSH 9.8 on.
PREFIX = re.compile(r"^(debug\d: )?(?:[\w.-]+:\w+\(\):\d+ \((?:bin=[^)]*, )?pid=\d+\): )?")
UNINTERESTING = re.compile("^(Authenticated to |Transferred: |Bytes per second: |Killed by signal )")
PLACE = re.compile("%[0-9kt%]")
UP = "Authenticated to it"
MOST_LINES = 64  # a login says less than half of that


class Words:
    """Fed with every line of the log that does not tell of a channel."""

    def __init__(self) -> None:
        self.lines: List[str] = []
        self.last = ""  # what is about more than the login's progress

    def feed(self, line: str) -> str:
        """Take `line` in; what of it is worth a line in our own log, or ""."""
        found = PREFIX.match(line)
        text = line[found.end() :] if found else line
        # The first ones decide, so they are kept; the last is shown where none does.
        self.lines = self.lines[:MOST_LINES] + [text]
        if (found and found.group(1)) or UNINTERESTING.match(text):
            return ""
        self.last = text
        return text

    def logged_in(self) -> None:
        """Its control socket is there: what was said on the way explains nothing any more."""
        self.lines, self.last = [UP], ""


def verdict(failures: Tuple[Failure, ...], lines: List[str], talk: str = "") -> Optional[Verdict]:
    """The first reason that the table knows in `lines`, None if it knows none; `talk` is quoted, never understood."""
    phase, found = "", None  # type: str, Optional[Verdict]
    offered: List[str] = []
    for line in lines:
        row, match = first_match(failures, line, phase)
        if row is None or match is None:
            continue
        if row.layer == "phase":
            phase = row.reason
            if phase == "up":
                offered, found = [], None
        elif row.layer == "offered":
            phase = row.layer
            offered.append(match.group(1))
        elif row.layer == "hop":
            reason = '{}: "{}"'.format(row.reason, tidy(talk)) if talk else row.reason
            return Verdict(row.layer, reason, row.permanent)
        elif row.layer != "skip" and found is None:
            found = Verdict(row.layer, filled(row.reason, line, match, offered, talk), row.permanent)
            if not row.more:
                break
    return found


def first_match(failures: Tuple[Failure, ...], line: str, phase: str) -> Tuple[Optional[Failure], Optional[Match[str]]]:
    """The row that `line` is for, as far as the login has come, and how it matched."""
    for row in failures:
        match = row.pattern.search(line) if row.phase in ("", phase) else None
        if match is not None:
            return row, match
    return None, None


def filled(reason: str, line: str, match: Match[str], offered: List[str], talk: str) -> str:
    """`reason` with the line for %0, the pattern's groups for %1 and %2, the keys offered for %k, and talk for %t."""
    parts = {"%0": line, "%k": " " + ", ".join(offered) if offered else "", "%%": "%"}
    parts["%t"] = ' It says: "{}"'.format(talk) if talk else ""
    parts.update(("%{}".format(i + 1), part or "") for i, part in enumerate(match.groups()))
    return PLACE.sub(lambda name: tidy(parts.get(name.group(), "")), reason)

"""How a login becomes root on its host: not at all, or by sudo; a password is asked once on a terminal. Asks a person.

The password goes in on sudo's stdin, only when sudo asks for it, and before anything else; it stands in no argument, no
file and no environment. What is to be run as root is sent only to a shell that has said it is root's.
"""

from __future__ import annotations

import contextlib
import getpass
import sys
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager

from hpcproxy import heard
from hpcproxy.errors import HpcproxyError
from hpcproxy.shell_lines import shell_line

SUDO = "sudo"
_TALK_MAX_BYTES = 64 * 1024  # of a lecture, a banner, a .bashrc; each piece of it has all of it looked through


class NotRootError(HpcproxyError):
    """A login could not become root, for the reason that it gives."""


class Secrets:
    """What only a person knows: asked once on the terminal, kept while this program runs, told to who asks."""

    def __init__(self) -> None:
        self._asking = threading.Lock()
        self._known: dict[str, str | None] = {}
        # What must be out of the way meanwhile: a progress display.
        self.pause: Callable[[], AbstractContextManager[object]] = contextlib.nullcontext

    def ask(self, what: str) -> str | None:
        """Return what is typed for `what`, the same for all who ask; None where no person is there."""
        with self._asking:
            if what not in self._known:
                self._known[what] = self._type(what)
            return self._known[what]

    def _type(self, what: str) -> str | None:
        if not sys.stdin.isatty():
            return None
        try:
            with self.pause():
                return getpass.getpass(f"{what}: ")
        except UnicodeError:  # of another code than this terminal's: it is not the right one
            return ""
        except (EOFError, OSError):
            return None


def command(become: str, token: str) -> str:
    """Return what a login runs: a bash that reads its stdin, and says first that it is root's where it becomes that."""
    if become != SUDO:
        return shell_line("shell")
    return shell_line("become").replace("TOKEN", token)


class SudoDialogue:
    """The talk with sudo before the message may be sent: told what has come in, it says what goes out."""

    def __init__(self, token: str, user: str, secrets: Secrets) -> None:
        self._root, self._prompt = f"{token} root\n".encode(), f"{token} password ".encode()  # as become.sh says them
        self._who, self._secrets = user, secrets
        self._asked = 0
        self.open = False

    def hear(self, said: bytes) -> bytes:
        """Return what is to be sent now that `said` is all that has come; raises NotRootError for no way in."""
        if self._root in said:
            self.open = True
            return b""
        if len(said) > _TALK_MAX_BYTES:
            raise NotRootError("what answers there talks on and does not become root")
        prompts = said.count(self._prompt)
        if prompts <= self._asked:
            return b""
        if self._asked:
            raise NotRootError(f"sudo there takes another password of {self._who}")
        self._asked = prompts
        password = self._secrets.ask(f"password of {self._who} for sudo")
        if password is None:
            raise NotRootError(f"sudo there asks for the password of {self._who}; start this on a terminal")
        return f"{password}\n".encode()

    def shut(self, said: bytes) -> NotRootError:
        """Return why it did not open, from all that was said until its end."""
        lines = [line for line in said.splitlines() if not line.startswith(self._prompt.strip())]
        why = heard.last_line(b"\n".join(lines)) or "it ended without a word"
        return NotRootError(f"{self._who} cannot become root there by sudo: {why}")

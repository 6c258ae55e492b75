"""A host's key, shown by ssh itself before any login. Connects; writes to a directory of its own, gone afterwards.

An ssh with an empty list of known hosts, which offers no way to log in, writes the key into that list under the very
name that it looks up: aliases, ports, canonical names and proxies are its business. A host that lets everybody in
without asking gives it a connection on which it does nothing.
"""

from __future__ import annotations

import contextlib
import re
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from hpcproxy.config.model import Jump
from hpcproxy.errors import Reason, TunnelError
from hpcproxy.openssh import configuration, hops, known_hosts
from hpcproxy.openssh.configuration import Resolved
from hpcproxy.openssh.hops import Hop
from hpcproxy.openssh.known_hosts import HostKey, KnownHosts

_PLAIN_PATH = re.compile(r"[A-Za-z0-9/._,+=@-]*")  # ssh expands the others, or takes them apart
# What ssh finds again in a list of known hosts that it has written itself; format: sshd(8).
_LOOKED_UP = re.compile(r"[^\s,!#|@][^\s,]*")
_LIST, _LOG = "known_hosts", "log"
# What ssh says, to its log and in these words from 7.4 to 10.2, once the host's key is accepted and the login begins.
_PAST_THE_KEY = "debug1: SSH2_MSG_SERVICE_ACCEPT received"
_KEY_SHOWN = "debug1: Server host "  # key, or certificate
_NO_LOGIN = (
    *("-o", "PubkeyAuthentication=no", "-o", "PasswordAuthentication=no", "-o", "KbdInteractiveAuthentication=no"),
    *("-o", "GSSAPIAuthentication=no", "-o", "HostbasedAuthentication=no", "-o", "PreferredAuthentications=none"),
    # No session, none of the user's forwards, and an end if the host should let everybody in.
    *("-W", "127.0.0.1:1"),
)
_RSA = ("rsa-sha2-512", "rsa-sha2-256", "ssh-rsa")  # names of the signature; the key's kind is the last in all lists


@dataclass(frozen=True)
class Way:
    """How a host is reached: what ssh makes of its name, and the ProxyCommand in place of its own, if there is one."""

    resolved: Resolved
    proxy: str | None = None
    more: tuple[str, ...] = ()

    @property
    def jump(self) -> Jump:
        """What was asked for."""
        return self.resolved.asked


def fetch(way: Way, timeout_s: float, kinds: Sequence[str] = ()) -> HostKey:
    """Return the key that the host shows now, if it can one of the `kinds` that are known of it.

    Hosts on the way are logged in to only if the user's or the site's own list confirms them. Raises TunnelError naming
    the layer that failed, and for a name under which no list can have a key.
    """
    if not _LOOKED_UP.fullmatch(way.resolved.name):
        reason = f"by the name {way.resolved.name!r} (HostKeyAlias) no list of known hosts can have a key"
        raise TunnelError("host-key", reason, "it may have no blank, no comma, and none of !#|@ first", str(way.jump))
    with _attempt(way, timeout_s) as attempt:
        # An empty list knows no other key, so "no" accepts but the first; "accept-new" came with OpenSSH 7.6 only.
        attempt.run("no", [*_NO_LOGIN, *_first(way.resolved, kinds)])
        lines = KnownHosts.read(attempt.directory / _LIST).content.decode(errors="surrogateescape").splitlines()
        if not lines:
            attempt.explain()
        name, kind, data = lines[0].split()[:3]
        return HostKey(name, kind, data)


def is_accepted(way: Way, known: KnownHosts, timeout_s: float) -> bool:
    """Whether ssh takes the host for the one in `known`: how it checks a certificate is ssh's business.

    Raises TunnelError if nothing is there that could show a key.
    """
    with _attempt(way, timeout_s) as attempt:
        (attempt.directory / _LIST).write_bytes(known.content)
        log = attempt.run("yes", [*_NO_LOGIN, "-o", "LogLevel=DEBUG1"])
        if any(line.strip() == _PAST_THE_KEY for line in log):
            return True
        if not any(line.startswith(_KEY_SHOWN) for line in log):
            attempt.explain()
        return False


def _first(resolved: Resolved, kinds: Sequence[str]) -> list[str]:
    """Return the option that asks for `kinds` first, as ssh does with kinds that its list knows."""
    wanted = [name for kind in kinds for name in (_RSA if kind == "ssh-rsa" else (kind,))]
    mine = resolved.host_key_algorithms
    ordered = [name for name in wanted if name in mine] + [name for name in mine if name not in wanted]
    return ["-o", f"HostKeyAlgorithms={','.join(ordered)}"] if wanted and all(ordered) else []


@dataclass
class _Attempt:
    """One connection that stops before the login: where it leaves its words, and how long it may take."""

    way: Way
    hops: tuple[Hop, ...]
    directory: Path
    timeout_s: float
    said: bytes = b""
    late: bool = False

    def run(self, strict: str, options: Sequence[str]) -> list[str]:
        """Connect, and return what ssh wrote to its log."""
        argv = [
            "ssh",
            *options,
            *hops.alone(),
            "-E",
            str(self.directory / _LOG),
            *self.way.more,
        ]  # the first word counts
        argv += [*known_hosts.only(self.directory / _LIST, strict), "-o", "CheckHostIP=no", "-o", "HashKnownHosts=no"]
        argv += ["-o", f"ConnectTimeout={max(1, int(self.timeout_s)) * (len(self.hops) + 1)}"]
        proxy = self.way.proxy
        if self.hops:
            proxy = hops.proxy_command(self.hops, self.directory, self.timeout_s)
        if proxy is not None:
            argv += ["-o", f"ProxyCommand={proxy}"]
        # ssh bounds the connection and the first words; a host that falls silent later is bounded here.
        total_s = self.timeout_s * (len(self.hops) + 2)
        try:
            self.said = configuration.run([*argv, *configuration.target(self.way.jump)], total_s).stderr
        except subprocess.TimeoutExpired as error:
            self.said, self.late = error.stderr or b"", True
        except OSError as error:
            raise TunnelError("ssh", f"ssh cannot be run: {error.strerror}", "", str(self.way.jump)) from None
        return self.words(self.directory / _LOG)

    @staticmethod
    def words(path: Path) -> list[str]:
        """Return the lines that an ssh wrote to its log at `path`."""
        with contextlib.suppress(OSError):
            return path.read_text(errors="replace").replace("\r", "").splitlines()
        return []

    def explain(self) -> NoReturn:
        """Raise TunnelError with the reason, the nearest hop's if it is one's."""
        name = str(self.way.jump)
        for place, hop in enumerate(self.hops, 1):
            words = self.words(hop.log(self.directory, place))
            why = hops.meaning(words)
            if why is not None and why.layer == "host-key":
                raise TunnelError(
                    why.layer,
                    f"{hop.jump}, on the way to it, is in none of your lists of known hosts, or with another key",
                    f"nothing was logged in to; look at its key with: {hop.typed}",
                    name,
                )
            if why is not None:
                raise TunnelError(why.layer, f"{hop.jump}, on the way to it: {why}", f"try: {hop.typed}", name)
        why = hops.meaning(self.words(self.directory / _LOG))
        told = configuration.said(self.said)
        if self.way.resolved.proxy_command is not None and told:
            raise TunnelError("ssh", f"its ProxyCommand does not get there: {told}", "see ~/.ssh/config", name)
        silent = self.late or (why is not None and why.layer == "route")
        if silent and self.way.resolved.proxy_command is not None:
            reason = f"nothing comes through its ProxyCommand within {self.timeout_s:g} s"
            raise TunnelError("ssh", reason, "see ~/.ssh/config", name)
        if self.late:
            raise TunnelError("route", f"does not answer within {self.timeout_s:g} s", "is its address right?", name)
        why = why or Reason("ssh", told or "showed no host key")
        raise TunnelError(why.layer, str(why), "", name)


@contextlib.contextmanager
def _attempt(way: Way, timeout_s: float) -> Iterator[_Attempt]:
    on_the_way = () if way.proxy is not None else hops.of(way.resolved)
    where = tempfile.gettempdir()
    with place(where if _PLAIN_PATH.fullmatch(where) else "/tmp", str(way.jump)) as name:  # noqa: S108 - mkdtemp
        yield _Attempt(way, on_the_way, Path(name), timeout_s)


@contextlib.contextmanager
def place(directory: str, jump: str) -> Iterator[str]:
    """Have a directory below `directory` for what an ssh says of `jump`; raises TunnelError where there is no room."""
    try:
        made = tempfile.TemporaryDirectory(prefix="hpcproxy-key-", dir=directory)
    except OSError as error:
        raise TunnelError("ssh", f"what it says finds no room in {directory}: {error.strerror}", "", jump) from None
    with made as name:
        yield name

"""What ssh makes of a name, asked of `ssh -G`: the only reader of ssh's configuration. Connects to nobody.

It reads the user's and the system's files, runs `Match exec` and makes names canonical as the connection itself will.
Source: ssh(1), `-G`; ssh_config(5), TOKENS; what is looked up in known_hosts: `put_host_port` in OpenSSH's `misc.c`.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import re
import signal
import socket
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from hpcproxy import heard
from hpcproxy.config.model import Jump
from hpcproxy.errors import TunnelError

_SSH_PORT = 22
_TIMEOUT_S = 20.0  # a `Match exec` of the user's may ask the network
_OUTPUT_BYTES = 1 << 20
_TOKEN = re.compile(r"%(.)|\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
_NEXT_PATH = re.compile(r" (?=[/~]|none(?: |$))")  # several paths stand in one line, and a path may hold a space


@dataclass(frozen=True)
class Resolved:
    """What ssh will do with a destination; paths have `~` and tokens expanded, and need not exist."""

    asked: Jump
    hostname: str
    user: str
    port: int
    host_key_alias: str | None
    identity_files: tuple[Path, ...]
    certificate_files: tuple[Path, ...]
    identities_only: bool
    identity_agent: str | None
    proxy_jump: str | None
    proxy_command: str | None
    user_known_hosts: tuple[Path, ...]
    global_known_hosts: tuple[Path, ...]
    host_key_algorithms: tuple[str, ...]

    @property
    def name(self) -> str:
        """What ssh looks up in known_hosts: the alias as it stands; else HOST, or [HOST]:PORT if PORT is not 22."""
        return lookup_name(self.hostname, self.port) if self.host_key_alias is None else self.host_key_alias

    @property
    def known_hosts(self) -> tuple[Path, ...]:
        """The lists that ssh itself would ask, the user's first."""
        return self.user_known_hosts + self.global_known_hosts

    @property
    def hops(self) -> tuple[Jump, ...]:
        """The hosts of ProxyJump, the nearest to us first."""
        return tuple(_hop(text) for text in (self.proxy_jump or "").split(",") if text)


def ask(jump: Jump, *, user: str | None = None, options: Sequence[str] = (), timeout_s: float = _TIMEOUT_S) -> Resolved:
    """Return what ssh makes of `jump`; `user` counts where `jump` names none, `options` are more words for ssh.

    Raises TunnelError with ssh's own words, which name file and line, where it cannot read its configuration.
    """
    return _parse(jump, _dump([*options, *target(jump, user)], str(jump), timeout_s))


def lookup_name(host: str, port: int | None) -> str:
    """Return what ssh looks up in known_hosts where no HostKeyAlias says otherwise."""
    return host.lower() if port in (None, _SSH_PORT) else f"[{host.lower()}]:{port}"


def target(jump: Jump, user: str | None = None) -> list[str]:
    """Return the last words of an ssh command line; a user goes behind -l, because a name may hold an @."""
    login = jump.user or user
    return [
        *(("-l", login) if login else ()),
        *(("-p", str(jump.port)) if jump.port else ()),
        *("--", jump.host),
    ]


def said(text: bytes) -> str:
    """Return ssh's words as one printable line, without what repeats the rest."""
    lines = text.decode(errors="replace").replace("\r", "").splitlines()
    kept = [line for line in lines if line.strip() and ": terminating, " not in line]
    return heard.line("; ".join(kept))


def run(argv: Sequence[str], timeout_s: float) -> subprocess.CompletedProcess[bytes]:
    """Run `argv` away from the terminal, where nothing can ask anybody anything; nothing of it outlives the time.

    Raises OSError; and TimeoutExpired, which holds the words so far.
    """
    # Files and not pipes: a proxy that stays in the background keeps its end of a pipe, and the wait would be for it.
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
        environ = {**os.environ, "SSH_ASKPASS_REQUIRE": "never"}
        process = subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=output, stderr=errors, env=environ, start_new_session=True
        )
        late = False
        try:
            process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            late = True
        finally:
            # Its proxies and what `Match exec` started are in its session; after a normal end there are none.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        texts = [_head(file) for file in (output, errors)]
    if late:
        raise subprocess.TimeoutExpired(argv, timeout_s, *texts)
    return subprocess.CompletedProcess(argv, process.returncode, *texts)


def cannot_run(error: OSError, jump: str = "") -> TunnelError:
    """Return what is to be said where ssh cannot be started."""
    reason = f"the program ssh cannot be run: {error.strerror}"
    return TunnelError("ssh", reason, "is OpenSSH's client installed and on PATH?", jump)


def _head(file: IO[bytes]) -> bytes:
    file.seek(0)
    return file.read(_OUTPUT_BYTES)


def _dump(words: Sequence[str], jump: str, timeout_s: float) -> dict[str, list[str]]:
    try:
        done = run(["ssh", "-G", "-T", *words], timeout_s)
    except OSError as error:
        raise cannot_run(error, jump) from None
    except subprocess.TimeoutExpired:
        reason = f"ssh needs more than {timeout_s:g} s to read its configuration"
        raise TunnelError("ssh", reason, "does a `Match exec` in ~/.ssh/config wait for something?", jump) from None
    if done.returncode:
        advice = "mend that line; plain ssh fails in the same way"
        raise TunnelError("ssh", said(done.stderr) or "ssh -G ended without a word", advice, jump)
    found: dict[str, list[str]] = {}
    for line in os.fsdecode(done.stdout).splitlines():
        key, _, value = line.partition(" ")
        found.setdefault(key.lower(), []).append(value)
    return found


def _parse(jump: Jump, found: Mapping[str, Sequence[str]]) -> Resolved:
    def one(key: str) -> str | None:
        value = found.get(key, [""])[0]
        return value if value and value != "none" else None

    hostname, login, port = one("hostname") or jump.host, one("user") or "", int(one("port") or _SSH_PORT)
    tokens = _tokens(jump, hostname, login, port, one("hostkeyalias"))

    def paths(key: str) -> tuple[Path, ...]:
        return tuple(Path(_expand(value, tokens)) for value in found.get(key, ()) if value and value != "none")

    def several(key: str) -> tuple[Path, ...]:
        values = _NEXT_PATH.split(one(key) or "")
        return tuple(Path(_expand(value, tokens)) for value in values if value and value != "none")

    return Resolved(
        asked=jump,
        hostname=hostname,
        user=login,
        port=port,
        host_key_alias=one("hostkeyalias"),
        identity_files=paths("identityfile"),
        certificate_files=paths("certificatefile"),
        identities_only=one("identitiesonly") == "yes",
        identity_agent=one("identityagent"),
        proxy_jump=one("proxyjump"),
        proxy_command=one("proxycommand"),
        user_known_hosts=several("userknownhostsfile"),
        global_known_hosts=several("globalknownhostsfile"),
        host_key_algorithms=tuple((one("hostkeyalgorithms") or "").split(",")),
    )


def _tokens(jump: Jump, hostname: str, user: str, port: int, alias: str | None) -> dict[str, str]:
    """Return what ssh_config(5) says that each token stands for; %C depends on ssh's version and stays as it is."""
    account = pwd.getpwuid(os.getuid())
    here = socket.gethostname()
    return {
        "%": "%",
        "d": account.pw_dir,
        "h": hostname,
        "i": str(account.pw_uid),
        "k": alias or hostname,
        "L": here.partition(".")[0],
        "l": here,
        "n": jump.host,
        "p": str(port),
        "r": user,
        "u": account.pw_name,
    }


def _expand(path: str, tokens: Mapping[str, str]) -> str:
    def value(match: re.Match[str]) -> str:
        token, variable = match.groups()
        found = tokens.get(token) if token else os.environ.get(variable)
        return match[0] if found is None else found

    if path == "~" or path.startswith("~/"):  # ssh asks the account, not HOME
        path = tokens["d"] + path[1:]
    return _TOKEN.sub(value, os.path.expanduser(path))  # noqa: PTH111 - `~user` of text that is no path yet


def _hop(text: str) -> Jump:
    """Return a host of ProxyJump, `[USER@]HOST[:PORT]` or a URI, as `ssh -G` prints it."""
    user, _, where = text.removeprefix("ssh://").rpartition("@")
    host, port = where, ""
    if where.startswith("["):
        host, _, port = where[1:].partition("]")
        port = port.removeprefix(":")
    elif ":" in where:
        host, _, port = where.rpartition(":")
    return Jump(host, user or None, int(port) if port.isdigit() else None)

"""The account that is looked at, and what several checks want to know of it: each found out once. Connects, logs in.

A login is tried once for each jump host and not again, whatever it came to: sshd counts each that fails against the
address that it came from (PerSourcePenalties of sshd_config(5), OpenSSH 9.8 and later).
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar, Union

from hpcproxy.account import checks, login_shell, overrides, status, tunnels, verbs
from hpcproxy.account.account import Account
from hpcproxy.account.overrides import Override
from hpcproxy.account.tunnels import Tunnel
from hpcproxy.config.model import Config, Jump
from hpcproxy.doctor import reach
from hpcproxy.doctor.reach import Place, Reached, Spoken
from hpcproxy.doctor.temporary import Temporary
from hpcproxy.errors import HpcproxyError, TunnelError
from hpcproxy.files.render import Bundle
from hpcproxy.openssh import configuration, recognition
from hpcproxy.openssh.configuration import Resolved
from hpcproxy.openssh.host_key import Way
from hpcproxy.openssh.known_hosts import KnownHosts
from hpcproxy.openssh.recognition import Shown

T = TypeVar("T")
Answer = Union[Resolved, HpcproxyError]


class _Kept:
    """What was found out, by the question's name; what it raised is raised again."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._locks: dict[str, threading.Lock] = {}
        self._values: dict[str, Any] = {}
        self._errors: dict[str, HpcproxyError] = {}

    def of(self, name: str, find: Callable[[], Any]) -> Any:  # noqa: ANN401 - `once` has the type
        with self._lock:
            lock = self._locks.setdefault(name, threading.Lock())
        with lock:
            if name not in self._values and name not in self._errors:
                try:
                    self._values[name] = find()
                except HpcproxyError as error:
                    self._errors[name] = error
        if name in self._errors:
            raise self._errors[name]
        return self._values[name]


def once(find: Callable[[Patient], T]) -> Callable[[Patient], T]:
    """Have a question asked once, however many want to know at the same time."""

    @functools.wraps(find)
    def found(self: Patient) -> T:
        answer: T = self.kept.of(find.__name__, lambda: find(self))
        return answer

    return found


@dataclass(frozen=True)
class Patient:
    """The account, and what was asked for: `endpoints` may be left alone, `job` is the one whose nodes are asked."""

    account: Account
    endpoints: bool = True
    job: str = ""
    temporary: Temporary = field(default_factory=Temporary)
    kept: _Kept = field(default_factory=_Kept, repr=False)

    @once
    def config(self) -> Config:
        """The settings in force; ConfigError, FileError."""
        return verbs.settings_of(self.account).config

    @once
    def bundle(self) -> Bundle:
        """The files that they amount to."""
        return verbs.bundle_of(self.account, self.config())

    @once
    def asked_shells(self) -> login_shell.Asked:
        """Which shells of the account read our block."""
        return login_shell.ask(self.account.user_home, self.account.environ)

    @once
    def overrides(self) -> list[Override]:
        """What tools have in files and variables of their own."""
        return overrides.in_tools(self.account.user_home, self.account.environ)

    @once
    def resolved(self) -> dict[Jump, Answer]:
        """What ssh makes of each jump host, or why it makes nothing of it."""
        return {jump: _answer(jump) for jump in self.config().jump_hosts}

    @once
    def shown(self) -> dict[Jump, Shown]:
        """The key that each jump host shows now, before any login, side by side."""
        config, own = self.config(), KnownHosts.read(self.account.home.known_hosts)

        def ask(jump: Jump) -> Shown:
            way = self.resolved()[jump]
            if isinstance(way, HpcproxyError):
                return Shown(str(jump), error=way)
            return recognition.recognise(Way(way), own, config.connect_timeout_s)

        with ThreadPoolExecutor(max(1, len(config.jump_hosts))) as pool:
            return dict(zip(config.jump_hosts, pool.map(ask, config.jump_hosts)))

    @once
    def tunnel(self) -> list[Tunnel]:
        """This job's or shell's tunnel, the newest last; none if there is none."""
        return tunnels.find(self.account.environ, self.account.environ.get("SLURM_JOB_ID") or "shell")

    @once
    def probes(self) -> list[checks.Probe]:
        """One login to each jump host, without this machine's ssh-agent, which no job has."""
        alone = {name: value for name, value in self.account.environ.items() if name != "SSH_AUTH_SOCK"}
        return verbs.log_in_once(replace(self.account, environ=alone), self.config())

    @once
    def working_tunnel(self) -> Tunnel:
        """The tunnel that is there, or one for as long as this looks; TunnelError."""
        found = self.tunnel()
        if found:
            if not found[-1].ready:
                raise TunnelError("tunnel", f"is down: {found[-1].last_error or 'not up yet'}")
            return found[-1]
        other = self.other_way()
        if other is not None:
            return other
        let_through = {probe.jump for probe in self.probes() if probe.why is None}
        jumps = [jump for jump in self.config().jump if str(jump) in let_through]
        return self.temporary.start(self.config().model_copy(update={"jump": tuple(jumps)}), self.account)

    @once
    def other_way(self) -> Tunnel | None:
        """With `via: auto` the tunnel that needs no jump host: the one that is up, or one for as long as this looks."""
        config = self.config()
        if config.via != "auto" or not config.jump_hosts:
            return None
        found = self.tunnel()
        if found:
            by_ssh = found[-1].jump in {str(jump) for jump in config.jump_hosts}
            return found[-1] if found[-1].ready and not by_ssh else None
        try:
            return self.temporary.start(config.model_copy(update={"jump": ()}), self.account)
        except HpcproxyError:
            return None

    def spared(self) -> str:
        """Why nothing of ssh needs to be well; "" where it does."""
        if not self.config().uses_ssh:
            return f"not needed with `via: {self.config().via}`"
        other = self.other_way()
        return f"not needed: with `via: auto` the tunnel goes by {other.jump}" if other is not None else ""

    @once
    def ways_of_job(self) -> list[Tunnel | str]:
        """The tunnel of the job that was named on each of its nodes, or the node's name; TunnelError."""
        return status.of_job(self.account, self.job)

    def far_place(self) -> Place:
        """Where `check_url` is."""
        return Place.of(self.config().check_url)

    @once
    def far(self) -> Reached:
        """How far a connection to that goes."""
        return reach.try_connection(self.working_tunnel(), self.far_place())

    @once
    def spoken(self) -> Spoken:
        """What it answers to a request for a WebSocket."""
        return reach.try_upgrade(self.working_tunnel(), self.far_place())


def _answer(jump: Jump) -> Answer:
    try:
        return configuration.ask(jump)
    except TunnelError as error:
        return error

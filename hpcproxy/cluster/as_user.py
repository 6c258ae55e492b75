"""`--as-user`: a researcher's own files and the block in `.bashrc`, on every machine of an inventory. Connects.

The same plan as on this machine, with each machine's own home in it; the same script puts the files in place; `.bashrc`
is fetched, changed by the same pure function and put back only if it is still what was fetched.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from hpcproxy.cluster import contract, protocol
from hpcproxy.cluster.fan_out import Fleet, Reply
from hpcproxy.cluster.inventory import Inventory, site_yaml
from hpcproxy.cluster.outcome import HostOutcome, Outcomes, judge
from hpcproxy.config.model import Config
from hpcproxy.errors import BlockError, ConfigError
from hpcproxy.files import block
from hpcproxy.files.plan import BASHRC_POINTER, Artifact, Home, account_plan
from hpcproxy.files.render import Bundle, render

_BASHRC = "~/.bashrc"
_PRIVATE_MODE = 0o600
OnHost = Callable[[HostOutcome], None]


@dataclass(frozen=True)
class There:
    """One machine: where the account's home is and what its `.bashrc` holds; None: there is none."""

    home: str
    bashrc: bytes | None


@dataclass(frozen=True)
class Accounts:
    """One account on many machines."""

    fleet: Fleet
    inventory: Inventory
    config: Config
    known_hosts: str
    token: str
    fanout: int

    def act(self, action: str, hosts: tuple[str, ...], on_host: OnHost, *, want_content: bool = False) -> Outcomes:
        """Carry `action` (look, apply, rollback, remove) out on `hosts` and return every host's outcome."""
        there, bad = self._look_around(hosts)
        for host in bad:
            on_host(host)
        done = Outcomes(tuple(bad))
        if action == "remove":  # first what points to our files, then the files
            done = done.merged(self._bashrcs(there, action))
        for home in sorted({one.home for one in there.values()}):
            here = tuple(host for host, one in there.items() if one.home == home)
            message = protocol.message(
                self.bundle(home), action, self.token, want_content=want_content, place=self._place(home)
            )
            done = done.merged(contract.ask(self.fleet, dict.fromkeys(here, message), self.token, self.fanout, on_host))
        if action != "remove":
            good = {host.host for host in done.hosts if host.word not in ("failed", "unreached")}
            done = done.merged(self._bashrcs({host: one for host, one in there.items() if host in good}, action))
        by_name = {host.host: host for host in done.hosts}
        return Outcomes(tuple(by_name[host] for host in hosts))

    def bundle(self, home: str) -> Bundle:
        """Return the files of an account whose home is `home`; raises ConfigError for one that ssh cannot take."""
        where = Home.at(Path(home), None)
        plan = account_plan(self.config, where)
        extra = (
            Artifact("config.yaml", "config.yaml", where.config, _PRIVATE_MODE, "the settings"),
            Artifact("known_hosts", "known_hosts", where.known_hosts, _PRIVATE_MODE, "the jump hosts' pinned keys"),
        )
        texts = {"config.yaml": site_yaml(self.inventory), "known_hosts": self.known_hosts.encode()}
        artifacts = tuple(replace(artifact, owner=self.inventory.user) for artifact in (*extra, *plan.artifacts))
        return render(replace(plan, artifacts=artifacts, texts=texts))

    def _place(self, home: str) -> protocol.Place:
        return protocol.Place(Path(home, ".hpcproxy-versions"), Path(home, ".hpcproxy-deploy.lock"), "0700")

    def _look_around(self, hosts: tuple[str, ...]) -> tuple[dict[str, There], list[HostOutcome]]:
        there, bad = {}, []
        for reply in self._ask(dict.fromkeys(hosts, protocol.reading((_BASHRC,), self.token))):
            answer = reply.answer
            if answer is None or answer.word == "failed" or "home" not in answer.facts:
                bad.append(judge(reply.host, answer, reply.trouble, reply.seconds))
                continue
            home = answer.facts["home"]
            try:
                Home.at(Path(home), None)
            except ConfigError as error:
                bad.append(HostOutcome(reply.host, "failed", str(error)))
                continue
            there[reply.host] = There(home, answer.contents.get(f"{home}/.bashrc"))
        return there, bad

    def _bashrcs(self, there: Mapping[str, There], action: str) -> Outcomes:
        """Put our block into every `.bashrc`, take it out, or only say whether that would change anything."""
        messages, outcomes = {}, []
        for host, one in there.items():
            path = f"{one.home}/.bashrc"
            try:
                after = (
                    _without(one.bashrc, path) if action == "remove" else block.put(one.bashrc, BASHRC_POINTER, path)
                )
            except BlockError as error:
                outcomes.append(HostOutcome(host, "failed", str(error)))
                continue
            if after == one.bashrc or action == "look":
                outcomes.append(HostOutcome(host, "unchanged" if after == one.bashrc else "would"))
            else:
                messages[host] = protocol.editing((protocol.Edit(path, one.bashrc, after),), self.token)
        replies = self._ask(messages)
        outcomes += [judge(reply.host, reply.answer, reply.trouble, reply.seconds) for reply in replies]
        return Outcomes(tuple(outcomes))

    def _ask(self, messages: dict[str, bytes]) -> list[Reply]:
        return self.fleet.ask(messages, self.token, self.fanout, _unheard)


def _without(bashrc: bytes | None, path: str) -> bytes | None:
    """Return `bashrc` without our block; None if the file is ours alone, or not there."""
    if bashrc is None or block.is_ours_alone(bashrc, path):
        return None
    return block.remove(bashrc, path)


def _unheard(_reply: Reply) -> None:
    return None

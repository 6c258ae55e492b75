"""`--as-user`: a researcher's own files and the block in `.bashrc`, on every machine of an inventory. Connects.

The same plan as on this machine, with each machine's own home in it; the same script puts the files in place; `.bashrc`
is fetched, changed by the same pure function and put back only if it is still what was fetched.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from hpcproxy.cluster import protocol
from hpcproxy.cluster.fan_out import Fleet
from hpcproxy.cluster.inventory import Inventory, site_yaml
from hpcproxy.cluster.outcome import HostOutcome, OnHost, Outcomes
from hpcproxy.config.model import Config
from hpcproxy.config.places import Home
from hpcproxy.errors import BlockError, ConfigError
from hpcproxy.files import block
from hpcproxy.files.plan import Artifact, account_plan
from hpcproxy.files.render import Bundle, render

_BASHRC = "~/.bashrc"
_PRIVATE_MODE = 0o600


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
                self.bundle(home), action, self.fleet.token, want_content=want_content, place=self._place(home)
            )
            done = done.merged(self.fleet.ask(dict.fromkeys(here, message), on_host))
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
        for outcome in self.fleet.ask(dict.fromkeys(hosts, protocol.reading((_BASHRC,), self.fleet.token))).hosts:
            answer = outcome.answer
            if answer is None or answer.word == "failed" or "home" not in answer.facts:
                bad.append(outcome)
                continue
            home = answer.facts["home"]
            try:
                Home.at(Path(home), None)
            except ConfigError as error:
                bad.append(HostOutcome(outcome.host, "failed", str(error)))
                continue
            there[outcome.host] = There(home, answer.contents.get(f"{home}/.bashrc"))
        return there, bad

    def _bashrcs(self, there: Mapping[str, There], action: str) -> Outcomes:
        """Put our block into every `.bashrc`, take it out, or only say whether that would change anything."""
        messages, outcomes = {}, []
        for host, one in there.items():
            path = f"{one.home}/.bashrc"
            try:
                after = (
                    _without(one.bashrc, path)
                    if action == "remove"
                    else block.put(one.bashrc, block.bashrc_pointer(), path)
                )
            except BlockError as error:
                outcomes.append(HostOutcome(host, "failed", str(error)))
                continue
            if after == one.bashrc or action == "look":
                outcomes.append(HostOutcome(host, "unchanged" if after == one.bashrc else "would"))
            else:
                messages[host] = protocol.editing((protocol.Edit(path, one.bashrc, after),), self.fleet.token)
        return Outcomes(tuple(outcomes)).joined(self.fleet.ask(messages))


def _without(bashrc: bytes | None, path: str) -> bytes | None:
    """Return `bashrc` without our block; None if the file is ours alone, or not there."""
    if bashrc is None or block.is_ours_alone(bashrc, path):
        return None
    return block.remove(bashrc, path)

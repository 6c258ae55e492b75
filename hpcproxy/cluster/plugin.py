"""The SPANK plugin's line in plugstack.conf, on every host: put in, taken out, and whether slurmd knows. Connects.

No host can come to harm by it (cluster/plugstack.py), so each has its own outcome, and none waits for another.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from hpcproxy.cluster import plugstack, protocol, slurm_conf
from hpcproxy.cluster.fan_out import Fleet
from hpcproxy.cluster.inventory import Inventory, fold
from hpcproxy.cluster.outcome import HostOutcome, Outcomes
from hpcproxy.errors import BlockError, HpcproxyError
from hpcproxy.files.plan import Artifact, Plan
from hpcproxy.files.render import render

_RESTART = (
    "{hosts}: slurmd has begun before plugstack.conf said so, and reads it when it starts only: "
    "systemctl restart slurmd there (running jobs go on)"
)


class NamedError(HpcproxyError):
    """A line of somebody's names the plugin."""


@dataclass(frozen=True)
class Plugin:
    """Who is asked, and what about."""

    fleet: Fleet
    inventory: Inventory

    def on(self, hosts: Sequence[str]) -> Outcomes:
        """Every host that has a slurm.conf has our line beside it."""
        return self._turn(hosts, lambda text: plugstack.put(text, self.inventory))

    def off(self, hosts: Sequence[str]) -> Outcomes:
        """No host has our line; one that somebody wrote is his to take out, and that host is not good."""
        return self._turn(hosts, self._without)

    def _without(self, text: bytes | None) -> bytes | None:
        """Return `text` without our line; raises BlockError, and NamedError for a line that is not in our block."""
        after = None if text is None else plugstack.take_out(text, self.inventory)
        if plugstack.names_plugin(after):
            raise NamedError(f"{self._files[1]} names the plugin by a line that is not ours; take it out")
        return after

    def _turn(self, hosts: Sequence[str], change: Callable[[bytes | None], bytes | None]) -> Outcomes:
        conf, path = self._files
        outcomes: dict[str, HostOutcome] = {}
        edits: dict[str, bytes] = {}
        for seen in self._ask(hosts, protocol.reading((conf, path), self.fleet.token)):
            outcomes[seen.host] = seen
            if seen.answer is None or seen.word == "failed" or conf not in seen.answer.contents:
                continue  # without a slurm.conf of its own a host has its plugstack.conf from the controller too
            before = seen.answer.contents.get(path)
            try:
                after = change(before)
            except (BlockError, NamedError) as error:
                outcomes[seen.host] = HostOutcome(seen.host, "failed", str(error))
                continue
            if after != before:
                edits[seen.host] = protocol.editing((protocol.Edit(path, before, after),), self.fleet.token)
        return Outcomes(tuple(outcomes[host] for host in hosts)).replaced(self.fleet.ask(edits))

    def words(self, hosts: Sequence[str]) -> list[str]:
        """Return what is left to do on `hosts` before the plugin runs there, in words."""
        conf, path = self._files
        values = {"slurm_bin": str(self.inventory.slurm_bin or ""), "plugstack": path}
        artifact = Artifact("plugged", "deploy/plugged.sh.j2", Path("plugged"), 0o700, "")
        script = render(Plan((artifact,), values, {})).files[0].content.decode()
        command = ("/bin/bash", "-p", "-c", script, "plugged")
        lacking, stale = [], []
        for seen in self._ask(hosts, protocol.reading((conf, path), self.fleet.token, command)):
            found = seen.answer.contents if seen.answer and seen.word != "failed" else {}
            if conf in found and not plugstack.has_line(found.get(path), self.inventory):
                lacking.append(seen.host)
            elif found.get(protocol.OUTPUT, b"").strip() == b"stale":
                stale.append(seen.host)
        said = []
        if lacking:
            wanted = plugstack.line(self.inventory)
            said.append(f"{fold(lacking)}: {path} lacks this line; add it, or say deploy --enable: {wanted}")
        if stale:
            said.append(_RESTART.format(hosts=fold(stale)))
        return said

    def hooked(self, hosts: Sequence[str]) -> list[str]:
        """Return those of `hosts` that have the hooks of an earlier roll-out, which a plugin's would take away."""
        hooks = [path for name, path in slurm_conf.ours(self.inventory).items() if name in slurm_conf.HOOKS]
        seen = self._ask(hosts, protocol.reading(hooks, self.fleet.token))
        return [one.host for one in seen if one.answer and not one.answer.contents.keys().isdisjoint(hooks)]

    @property
    def _files(self) -> tuple[str, str]:
        return f"{self.inventory.slurm_directory}/slurm.conf", plugstack.file(self.inventory)

    def _ask(self, hosts: Sequence[str], message: bytes) -> Sequence[HostOutcome]:
        return self.fleet.ask(dict.fromkeys(hosts, message)).hosts

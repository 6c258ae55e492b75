"""Our lines in slurm.conf, on every host that has one: looked at, put in, taken out again. Connects.

A file is fetched, changed by a pure function and put back only if it is still what was fetched.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from hpcproxy import slurmconf, wire
from hpcproxy.deploy import Fleet, Reply
from hpcproxy.errors import BlockError
from hpcproxy.inventory import Inventory, expand
from hpcproxy.outcome import HostOutcome, Outcomes, judge


@dataclass(frozen=True)
class Switch:
    """Who is asked, what about, and how many at once."""

    fleet: Fleet
    inventory: Inventory
    token: str
    fanout: int

    @property
    def controllers(self) -> tuple[str, ...]:
        """The hosts of slurmctld, the main one first."""
        return expand(self.inventory.controllers) if self.inventory.controllers else ()

    @property
    def _files(self) -> tuple[str, str]:
        directory = self.inventory.slurm_directory
        return f"{directory}/slurm.conf", f"{directory}/{slurmconf.INCLUDED}"

    def running(self, host: str) -> dict[str, tuple[str, ...]] | None:
        """Return Slurm's running configuration as `host` sees it; None if it cannot be asked there."""
        message = wire.reading((), self.token, slurmconf.SHOW_CONFIG)
        (reply,) = self._ask({host: message})
        return read(reply.answer)

    def on(self, hosts: Sequence[str]) -> Outcomes:
        """Every host that has a slurm.conf includes our lines, and the daemons have read them.

        What stands in the way is the failure of the first controller: what became of the hosts before is told too.
        """
        running = self.running(self.controllers[0])
        if running is None:
            return self._not_enabled("it does not answer `scontrol show config`")
        obstacles = slurmconf.in_the_way(running, self.inventory)
        if obstacles:
            return self._not_enabled("; ".join(obstacles))

        def included(conf: bytes, before: bytes | None) -> bytes:
            own = slurmconf.disable(conf, self.inventory)
            return slurmconf.included_file(self.inventory, slurmconf.flags_for(running, own, before))

        # What is included must be there before it is.
        return self._change(hosts, lambda text: slurmconf.enable(text, self.inventory), included, reverse=True)

    def _not_enabled(self, cause: str) -> Outcomes:
        return Outcomes((HostOutcome(self.controllers[0], "failed", f"nothing was enabled: {cause}"),))

    def off(self, hosts: Sequence[str]) -> Outcomes:
        """No slurm.conf includes our lines, and the daemons know."""
        return self._change(
            hosts, lambda text: slurmconf.disable(text, self.inventory), lambda _conf, _before: None, reverse=False
        )

    def _change(
        self,
        nodes: Sequence[str],
        change: Callable[[bytes], bytes],
        included: Callable[[bytes, bytes | None], bytes | None],
        *,
        reverse: bool,
    ) -> Outcomes:
        hosts = tuple(dict.fromkeys((*self.controllers, *nodes)))
        conf, extra = self._files
        read = self._ask(dict.fromkeys(hosts, wire.reading((conf, extra), self.token)))
        messages, outcomes = {}, []
        for reply in read:
            before = reply.answer.contents if reply.answer else {}
            if reply.answer is None or reply.answer.word == "failed" or conf not in before:
                outcomes.append(_no_file(reply))
                continue
            try:
                edits = [
                    wire.Edit(conf, before[conf], change(before[conf])),
                    wire.Edit(extra, before.get(extra), included(before[conf], before.get(extra))),
                ]
            except BlockError as error:
                outcomes.append(HostOutcome(reply.host, "failed", str(error)))
                continue
            messages[reply.host] = wire.editing(edits[::-1] if reverse else edits, self.token)
        outcomes += [judge(reply.host, reply.answer, reply.trouble, reply.seconds) for reply in self._ask(messages)]
        done = Outcomes(tuple(outcomes))
        if done.good and any(host.word == "changed" for host in outcomes):
            done = done.joined(self._reconfigure())
        return done

    def _reconfigure(self) -> Outcomes:
        message = wire.reading((), self.token, slurmconf.RECONFIGURE)
        replies = self._ask({self.controllers[0]: message})
        return Outcomes(tuple(judge(reply.host, reply.answer, reply.trouble, reply.seconds) for reply in replies))

    def _ask(self, messages: dict[str, bytes]) -> list[Reply]:
        return self.fleet.ask(messages, self.token, self.fanout, _unheard)


def read(answer: wire.Answer | None) -> dict[str, tuple[str, ...]] | None:
    """Return the running configuration of which `answer` tells; None if it does not."""
    if answer is None or answer.word == "failed" or wire.OUTPUT not in answer.contents:
        return None
    return dict(slurmconf.parse(answer.contents[wire.OUTPUT].decode(errors="replace")))


def _no_file(reply: Reply) -> HostOutcome:
    """Return the outcome of a host whose slurm.conf could not be had; one that has none (configless) is right."""
    if reply.answer is not None and reply.answer.word != "failed":
        return HostOutcome(reply.host, "unchanged", "", reply.answer, reply.seconds)
    return judge(reply.host, reply.answer, reply.trouble, reply.seconds)


def _unheard(_reply: Reply) -> None:
    return None

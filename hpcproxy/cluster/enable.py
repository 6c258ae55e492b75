"""Our lines in slurm.conf, on every host that has one: looked at, put in, taken out again. Connects.

A file is fetched, changed by a pure function, tried by Slurm, and put in place only if it is still what was fetched;
what cannot be everywhere is taken back. What counts is what the daemons say that they run with, not what files say.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hpcproxy.cluster import governed, protocol, slurm_conf
from hpcproxy.cluster.fan_out import Fleet
from hpcproxy.cluster.inventory import Inventory, expand, fold
from hpcproxy.cluster.outcome import HostOutcome, Outcomes
from hpcproxy.errors import BlockError
from hpcproxy.files.plan import Artifact, Plan
from hpcproxy.files.render import render

_CONFIRM_S, _LOOK_AGAIN_S = 10.0, 0.5
_READ_S = 25  # slurmd may wait 20 s before it reads slurm.conf (templates/lib/host/heard.sh)
_ASK_S = 10  # a Slurm that does not answer must not look like a host that does not
_TRIAL = (
    "show",
    "hostnames",
    "localhost",
)  # reads slurm.conf, asks nobody (tried on 22.05; `slurmd -C` takes anything)


@dataclass(frozen=True)
class Slurm:
    """What slurmctld says: how it runs, and of which nodes it knows."""

    running: slurm_conf.Running
    nodes: tuple[governed.Node, ...]
    reads_ours: bool  # whether its slurm.conf is the file that we would change


def scontrol(inventory: Inventory, *arguments: str, seconds: float = _ASK_S) -> tuple[str, ...]:
    """Return the command that runs scontrol on a host, from where the site has it, for at most `seconds`."""
    values = {"slurm_bin": str(inventory.slurm_bin or ""), "seconds": f"{seconds:g}"}
    artifact = Artifact("scontrol", "deploy/scontrol.sh.j2", Path("scontrol"), 0o700, "")
    script = render(Plan((artifact,), values, {})).files[0].content.decode()
    return ("/bin/bash", "-p", "-c", script, "scontrol", *arguments)


@dataclass(frozen=True)
class Enablement:
    """Who is asked, and what about."""

    fleet: Fleet
    inventory: Inventory

    @property
    def controllers(self) -> tuple[str, ...]:
        """The hosts of slurmctld, the main one first."""
        return expand(self.inventory.controllers) if self.inventory.controllers else ()

    @property
    def _files(self) -> tuple[str, str]:
        directory = self.inventory.slurm_directory
        return f"{directory}/slurm.conf", f"{directory}/{slurm_conf.INCLUDED}"

    def running(self, host: str) -> slurm_conf.Running | str:
        """Return Slurm's running configuration as `host` sees it; or why it cannot be asked there, in words."""
        said = self._say(host, "show", "config")
        return said if isinstance(said, str) else slurm_conf.parse(said.decode(errors="replace"))

    def slurm(self, host: str, running: slurm_conf.Running | str | None = None) -> Slurm | str:
        """Return what slurmctld says to `host`; or why it says nothing, in words. `running`: that is known already."""
        if running is None:
            running = self.running(host)
        if isinstance(running, str):
            return running
        listed, partitions = (self._say(host, *words) for words in (governed.SHOW_NODES, governed.SHOW_PARTITIONS))
        if isinstance(listed, str) or isinstance(partitions, str):
            return listed if isinstance(listed, str) else str(partitions)
        nodes = governed.parse(listed.decode(errors="replace"), partitions.decode(errors="replace"))
        return Slurm(running, tuple(nodes), self._reads_ours(host, running))

    def _reads_ours(self, host: str, running: slurm_conf.Running) -> bool:
        """Whether what slurmctld reads and what we change is one file on `host`, under whatever names."""
        ours = self._files[0]
        for path in running.get("SLURM_CONF", ()):
            command = ("/bin/bash", "-p", "-c", '[[ "$1" -ef "$2" ]]', "same", path, ours)
            (reply,) = self._ask({host: protocol.reading((), self.fleet.token, command)}) if path != ours else (None,)
            if reply is not None and (reply.answer is None or reply.word == "failed"):
                return False
        return True

    def about_to_run(self, host: str) -> tuple[list[str], slurm_conf.Running | None]:
        """Return the site's lines that would run our hooks on `host`, where none is yet; how Slurm runs, if it says."""
        files = [path for name, path in slurm_conf.ours(self.inventory).items() if name in slurm_conf.HOOKS]
        command = scontrol(self.inventory, "show", "config")
        (reply,) = self._ask({host: protocol.reading(files, self.fleet.token, command)})
        running = _read(reply.answer)
        if reply.answer is None or running is None or any(path in reply.answer.contents for path in files):
            return [], running
        live = slurm_conf.live(running, self.inventory)
        others = slurm_conf.scripts(running)
        if others and not live:
            (reply,) = self._ask({host: protocol.reading(others, self.fleet.token)})
            live = slurm_conf.runners(running, reply.answer.contents if reply.answer else {}, self.inventory)
        return live, running

    def on(self, hosts: Sequence[str], running: slurm_conf.Running) -> Outcomes:
        """Every host that has a slurm.conf says our lines, and slurmctld runs with them; else nothing has changed."""

        def change(conf: bytes, included: bytes | None) -> bytes:
            return slurm_conf.enable(conf, self.inventory, running, included)

        lacking = lambda running: slurm_conf.missing(running, self.inventory)  # noqa: E731 - two of a kind
        return self._turn(hosts, change, lacking, "does not say", undo=True)

    def off(self, hosts: Sequence[str]) -> Outcomes:
        """No slurm.conf says our lines, and the daemons know."""

        def change(conf: bytes, _included: bytes | None) -> bytes:
            return slurm_conf.disable(conf, self.inventory)

        main = self.controllers[0]
        said = self.running(main)
        if isinstance(said, str):  # before anything is changed: what nobody can be told must stay as it is
            return _failed(main, f"slurm.conf is left as it is, for whether Slurm has read it cannot be known: {said}")
        return self._turn(hosts, change, lambda running: slurm_conf.named(running, self.inventory), "still says")

    def _turn(
        self,
        nodes: Sequence[str],
        change: Callable[[bytes, bytes | None], bytes],
        lacking: Callable[[slurm_conf.Running], list[str]],
        verb: str,
        *,
        undo: bool = False,
    ) -> Outcomes:
        conf, extra = self._files
        hosts = tuple(dict.fromkeys((*self.controllers, *nodes)))
        edits: dict[str, protocol.Edit] = {}
        stale: dict[str, bytes] = {}
        outcomes = []
        for reply in self._ask(dict.fromkeys(hosts, protocol.reading((conf, extra), self.fleet.token))):
            before = reply.answer.contents if reply.answer else {}
            if reply.answer is None or reply.word == "failed" or conf not in before:
                outcomes.append(self._no_file(reply))
                continue
            try:
                edits[reply.host] = protocol.Edit(conf, before[conf], change(before[conf], before.get(extra)))
            except BlockError as error:
                outcomes.append(HostOutcome(reply.host, "failed", str(error)))
            if extra in before:
                stale[reply.host] = before[extra]
        if not Outcomes(tuple(outcomes)).good:
            return self._left_alone(outcomes, edits)
        trial = scontrol(self.inventory, *_TRIAL)
        messages = {host: protocol.editing((edit,), self.fleet.token, trial=trial) for host, edit in edits.items()}
        written = self._ask(messages)
        done = Outcomes((*outcomes, *written))
        if not done.good:
            return self._taken_back(done, edits, f"{fold(done.failed)} could not be changed")
        told = self._tell(lacking, verb, changed=any(host.word == "changed" for host in done.hosts))
        if not told.good:
            return told.merged(self._withdrawn(done, edits) if undo else done)
        done = done.merged(told)
        if any(host.word == "changed" for host in done.hosts):
            done = done.merged(self._heard(written))
        return done.merged(self._unincluded(stale)) if done.good else done

    def _no_file(self, reply: HostOutcome) -> HostOutcome:
        """Return the outcome of a host without a slurm.conf that could be had; a node that has none is right."""
        if reply.answer is None or reply.word == "failed":
            return reply
        if reply.host in self.controllers:
            cause = f"{self._files[0]} is not there; say where slurm.conf is with `slurm_directory`"
            return HostOutcome(reply.host, "failed", cause)
        return HostOutcome(reply.host, "unchanged", "", reply.answer, reply.seconds)

    def _left_alone(self, outcomes: Sequence[HostOutcome], edits: Mapping[str, protocol.Edit]) -> Outcomes:
        bad = Outcomes(tuple(outcomes)).failed
        cause = f"slurm.conf is left as it is here, for {fold(bad)} cannot be changed"
        return Outcomes(tuple(outcomes)).skipping(list(edits), cause)

    def _withdrawn(self, done: Outcomes, edits: Mapping[str, protocol.Edit]) -> Outcomes:
        """No slurm.conf says what slurmctld does not run with, and no slurmd runs with it: jobs would fail of that."""
        undone = self._taken_back(done, edits, "slurmctld does not run with it")
        self._say(self.controllers[0], *slurm_conf.RECONFIGURE)
        return undone

    def _taken_back(self, done: Outcomes, edits: Mapping[str, protocol.Edit], why: str) -> Outcomes:
        """Every slurm.conf that was changed is as before."""
        changed = [host.host for host in done.hosts if host.word == "changed"]
        back = {host: protocol.Edit(edits[host].path, edits[host].after, edits[host].before) for host in changed}
        replies = self._ask({host: protocol.editing((edit,), self.fleet.token) for host, edit in back.items()})
        cause = f"slurm.conf is as before here, for {why}"
        undone = [
            HostOutcome(host.host, "skipped", cause) if host.word in ("changed", "unchanged") else host
            for host in replies
        ]
        return Outcomes((*(host for host in done.hosts if host.host not in changed), *undone))

    def _tell(self, lacking: Callable[[slurm_conf.Running], list[str]], verb: str, *, changed: bool) -> Outcomes:
        """Slurmctld runs with what slurm.conf says now: told to read it if need be, and asked whether it has."""
        main = self.controllers[0]
        told = False
        deadline = time.monotonic() + _CONFIRM_S
        while True:
            running = self.running(main)
            if isinstance(running, str):
                return _failed(main, f"whether Slurm has read slurm.conf cannot be known: {running}")
            wrong = lacking(running)
            if not wrong and (told or not changed):
                return Outcomes((HostOutcome(main, "changed" if told else "unchanged"),))
            if not told:
                told = True
                said = self._say(main, *slurm_conf.RECONFIGURE)
                if isinstance(said, str):
                    return _failed(main, f"slurm.conf is changed, and Slurm was not told: scontrol reconfigure: {said}")
                continue
            if time.monotonic() > deadline:
                where = ", ".join(running.get("SLURM_CONF", ("another file",)))
                return _failed(
                    main, f"slurmctld {verb} {', '.join(wrong)} after `scontrol reconfigure`; it reads {where}"
                )
            time.sleep(_LOOK_AGAIN_S)

    def _heard(self, written: Sequence[HostOutcome]) -> Outcomes:
        """The slurmd of every host has read its slurm.conf since that was written."""
        clocks = {reply.host: reply.answer.facts.get("clock", "0") for reply in written if reply.answer and reply.host}
        messages = {
            host: protocol.reading((), self.fleet.token, wait_for_slurmd(self.inventory, clock))
            for host, clock in clocks.items()
        }
        return Outcomes(
            tuple(
                reply
                if reply.answer is None or reply.word != "failed"
                else HostOutcome(reply.host, "failed", f"slurmd has not read slurm.conf anew: {_last(reply.cause)}")
                for reply in self._ask(messages)
            )
        )

    def _unincluded(self, stale: Mapping[str, bytes]) -> Outcomes:
        """What an earlier version let slurm.conf include is gone, now that nothing includes it."""
        messages = {
            host: protocol.editing((protocol.Edit(self._files[1], text, None),), self.fleet.token)
            for host, text in stale.items()
        }
        return self.fleet.ask(messages)

    def _say(self, host: str, *arguments: str) -> bytes | str:
        """Return what scontrol prints on `host`, or why it prints nothing."""
        (reply,) = self._ask({host: protocol.reading((), self.fleet.token, scontrol(self.inventory, *arguments))})
        if reply.answer is None:
            return reply.cause
        if reply.word == "failed" or protocol.OUTPUT not in reply.answer.contents:
            return _last(reply.cause)
        return reply.answer.contents[protocol.OUTPUT]

    def _ask(self, messages: Mapping[str, bytes]) -> tuple[HostOutcome, ...]:
        return self.fleet.ask(messages).hosts


def _read(answer: protocol.Answer | None) -> slurm_conf.Running | None:
    """Return the running configuration of which `answer` tells; None if it does not."""
    if answer is None or answer.word == "failed" or protocol.OUTPUT not in answer.contents:
        return None
    return slurm_conf.parse(answer.contents[protocol.OUTPUT].decode(errors="replace"))


def wait_for_slurmd(inventory: Inventory, since: str) -> tuple[str, ...]:
    """Return the command that waits until the slurmd here has read slurm.conf, at `since` or later."""
    values = {"slurm_bin": str(inventory.slurm_bin or ""), "seconds": str(_READ_S), "since": since}
    artifact = Artifact("heard", "deploy/heard.sh.j2", Path("heard"), 0o700, "")
    script = render(Plan((artifact,), values, {})).files[0].content.decode()
    return ("/bin/bash", "-p", "-c", script, "heard")


def _last(cause: str) -> str:
    return cause.rpartition("\n")[2]


def _failed(host: str, cause: str) -> Outcomes:
    return Outcomes((HostOutcome(host, "failed", cause),))

"""A roll-out by another way than the one before: what Slurm runs stays, and a plugin that goes is named nowhere."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import cast

import pytest

from hpcproxy.cluster import plugstack, protocol, verbs
from hpcproxy.cluster.fan_out import Fleet
from hpcproxy.cluster.outcome import HostOutcome, OnHost, Outcomes, judge, unheard
from hpcproxy.cluster.run import Request, Run, read_site
from hpcproxy.config.places import PROGRAMS
from hpcproxy.files.plan import EPILOG, PLUGIN, PROLOG, TASK_PROLOG, Artifact
from hpcproxy.files.render import Bundle, File
from tests.cluster.host import ME, TOKEN, Host
from tests.cluster.test_remove import UNABLE, says, slurm

LINE = f"optional {PROGRAMS / PLUGIN}\n".encode()


def hooks(host: Host, etc: str, text: str = "1") -> Bundle:
    """Our three scripts, for a Slurm whose files are in `etc`."""
    paths = {
        TASK_PROLOG: host.root / "lib/taskprolog",
        EPILOG: host.root / etc / "epilog.d/50-hpcproxy",
        PROLOG: host.root / etc / "prolog.d/50-hpcproxy",
    }
    content = f"#!/bin/sh\n# {text}\n".encode()
    return Bundle(tuple(File(Artifact(name, "t", path, 0o755, "", ME), content) for name, path in paths.items()))


def do(host: Host, action: str, bundle: Bundle, *, unplugged: bool = False) -> protocol.Answer:
    place = protocol.SlurmPlace(str(host.root / "bin"), str(host.root / "etc/slurm.conf"), unplugged=unplugged)
    return host.talk(protocol.message(bundle, action, TOKEN, slurm=place))


@pytest.mark.parametrize("action", ["apply", "rollback", "remove"])
def test_hooks_that_slurm_runs_do_not_go_with_a_change_of_the_inventory(host: Host, action: str) -> None:
    """`slurm_directory` is another now, or `via`: the lines that name the old ones are to go first."""
    says(host)
    assert do(host, "apply", hooks(host, "etc")).word == "changed"
    wanted = hooks(host, "opt", "2")
    if action == "rollback":
        assert do(host, "apply", wanted).word == "changed"
    old = host.root / ("opt" if action == "rollback" else "etc") / "prolog.d/50-hpcproxy"
    says(host, f"Prolog = {old}")
    answer = do(host, action, wanted)
    assert answer.word == "failed"
    assert answer.text.startswith(f"slurm.conf still says Prolog={old}")
    assert old.exists()
    slurm(host, UNABLE)
    assert "cannot be known, so they stay" in do(host, action, wanted).text
    says(host, "Prolog = (null)")
    assert do(host, action, wanted).word == "changed"
    assert not old.exists()


@pytest.mark.parametrize("action", ["apply", "rollback"])
def test_a_plugin_goes_when_its_line_has_gone(host: Host, monkeypatch: pytest.MonkeyPatch, action: str) -> None:
    says(host)
    monkeypatch.setattr(protocol, "PROGRAMS", host.root / "lib")
    plugin = File(Artifact(PLUGIN, PLUGIN, host.root / "lib" / PLUGIN, 0o644, "", ME), b"ELF")
    with_plugin = Bundle((*hooks(host, "etc").files, plugin))
    versions = [with_plugin, hooks(host, "etc")]
    if action == "rollback":
        versions.reverse()
        assert do(host, "apply", versions.pop(0)).word == "changed"
    assert do(host, "apply", with_plugin).word == "changed"
    answer = do(host, action, versions[-1])
    assert (answer.word, answer.facts["plugged"]) == ("failed", str(plugin.artifact.path))
    assert plugin.artifact.path.exists()
    assert do(host, action, versions[-1], unplugged=True).word == "changed"
    assert not plugin.artifact.path.exists()


class Hosts:
    """Stands for hosts of which `c1` has the plugin's line in its plugstack.conf; `steps`: who was asked for what."""

    def __init__(self, path: str, text: bytes) -> None:
        self.path, self.text = path, text
        self.steps: list[str] = []
        self.token = TOKEN

    def ask(self, messages: dict[str, bytes], on_host: OnHost = unheard) -> Outcomes:
        if not messages:
            return Outcomes(())
        replies = [judge(name, self._answer(name, message)) for name, message in messages.items()]
        verb = next(self._verb(message) for message in messages.values())
        facts = sum(b"hpcproxy_facts=1; " in message for message in messages.values())
        self.steps.append(f"{verb} {'+'.join(messages)}{' facts' * facts}")
        if verb == "apply":
            for reply in replies:
                on_host(reply)
        return Outcomes(tuple(replies))

    def _verb(self, message: bytes) -> str:
        if b"unplugged=" in message:
            return "apply"
        return "read" if b"    look\n" in message else "edit"

    def _answer(self, name: str, message: bytes) -> protocol.Answer:
        verb = self._verb(message)
        if verb == "read":
            conf = str(Path(self.path).parent / "slurm.conf")
            return protocol.Answer("unchanged", contents={self.path: self.text, conf: b"x\n"})
        if verb == "apply" and name == "c1" and b"unplugged=1" not in message:
            return protocol.Answer("failed", "it stays", facts={"plugged": "/p"})
        return protocol.Answer("changed")


def begin(tmp_path: Path, *, ours: bool = True) -> tuple[Run, Hosts]:
    (tmp_path / "site.yaml").write_text("nodes: c[1-2]\ncontrollers: ctl\nsettings: {jump: j}\n")
    (tmp_path / "known_hosts").write_text("j ssh-ed25519 AAAA\n")
    request = Request(tmp_path / "site.yaml")
    site = read_site(request)
    text = plugstack.put(b"required /x.so\n", site.inventory) if ours else b"# x\n" + LINE
    hosts = Hosts(plugstack.file(site.inventory), text)
    return Run(site, request, cast("Fleet", hosts)), hosts


@pytest.mark.parametrize("written_by", ["us", "somebody"])
def test_its_line_is_taken_out_first_and_one_that_is_somebodys_is_named(tmp_path: Path, written_by: str) -> None:
    """One run: the hosts that are in the way are asked for their plugstack.conf, and then once more, for all."""
    run, hosts = begin(tmp_path, ours=written_by == "us")
    said: list[HostOutcome] = []
    outcomes = run.act("apply", run.site.hosts, said.append)
    assert sorted(said, key=lambda one: one.host) == list(outcomes.hosts)
    if written_by == "us":
        assert hosts.steps == ["apply c1+c2 facts", "read c1+c2+ctl", "edit c1+c2+ctl", "apply c1 facts"]
        assert {host.word for host in outcomes.hosts} == {"changed"}
    else:
        assert hosts.steps == ["apply c1+c2 facts", "read c1+c2+ctl"]
        assert outcomes.hosts[0].word == "failed"
        named = f"c1: {hosts.path} names the plugin by a line that is not ours; take it out"
        assert named in outcomes.hosts[0].cause


def test_while_a_canary_is_on_trial_no_other_host_loses_its_line(tmp_path: Path) -> None:
    run, hosts = begin(tmp_path)
    run.act("apply", ["c1"], lambda _outcome: None, on_trial=True)
    assert hosts.steps == ["apply c1 facts", "read c1", "edit c1", "apply c1 facts"]


def test_a_canary_is_on_trial_and_the_rest_is_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, _hosts = begin(tmp_path)
    acts: list[tuple[str, list[str], bool]] = []

    def act(_run: Run, action: str, hosts: tuple[str, ...], _hear: object, **told: object) -> Outcomes:
        acts.append((action, list(hosts), bool(told.get("on_trial"))))
        return Outcomes(tuple(HostOutcome(name, "unchanged") for name in hosts))

    monkeypatch.setattr(Run, "act", act)
    verbs.roll_out(run, verbs.Before(), lambda _outcome: None, canary=1)
    assert acts == [("apply", ["c1"], True), ("look", ["c1"], False), ("apply", ["c2"], False)]


@pytest.mark.parametrize("address", ["0.0.0.0", "::", "127.0.0.1"])
def test_a_stranger_at_the_port_of_tunnels_is_named(host: Host, address: str) -> None:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.create_server((address, 0), family=family) as stranger:
        port = stranger.getsockname()[1]
        answer = host.talk(protocol.message(hooks(host, "etc"), "look", TOKEN, slurm=protocol.SlurmPlace(port=port)))
    said = f"port {port} is uid {os.getuid()}'s at all addresses"
    assert answer.facts.get("taken") == (None if address == "127.0.0.1" else said)


@pytest.mark.parametrize("text", [LINE, b"required\t/usr/libexec/hpcproxy/spank_hpcproxy.so option home=/x # ours\n"])
def test_any_line_that_names_the_plugin_is_known(text: bytes) -> None:
    assert plugstack.names_plugin(b"include /etc/x\n" + text)
    assert not plugstack.names_plugin(b"# " + text)
    assert not plugstack.names_plugin(None)

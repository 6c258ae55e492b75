"""One directory that several hosts have, directories that cannot be written, and a record that is lost."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import cast

import pytest

from hpcproxy.cluster import protocol
from hpcproxy.cluster.fan_out import Fleet
from hpcproxy.cluster.outcome import HostOutcome, OnHost, Outcomes, judge, unheard
from hpcproxy.cluster.run import Request, Run, read_site
from hpcproxy.config.places import PROGRAMS
from hpcproxy.files.plan import Artifact
from hpcproxy.files.render import Bundle, File, render
from tests.cluster import cases
from tests.cluster.host import ME, TOKEN, Host
from tests.snapshot import tree
from tests.sshd import make_key

RENAMED = b'why=$(exec mv -f -t "${directories[number]}"'
MARK = "# hpcproxy hook: rendered from the inventory; a change belongs there, not here.\n"


class Several:
    """Hosts with a store and programs of their own, and hooks in a directory that all have."""

    def __init__(self, host: Host, count: int) -> None:
        self.host, self.names = host, [f"n{number}" for number in range(count)]

    def bundle(self, name: str, text: str) -> Bundle:
        etc, own = self.host.root / "etc/slurm.d", self.host.root / name / "lib"
        places = {"one": etc / "50-one", "two": etc / "50-two", "program": own / "program"}
        return Bundle(
            tuple(
                File(Artifact(each, "t", path, 0o644, "", ME), f"{MARK}{text}\n".encode())
                for each, path in places.items()
            )
        )

    def place(self, name: str) -> protocol.Place:
        return protocol.Place(self.host.root / name / "store", self.host.root / f"{name}.lock")

    def one(self, name: str, action: str, text: str) -> protocol.Answer:
        return self.host.talk(protocol.message(self.bundle(name, text), action, TOKEN, place=self.place(name)))

    def all(self, action: str, text: str) -> set[tuple[str, str]]:
        """What they answer, all at once."""
        with ThreadPoolExecutor(len(self.names)) as pool:
            answers = pool.map(lambda name: self.one(name, action, text), self.names)
            return {(answer.word, answer.text) for answer in answers}


def test_hosts_that_share_a_directory_are_done_side_by_side(host: Host) -> None:
    hosts = Several(host, 6)
    before = tree(host.root / "etc")
    for text in ("1", "2"):
        assert hosts.all("apply", text) <= {("changed", ""), ("unchanged", "")}
        assert hosts.all("look", text) == {("unchanged", "")}
        assert hosts.all("apply", text) == {("unchanged", "")}
        names = sorted(path.name for path in (host.root / "etc").rglob("*"))
        assert names == ["50-one", "50-two", "slurm.d"]
    assert hosts.all("remove", "2") <= {("changed", ""), ("unchanged", "")}
    assert tree(host.root / "etc") == before
    assert hosts.all("remove", "2") == {("unchanged", "")}


@pytest.mark.parametrize("order", ["n0 n1 n2", "n2 n0 n1"])
def test_what_hosts_share_goes_back_with_the_one_that_has_it(host: Host, order: str) -> None:
    """The first to bring the new version has what was there before; for the others it is not theirs to bring back."""
    hosts = Several(host, 3)
    for name in hosts.names:
        assert hosts.one(name, "apply", "1").word == "changed"
    for name in hosts.names:
        assert hosts.one(name, "apply", "2").word == "changed"
    for text in ("1", "2", "1"):
        for name in order.split():
            answer = hosts.one(name, "rollback", text)
            assert (answer.word, answer.text) == ("changed", "")
        for name in hosts.names:
            assert hosts.one(name, "look", text).word == "unchanged", f"{name}, back to {text}"
    assert hosts.all("apply", "3") == {("changed", "")}
    assert hosts.all("rollback", "2") == {("changed", "")}
    assert hosts.all("look", "1") == {("unchanged", "")}
    assert hosts.all("remove", "1") <= {("changed", ""), ("unchanged", "")}
    assert [path for path in (host.root / "etc").rglob("*") if path.is_file()] == []


def test_a_host_that_was_away_when_the_others_changed(host: Host) -> None:
    """Its record is of the version before, and what it finds is not somebody's change."""
    hosts = Several(host, 2)
    hosts.all("apply", "1")
    hosts.one("n0", "apply", "2")
    assert hosts.one("n1", "remove", "2").word == "changed"
    assert not (host.root / "etc/slurm.d/50-one").exists()


@pytest.mark.parametrize("lost", ["store", "store/owned", "store/manifest"])
def test_our_own_files_are_known_without_a_record(host: Host, lost: str) -> None:
    hosts = Several(host, 1)
    hosts.one("n0", "apply", "1")
    gone = host.root / "n0" / lost
    shutil.rmtree(gone) if gone.is_dir() else gone.unlink()
    assert hosts.one("n0", "look", "1").word == "unchanged"
    assert hosts.one("n0", "look", "2").word == "would"
    assert hosts.one("n0", "apply", "2").word == "changed"
    shutil.rmtree(host.root / "n0/store")
    assert hosts.one("n0", "remove", "3").word == "changed"
    left = [path for path in host.root.rglob("*") if path.is_file()]
    assert left == []


def test_a_file_without_the_mark_is_somebodys(host: Host) -> None:
    hosts = Several(host, 1)
    hosts.one("n0", "apply", "1")
    shutil.rmtree(host.root / "n0/store")
    theirs = host.root / "etc/slurm.d/50-one"
    theirs.write_text("#!/bin/sh\n")
    assert "somebody else's file is in the way" in hosts.one("n0", "apply", "2").text
    assert "changed by somebody else and kept" in hosts.one("n0", "remove", "2").text
    assert theirs.read_text() == "#!/bin/sh\n"


def test_a_directory_that_is_a_link_is_written_where_it_leads(host: Host) -> None:
    hosts = Several(host, 1)
    (host.root / "srv/hooks").mkdir(parents=True)
    (host.root / "etc/slurm.d").symlink_to(host.root / "srv/hooks")
    for text in ("1", "2"):
        assert hosts.one("n0", "apply", text).word == "changed"
        assert hosts.one("n0", "look", text).word == "unchanged"
    assert sorted(os.listdir(host.root / "srv")) == ["hooks"]  # noqa: PTH208
    assert hosts.one("n0", "remove", "2").word == "changed"
    assert list((host.root / "srv/hooks").iterdir()) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to mount")
def test_where_all_is_right_no_record_needs_to_be_written(host: Host) -> None:
    hosts = Several(host, 1)
    hosts.one("n0", "apply", "1")
    shutil.rmtree(host.root / "n0/store")
    own = host.root / "n0"
    subprocess.run(["mount", "--bind", "-o", "ro", str(own), str(own)], check=True)
    try:
        assert hosts.one("n0", "apply", "1").word == "unchanged"
    finally:
        subprocess.run(["umount", str(own)], check=True)


@pytest.fixture
def mount(host: Host) -> Path:
    """The shared directory is a file system of its own, where this can be had."""
    place = host.root / "etc/slurm.d"
    place.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "none", str(place)], check=False, capture_output=True).returncode:
        pytest.skip("needs root, to mount")
    return place


def test_a_directory_that_is_a_file_system_and_then_read_only(host: Host, mount: Path) -> None:
    hosts = Several(host, 1)
    try:
        assert hosts.one("n0", "apply", "1").word == "changed"
        assert hosts.one("n0", "apply", "2").word == "changed"
        assert sorted(path.name for path in mount.iterdir()) == ["50-one", "50-two"]
        subprocess.run(["mount", "-o", "remount,ro", str(mount)], check=True)
        assert hosts.one("n0", "apply", "2").word == "unchanged"
        # The hooks are right; what is of this host alone is put back without them.
        (host.root / "n0/lib/program").unlink()
        assert hosts.one("n0", "apply", "2").word == "changed"
        shutil.rmtree(host.root / "n0/store")
        assert hosts.one("n0", "apply", "2").word == "changed"
        answer = hosts.one("n0", "apply", "3")
        assert answer.text == f"{mount} cannot be written"
        assert (host.root / "n0/lib/program").read_text() == f"{MARK}2\n"
    finally:
        subprocess.run(["umount", str(mount)], check=True)


def test_each_file_lies_on_the_mount_of_its_directory_before_it_is_renamed(host: Host, mount: Path) -> None:
    """Also where a roll-out has directories on several, in any order: a copy could be read half written."""
    below = mount / "a.d"
    below.mkdir()
    one, two, three = mount / "one", below / "two", host.root / "lib/three"
    shown = (
        b'stat -c "%%m %%N" -- "${files[@]}" >>%(log)s; stat -c "%%m %%N" -- "${directories[number]}" >>%(log)s; '
        % {b"log": os.fsencode(host.root / "log")}
    )
    try:
        for text, order in enumerate([(one, two, three), (one, two, three), (three, one, two), (three, two, one)]):
            (host.root / "log").write_text("")
            (mount / f".hpcproxy-new.{socket.gethostname()}.17/0").mkdir(parents=True)  # of one that was cut off
            bundle = Bundle(tuple(File(Artifact(path.name, "t", path, 0o644, "", ME), b"%d" % text) for path in order))
            if not text:
                assert host.do("apply", bundle).word == "changed"
                continue
            answer = host.talk(host.altered(bundle, RENAMED, shown))
            assert (answer.word, answer.text) == ("changed", "")
            said = [line.split()[0] for line in (host.root / "log").read_text().splitlines()]
            assert len(said) == 6
            assert said[::2] == said[1::2]
            assert {Path(each) for each in said} >= {mount}
            assert [path.read_bytes() for path in order] == [b"%d" % text] * 3
            assert sorted(path.name for path in mount.iterdir()) == ["a.d", "one"]
            assert [path.name for path in below.iterdir()] == ["two"]
    finally:
        subprocess.run(["umount", str(mount)], check=True)


def test_a_directory_that_only_another_host_may_write(host: Host, mount: Path) -> None:
    """It is named for whoever asks, and once it has been written there is nothing in the way."""
    hosts = Several(host, 2)
    try:
        subprocess.run(["mount", "-o", "remount,ro", str(mount)], check=True)
        answer = hosts.one("n0", "apply", "1")
        assert (answer.word, answer.facts.get("shut")) == ("failed", str(mount))
        subprocess.run(["mount", "-o", "remount,rw", str(mount)], check=True)
        assert hosts.one("n1", "apply", "1").word == "changed"
        subprocess.run(["mount", "-o", "remount,ro", str(mount)], check=True)
        assert hosts.one("n0", "apply", "1").word == "changed"
        answer = hosts.one("n0", "remove", "1")
        assert (answer.word, answer.facts.get("shut")) == ("failed", str(mount))
        subprocess.run(["mount", "-o", "remount,rw", str(mount)], check=True)
        assert hosts.one("n1", "remove", "1").word == "changed"
        subprocess.run(["mount", "-o", "remount,ro", str(mount)], check=True)
        assert hosts.one("n0", "remove", "1").word == "changed"
    finally:
        subprocess.run(["umount", str(mount)], check=True)


@pytest.mark.parametrize("others", ["changed", "failed"])
def test_who_waits_for_another_host_is_asked_once_more(tmp_path: Path, others: str) -> None:
    """One outcome for each host, which is said once; where no host could write it, what to do."""
    asked: list[list[str]] = []

    class Hosts:
        token = TOKEN

        def ask(self, messages: dict[str, bytes], on_host: OnHost = unheard) -> Outcomes:
            if not messages:
                return Outcomes(())
            asked.append(list(messages))
            shut = protocol.Answer("failed", "/x cannot be written", facts={"shut": "/x"})
            first = {"c1": shut, "c2": protocol.Answer(others, "ill" if others == "failed" else "")}
            replies = [
                judge(name, first.get(name) if len(asked) == 1 else protocol.Answer("changed")) for name in messages
            ]
            for reply in replies:
                on_host(reply)
            return Outcomes(tuple(replies))

    (tmp_path / "site.yaml").write_text("nodes: c[1-2]\nsettings: {jump: j}\n")
    (tmp_path / "known_hosts").write_text("j ssh-ed25519 AAAA\n")
    run = Run(read_site(Request(tmp_path / "site.yaml")), Request(tmp_path / "site.yaml"), cast("Fleet", Hosts()))
    said: list[HostOutcome] = []
    outcomes = run.act("apply", run.site.hosts, said.append)
    assert sorted(said, key=lambda one: one.host) == list(outcomes.hosts)
    if others == "changed":
        assert asked == [["c1", "c2"], ["c1"]]
        assert {host.word for host in outcomes.hosts} == {"changed"}
    else:
        assert asked == [["c1", "c2"]]
        cause = "/x cannot be written; where hosts share it, one that may write it must be among `nodes` too"
        assert outcomes.hosts[0].cause == cause


def test_every_file_of_a_roll_out_says_whose_it_is(tmp_path: Path) -> None:
    """Also those that Slurm, ssh and shells read; a key with the mark behind its end is a key."""
    for told in cases.combinations():
        for file in render(told).files:
            inside = file.artifact.path.is_relative_to(PROGRAMS)
            assert inside or re.search(rb"hpcproxy.*a change belongs", file.content), file.artifact.path
    told = cases.plan(mode="service", service_key="/root/key", settings={"jump": "j", "allow": ["internet.test"]})
    key = next(artifact for artifact in told.artifacts if artifact.secret)
    mark = told.texts[key.source].removeprefix(b"key")
    made = make_key(tmp_path / "id")
    made.write_bytes(made.read_bytes().rstrip(b"\n") + mark)
    shown = subprocess.run(["ssh-keygen", "-y", "-f", str(made)], check=True, capture_output=True, text=True).stdout
    assert shown.split()[:2] == (tmp_path / "id.pub").read_text().split()[:2]

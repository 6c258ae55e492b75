"""A deployment to hosts by the dozen, some of them ill: a network namespace, one sshd, no Slurm."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from .crowd import Crowd, crowd
from .researcher import until

pytestmark = pytest.mark.lab
COUNT = 64
DROP_IN = "etc/slurm/prolog.d/50-hpcproxy"
HOLE = """ip address del 10.99.0.2/32 dev lo
ip link add hole type veth peer name void
ip link set hole up
ip link set void up
ip route add 10.99.0.2/32 dev hole
ip neighbour add 10.99.0.2 lladdr 02:00:00:00:00:02 dev hole nud permanent
"""
# Accepts, says nothing, and notes when the other end has had enough.
SILENT = """
import pathlib, socket, sys
client, _ = socket.create_server(("10.99.0.3", 22)).accept()
while client.recv(4096):
    pass
pathlib.Path(sys.argv[1]).touch()
"""


@pytest.fixture(scope="module")
def people(lab_host: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Crowd]:
    with crowd(tmp_path_factory.mktemp("crowd"), COUNT) as found:
        # Packets to the second host go nowhere.
        found.run("sh", "-ec", HOLE)
        yield found


@pytest.fixture
def many(people: Crowd) -> Iterator[Crowd]:
    people.empty()
    people.describe()
    with people.listening(people.hosts[3:]):
        yield people


def test_three_bad_hosts_among_64_keep_no_other_waiting(many: Crowd) -> None:
    """They come first, and others are done before two of them are given up; each has one line, the 61 have one."""
    refused, hole, silent, *rest = many.hosts
    given_up = many.work / "given-up"
    with many.serving([sys.executable, "-c", SILENT, str(given_up)]):
        outcomes = many.outcomes("deploy", "--fanout", "8", "--timeout", "12")
        until(given_up.exists, "the silent one has been given up")
    assert {host: outcomes.pop(host) for host in (refused, hole, silent)} == {
        refused: ("unreached", "nothing listens at its ssh port"),
        hole: ("unreached", "does not answer within 12 s"),
        silent: ("unreached", "accepts connections and stays silent for 12 s"),
    }
    assert outcomes == dict.fromkeys(rest, ("changed", ""))
    done_s = [(many.store / host / "up/var/lib/hpcproxy/manifest").stat().st_ctime for host in rest]
    # If they waited for each other, the six beside the two in the first eight would be all.
    assert sum(moment_s < given_up.stat().st_mtime for moment_s in done_s) > 8
    for host in (refused, hole, silent):
        (line,) = [line for line in many.said.splitlines() if line.startswith(f"{host}: ")]
    (line,) = [line for line in many.said.splitlines() if line.startswith("changed ")]
    assert line.split() == ["changed", "61", "10.99.0.[4-64]"]
    again = many.outcomes("deploy", "--limit", "@failed", "--timeout", "1")
    assert set(again) == {refused, hole, silent}


def test_a_canary_that_is_not_right_stops_the_rest(many: Crowd) -> None:
    many.describe(nodes="10.99.0.[4-9]")
    first, second, *rest = many.hosts[3:9]
    theirs = many.store / first / "up" / DROP_IN
    theirs.parent.mkdir(parents=True)
    theirs.write_text("#!/bin/sh\n# the site's own\n")
    outcomes = many.outcomes("deploy", "--canary", "2")
    assert outcomes == {
        first: ("failed", f"somebody else's file is in the way, kept as it is: /{DROP_IN}"),
        second: ("changed", ""),
        **dict.fromkeys(rest, ("skipped", "left alone: the first hosts are not right")),
    }
    assert "left alone: the first hosts are not right" in many.said
    assert [many.files(host) for host in rest] == [[]] * len(rest)
    theirs.unlink()
    # Those that were left alone are picked up together with the one that failed.
    assert many.outcomes("deploy", "--limit", "@failed", "--canary", "1") == dict.fromkeys(
        (first, *rest), ("changed", "")
    )
    assert all(DROP_IN in many.files(host) for host in rest)


def test_hosts_behind_a_gateway_are_reached_through_it_by_one_login(many: Crowd) -> None:
    many.describe(nodes="10.99.0.[4-9]", gateway="root@10.99.1.1:2222")
    known = many.work / "known_hosts"
    before = known.read_text()
    outcomes = many.outcomes("deploy", "--timeout", "5")
    cause = "behind the gateway root@10.99.1.1:2222, which nothing listens at its ssh port"
    assert set(outcomes.values()) == {("unreached", cause)}
    assert [many.files(host) for host in many.hosts[3:9]] == [[]] * 6
    with many.listening(("10.99.1.1",), 2222, "LogLevel DEBUG1\n"):
        known.write_text("".join(line for line in before.splitlines(keepends=True) if "10.99.0." not in line))
        done = many.hpcproxy("trust", "--yes", "--timeout", "5")
        assert known.read_text().count("10.99.0.") == 6, done.stderr
        assert set(many.outcomes("deploy").values()) == {("changed", "")}
        log = (many.work / "log-2222").read_text()
    known.write_text(before)
    for host in many.hosts[3:9]:
        assert f"target {host} port 22" in log
    assert log.count("Accepted publickey for root") == 2, "one for trust, one for deploy"


def test_a_wrong_clock_is_told_with_its_host(many: Crowd) -> None:
    many.describe(nodes="10.99.0.[4-6]")
    many.outcomes("deploy")
    # No clock can be set for one of them: its answer is that of a host whose clock stands at the year 2001. In as many
    # bytes as before, for so many are taken as the script.
    told = "printf -v version '%(%s)T' -1"
    false = "version=1000000000".ljust(len(told))
    many.before_each_session("10.99.0.5", f"""exec < <(LC_ALL=C sed "s/{told}/{false}/")""")
    assert set(many.outcomes("verify").values()) == {("unchanged", "")}
    (line,) = [line for line in many.said.splitlines() if "clock" in line]
    assert line == "hpcproxy: 10.99.0.5: the clock is wrong by more than a minute: TLS may fail in jobs"


def test_the_screen_has_each_distinct_change_once(many: Crowd) -> None:
    many.describe(nodes="10.99.0.[4-7]")
    many.outcomes("deploy")
    Path(many.store / "10.99.0.5/up/etc/hpcproxy/config.yaml").write_text("mine\n")
    shown = many.hpcproxy("deploy", "--dry-run", "--diff").stdout
    assert "change /etc/hpcproxy/config.yaml on 10.99.0.5\n" in shown
    assert "\n-mine\n" in shown
    assert [line.split() for line in shown.splitlines()[-2:]] == [
        ["unchanged", "3", "10.99.0.[4,6-7]"],
        ["would", "change", "1", "10.99.0.5"],
    ]


def test_a_key_of_another_kind_than_the_known_one_is_a_change(many: Crowd) -> None:
    """A stranger in the middle chooses which kind of key to show."""
    many.describe(nodes="10.99.0.[4-5]")
    known = many.work / "known_hosts"
    before = known.read_text()
    other = "10.99.0.4 ecdsa-sha2-nistp256 AAAAE2VjZHNhLXNoYTItbmlzdHAyNTY="
    known.write_text("".join(f"{line}\n" for line in before.splitlines() if not line.startswith("10.99.0.4 ")))
    with known.open("a") as file:
        file.write(f"{other}\n")
    done = many.hpcproxy("trust", "--timeout", "5")
    after = known.read_text()
    known.write_text(before)
    assert done.returncode == 1
    assert re.search(r"^10\.99\.0\.4  ssh-ed25519 SHA256:\S+  \(changed\)$", done.stdout, re.MULTILINE), done.stderr
    assert other in after
    assert "10.99.0.4 ssh-ed25519" not in after

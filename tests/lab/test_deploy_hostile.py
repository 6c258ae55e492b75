"""Hosts that have been taken over, among others, and secrets that must not show: a network namespace, no Slurm."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from hpcproxy.cluster.jumpkit import KEY_FILE
from tests.sshd import make_key

from .crowd import REPOSITORY, Crowd, crowd

pytestmark = pytest.mark.lab
COUNT = 64
# Reads the message far enough to know the token, and then answers as a host of somebody else's would.
HOSTILE = r"""
import base64, os, re, sys, time
data = b""
while b"token=" not in data:
    data += os.read(0, 65536)
token = re.search(rb"token=(hpcproxy-[0-9a-f]+)", data).group(1)
escape = b"\x1b]0;TITLE\x07\x1b[2J\x1b[31mALL-NODES-OK\x1b[0m"
mode = sys.argv[1]
if mode == "escape":
    os.write(1, token + b" file create /etc/" + escape + b"\n" + token + b" fact python3 " + escape + b"\n")
    os.write(1, token + b" done failed reason " + escape + b"\n")
elif mode == "word":
    os.write(1, token + b" done " + escape + b" x\n")
elif mode == "no text":
    os.write(1, token + b" done failed caf\xe9 \xff\n")
elif mode == "diff":
    content = base64.b64encode(b"a\n" + escape + b"\n")
    os.write(1, token + b" file change /etc/hpcproxy/config.yaml\n" + token + b" content /etc/hpcproxy/config.yaml ")
    os.write(1, content + b"\n" + token + b" done would\n")
elif mode == "endless":
    while True:
        os.write(1, b"x" * 65536)
elif mode == "dribble":
    while True:
        os.write(1, b".")
        time.sleep(1)
while os.read(0, 65536):
    pass
"""


@pytest.fixture(scope="module")
def many(lab_host: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Crowd]:
    with crowd(tmp_path_factory.mktemp("hostile"), COUNT) as found:
        found.empty()
        with found.listening(found.hosts):
            yield found


def _take_over(many: Crowd, **modes: str) -> dict[str, str]:
    """The first hosts answer as `modes` say; returns which host does what."""
    hosts = dict(zip(modes.values(), many.hosts, strict=False))
    for mode, host in hosts.items():
        place = many.store / host / "up/root"
        place.mkdir(parents=True, exist_ok=True)
        (place / "hostile.py").write_text(HOSTILE)
        many.before_each_session(host, f"exec python3 /root/hostile.py '{mode}'")
    return hosts


def _measured(many: Crowd, *arguments: str) -> tuple[str, float, float]:
    """The program has run: all that it printed, wall seconds, peak MB."""
    command = [sys.executable, "-m", "hpcproxy", *arguments, "--inventory", str(many.work / "site.yaml")]
    printed = many.work / "printed"
    began = time.monotonic()
    with printed.open("wb") as file:
        process = subprocess.Popen(
            many.enter(["env", f"PYTHONPATH={REPOSITORY}", *command]), stdout=file, stderr=subprocess.STDOUT
        )
        _, _, used = os.wait4(process.pid, 0)
    process.returncode = 0  # it has been waited for
    return printed.read_text(), time.monotonic() - began, used.ru_maxrss / 1024


def test_four_hostile_hosts_among_64_cost_a_line_each(many: Crowd) -> None:
    many.describe()
    report = many.work / "report.json"
    bad = _take_over(many, a="escape", b="no text", c="endless", d="dribble")
    printed, wall_s, peak_mb = _measured(many, "deploy", "--fanout", "16", "--timeout", "4", "--report", str(report))
    outcomes = {host["host"]: (host["outcome"], host["cause"]) for host in json.loads(report.read_text())["hosts"]}
    assert {mode: outcomes.pop(host) for mode, host in bad.items()} == {
        "escape": ("failed", "reason ?]0;TITLE??[2J?[31mALL-NODES-OK?[0m"),
        "no text": ("failed", "caf? ?"),
        "endless": ("unreached", "says more than any answer holds"),
        "dribble": ("unreached", "is not done after 40 s"),
    }
    assert outcomes == dict.fromkeys(many.hosts[4:], ("changed", ""))
    assert printed.replace("\n", "").isprintable()
    assert wall_s < 40 + 50
    assert peak_mb < 400  # one endless answer is 8 MB; without a bound it was 1.1 GB in 25 s
    many.empty()


def test_no_verb_shows_what_a_host_makes_up(many: Crowd) -> None:
    many.describe(nodes="10.99.0.[1-3]")
    _take_over(many, a="escape", b="word", c="diff")
    for arguments in (
        ("deploy", "--dry-run", "--diff"),
        ("verify", "--contract"),
        ("rollback",),
        ("undeploy",),
        ("deploy", "--as-user"),
    ):
        printed, _, _ = _measured(many, *arguments, "--timeout", "20")
        assert printed.replace("\n", "").isprintable(), arguments
        assert "internal error" not in printed
    many.empty()


def test_the_services_key_shows_nowhere(many: Crowd) -> None:
    """Whatever verb is used, the key file and what `rollback` keeps are all that holds it, here and on the hosts."""
    settings = {"jump": "192.0.2.1", "allow": ["internet.test"]}
    many.describe(nodes="10.99.0.[1-2]", settings=settings)
    kit = many.work / "kit"
    printed = many.hpcproxy("jump-kit", "--directory", str(kit))
    said = [printed.stdout, printed.stderr]
    key = kit / KEY_FILE
    service = {"mode": "service", "service_account": "nobody", "service_key": str(key)}
    many.describe(nodes="10.99.0.[1-2]", settings=settings, **service)

    def run(*arguments: str) -> None:
        done = many.hpcproxy(*arguments, "--report", str(many.work / "report.json"))
        assert done.returncode in (0, 1), done.stderr
        said.extend((done.stdout, done.stderr))
        assert "service_key" in done.stdout or "diff" not in " ".join(arguments)

    run("deploy", "--dry-run", "--diff")
    run("deploy", "--diff")
    make_key(kit / "other")
    key.write_bytes((kit / "other").read_bytes())
    (kit / "other").unlink()
    run("deploy", "--dry-run", "--diff")
    run("deploy", "--diff")
    run("verify")
    run("verify", "--contract")
    as_user = ["deploy", "--as-user", "--dry-run", "--diff"]
    for arguments in (as_user, ["trust", "--yes"], ["jump-kit", "--directory", str(kit)]):
        done = many.hpcproxy(*arguments)
        said += [done.stdout, done.stderr]
    assert "PRIVATE KEY" not in "".join(said)
    mine = [path for path in many.work.rglob("*") if path.is_file() and many.work / "hosts" not in path.parents]
    assert _holding(mine) == sorted((key, many.work / "host_key", many.work / "id"))
    for host in many.hosts[:2]:
        up = many.store / host / "up"
        there = _holding([path for path in up.rglob("*") if path.is_file()])
        assert [str(path.relative_to(up)) for path in there] == [
            "etc/hpcproxy/service_key",
            "var/lib/hpcproxy/previous/tree/etc/hpcproxy/service_key",
        ]
        assert (up / "var/lib/hpcproxy/previous").stat().st_mode & 0o077 == 0
    run("rollback")
    image = many.work / "image"
    packed = many.hpcproxy("render", "--root", str(image))
    said += [packed.stdout, packed.stderr]
    assert _holding([path for path in image.rglob("*") if path.is_file()]) == [image / "etc/hpcproxy/service_key"]
    assert (image / "etc/hpcproxy/service_key").stat().st_mode & 0o077 == 0
    run("undeploy")
    assert "PRIVATE KEY" not in "".join(said)
    for host in many.hosts[:2]:
        assert _holding([path for path in (many.store / host / "up").rglob("*") if path.is_file()]) == []
    many.empty()


def _holding(paths: list[Path]) -> list[Path]:
    return sorted(path for path in paths if b"PRIVATE KEY" in path.read_bytes())

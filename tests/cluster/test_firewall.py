"""The jump host's firewall, for real: an sshd, services of its own, a cluster, a metadata service and the world."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from hpcproxy.cluster import firewall, jumpkit
from hpcproxy.cluster.inventory import parse
from hpcproxy.config.layers import Layer, resolve
from hpcproxy.config.model import Config
from tests.sshd import PROGRAM, make_key

ACCOUNT = "nobody"
NODE, SERVER, WORLD, METADATA = "10.9.0.2", "10.9.0.3", "203.0.113.5", "169.254.169.254"
NAMES = {
    "world.test": WORLD,
    "long-world.test": WORLD,
    "loop.test": "127.0.0.1",
    "own.test": "10.9.0.1",
    "cloud.test": METADATA,
}
NAMES |= {"node.test": NODE, "server.test": SERVER}
REFUSED = "connect failed: No route to host"
NOT_V6 = "connect failed: Permission denied"  # what ICMPv6's word for the same becomes
_SERVICES = Path(__file__).with_name("far_services.py")

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces and nft need root"),
    pytest.mark.skipif(shutil.which("nft", path="/usr/sbin:/sbin") is None, reason="needs nft (Debian: nftables)"),
]


class World:
    """Two machines: the jump host, and one that has all other addresses."""

    def __init__(self, directory: Path, stack: contextlib.ExitStack) -> None:
        self.directory, self.stack = directory, stack
        self.sshd: subprocess.Popen[str] | None = None
        self.jump, self.others = self._machine(), self._machine()
        self._wire()
        self.key = make_key(directory / "id")
        make_key(directory / "host")
        (directory / "resolv.conf").write_text("nameserver 127.0.0.1\n")
        directory.chmod(0o755)

    def start(self, *argv: str, on: int) -> subprocess.Popen[str]:
        """Have a program run on a machine until the end."""
        process = subprocess.Popen(self.entered(on, *argv), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
        self.stack.callback(_end, process)
        return process

    @staticmethod
    def entered(on: int, *argv: str) -> list[str]:
        return ["nsenter", f"--net=/proc/{on}/ns/net", f"--mount=/proc/{on}/ns/mnt", "--", *argv]

    def run(self, on: int, *argv: str, feed: str = "") -> str:
        done = subprocess.run(
            self.entered(on, *argv), input=feed, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def _machine(self) -> int:
        argv = ["unshare", "--net", "--mount", "--propagation", "private", "sh", "-c", "echo up; exec sleep infinity"]
        process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
        self.stack.callback(_end, process)
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        return process.pid

    def _wire(self) -> None:
        for on, device, lines in (
            (self.jump, "j", ["address add 10.9.0.1/16 dev j", "address add 2001:db8::1/64 dev j nodad"]),
            (self.others, "o", [f"address add {each}/16 dev o" for each in (NODE, SERVER, WORLD, METADATA)]),
        ):
            if device == "j":
                self.run(
                    on,
                    "ip",
                    "link",
                    "add",
                    "j",
                    "type",
                    "veth",
                    "peer",
                    "name",
                    "o",
                    "netns",
                    f"/proc/{self.others}/ns/net",
                )
            batch = ["link set lo up", f"link set {device} up", *lines]
            self.run(on, "ip", "-batch", "-", feed="".join(f"{line}\n" for line in batch))
        self.run(self.jump, "ip", "route", "add", "default", "via", NODE)

    def serve(self) -> None:
        """Everything answers."""
        self.run(self.jump, "mount", "--bind", str(self.directory / "resolv.conf"), "/etc/resolv.conf")
        names = [f"{name}={address}" for name, address in NAMES.items()]
        started = [self.start(sys.executable, str(_SERVICES), "greet", on=on) for on in (self.jump, self.others)]
        started.append(self.start(sys.executable, str(_SERVICES), "names", *names, on=self.jump))
        for process in started:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"

    def let_in(self, config: Config) -> None:
        """Have an sshd with the kit's Match block and key line, started anew."""
        keys = self.directory / "keys"
        public = Path(f"{self.key}.pub").read_text()
        keys.write_text(jumpkit.authorized_keys_line(public, config))
        block = jumpkit.match_block(parse("i", "nodes: c1\n"), config).replace(jumpkit.KEYS_ON_JUMP, str(keys))
        path = self.directory / "sshd.conf"
        base = (
            f"Port 2222\nHostKey {self.directory / 'host'}\nPidFile none\nUsePAM no\nStrictModes no\nMaxStartups 100\n"
        )
        path.write_text(base + block)
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
        assert PROGRAM is not None
        if self.sshd is not None:
            _end(self.sshd)
        self.sshd = self.start(PROGRAM, "-D", "-f", str(path), on=self.jump)
        known = f"[10.9.0.1]:2222 {(self.directory / 'host.pub').read_text()}"
        (self.directory / "known").write_text(known)
        wait = "until (exec 3<>/dev/tcp/10.9.0.1/2222) 2>/dev/null; do sleep 0.05; done"
        self.run(self.others, "timeout", "30", "bash", "-c", wait)

    def firewall(self, *blocks: str) -> None:
        """Have these tables and no other."""
        for block in ("flush ruleset\n", *blocks):
            self.run(self.jump, "nft", "-f", "-", feed=block)

    def reach(self, targets: Sequence[str]) -> dict[str, str]:
        """What the key gets from each target, asked from the other machine: `hello`, or why not."""
        options = [f"UserKnownHostsFile={self.directory / 'known'}", "BatchMode=yes", f"IdentityFile={self.key}"]
        options += ["IdentitiesOnly=yes", "LogLevel=INFO", "StrictHostKeyChecking=yes"]
        words = [word for option in options for word in ("-o", option)]
        asked = {}
        for target in targets:
            argv = ["timeout", "60", "ssh", "-F", "none", *words, "-p", "2222", "-W", target, f"{ACCOUNT}@10.9.0.1"]
            argv = self.entered(self.others, *argv)
            pipe = subprocess.PIPE
            asked[target] = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe, text=True)
        found = {}
        for target, process in asked.items():
            out, error = process.communicate(timeout=90)
            found[target] = out.strip() or (error.partition("open failed: ")[2] or error).partition("\n")[0]
        return found


def _end(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.wait()
    if process.stdout is not None:
        process.stdout.close()


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with contextlib.ExitStack() as stack:
        # Not pytest's, which nobody but us may enter: sshd reads keys as the account.
        made = World(Path(stack.enter_context(tempfile.TemporaryDirectory(dir="/tmp"))), stack)
        made.serve()
        yield made


def config(*allow: str) -> Config:
    return resolve(Layer("c", {"jump": f"{ACCOUNT}@10.9.0.1:2222", "allow": list(allow)}))


INWARD = [
    "127.0.0.1:80",
    "0.0.0.0:80",
    "127.1:80",
    "0:80",
    "[::1]:80",
    "[::ffff:127.0.0.1]:80",
    "localhost:80",
    "loop.test:80",
]
INWARD += [
    "10.9.0.1:80",
    "own.test:80",
    "[2001:db8::1]:80",
    f"{METADATA}:80",
    "cloud.test:80",
    f"{NODE}:80",
    "node.test:80",
]
OUTWARD = [f"{WORLD}:80", "world.test:80", "long-world.test:80"]


def test_without_the_firewall_the_key_reaches_everything_inside(world: World) -> None:
    """That sshd connects and resolves as the account, and that all of it is there to be reached."""
    world.let_in(config("*"))
    world.firewall()
    assert world.reach([*INWARD, *OUTWARD]) == dict.fromkeys([*INWARD, *OUTWARD], "hello")


def test_the_firewall_stands_whatever_the_target_is_called(world: World) -> None:
    block = firewall.nft_block(ACCOUNT, ["*"], {}, [NODE])
    world.let_in(config("*"))
    world.firewall(block, block)  # a second time is as one
    found = world.reach([*INWARD, *OUTWARD, "127.0.0.1:1", firewall.FIREWALL_TARGET, f"{SERVER}:80"])
    assert {target: found[target] for target in OUTWARD} == dict.fromkeys(OUTWARD, "hello")
    assert {found[target] for target in INWARD} <= {REFUSED, NOT_V6}
    assert found["127.0.0.1:1"] == "connect failed: Connection refused"
    assert found[firewall.FIREWALL_TARGET] == REFUSED
    assert found[f"{SERVER}:80"] == "hello", "nobody named it: it is neither a node nor this machine"
    # Others of the machine are not concerned.
    assert world.run(world.jump, "bash", "-c", f"read -r line </dev/tcp/{NODE}/80; echo $line") == "hello\n"


def test_sshd_and_the_firewall_both_hold_where_both_can(world: World) -> None:
    world.let_in(config("world.test:80", "loop.test:80"))
    world.firewall(firewall.nft_block(ACCOUNT, ["world.test:80", "loop.test:80"], {}, [NODE]))
    found = world.reach(["world.test:80", "loop.test:80", "127.0.0.1:80", f"{WORLD}:80", firewall.FIREWALL_TARGET])
    assert found == {
        "world.test:80": "hello",
        "loop.test:80": REFUSED,  # its name is allowed; where it leads is not
        "127.0.0.1:80": "administratively prohibited: open failed",
        f"{WORLD}:80": "administratively prohibited: open failed",
        firewall.FIREWALL_TARGET: REFUSED,
    }


def test_allow_opens_what_it_names_and_no_more(world: World) -> None:
    allow = ["*", f"{NODE}:80", "localhost:80", "server.test:80", "10.0.0.0/8:1-1024"]
    block = firewall.nft_block(ACCOUNT, allow, {"server.test": [SERVER]}, [NODE, SERVER])
    assert "10.0.0.0/8" not in block
    world.let_in(config("*"))
    world.firewall(block)
    opened = [f"{NODE}:80", "node.test:80", "server.test:80", "localhost:80", "127.0.0.1:80", "loop.test:80", *OUTWARD]
    shut = ["10.9.0.1:80", "127.0.0.2:80", "0:2222", f"{METADATA}:80"]
    found = world.reach([*opened, *shut])
    assert {target: found[target] for target in opened} == dict.fromkeys(opened, "hello")
    assert {found[target] for target in shut} == {REFUSED}

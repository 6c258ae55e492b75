"""Another user of the node gets through on no port and no socket, by no dialect; the job's own user and root do."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from hpcproxy.lab import Lab

from .researcher import OUTER1, Researcher, until

pytestmark = pytest.mark.lab
NODE = "c2"
URL = "http://internet.test/ip"
# By what a client may ask. curl speaks them all: a proxy tunnel, an absolute URL, and the four kinds of SOCKS.
DIALECTS = {
    "CONNECT": ["--proxytunnel", "--proxy", "http://{}"],
    "absolute form": ["--proxy", "http://{}"],
    "SOCKS 4": ["--proxy", "socks4://{}"],
    "SOCKS 4a": ["--proxy", "socks4a://{}"],
    "SOCKS 5": ["--proxy", "socks5h://{}"],
}
BOB = 2002
# Bob tries to connect to each socket of the job's directory, by its full path, and to list what is there.
_KNOCK = """import json, os, socket, sys
found = []
for path in sys.argv[1:]:
    with socket.socket(socket.AF_UNIX) as knock:
        try:
            knock.connect(path)
            found.append(path)
        except PermissionError:
            pass
try:
    found += os.listdir(os.path.dirname(sys.argv[1]))
except PermissionError:
    pass
print(json.dumps(found))
"""


@dataclass(frozen=True)
class Job:
    """A job of alice's that runs on NODE and others."""

    lab: Lab
    address: str
    state: str

    def fetch(self, user: str, dialect: str, *before: str) -> str:
        """What `user` on NODE gets by `dialect`; nothing if he does not get through."""
        options = [word.format(f"{self.address}:2015") for word in DIALECTS[dialect]]
        # SOCKS 4 has addresses only, which the jump host alone knows to be the internet's.
        url = URL.replace("internet.test", "203.0.113.80") if dialect == "SOCKS 4" else URL
        command = [*before, "curl", "-sS", "--max-time", "20", *options, url]
        return self.lab.run(NODE, command, user).stdout.strip()

    def log(self) -> str:
        return self.lab.run(NODE, ["cat", f"{self.state}/log"], check=True).stdout


@pytest.fixture(scope="module", params=[True, False], ids=["agent", "no-agent"])
def job(request: pytest.FixtureRequest, lab: Lab) -> Iterator[Job]:
    alice = Researcher(lab)
    alice.agent = request.param
    alice.set_up()
    number = alice.submit("touch ~/started\nsleep 600\n")
    started = lab.path_on("login", "/home/alice/started")
    until(started.exists, "the job's first command runs")
    (state,) = lab.run(NODE, ["sh", "-c", "echo /tmp/hpcproxy-*/*.*-*"], check=True).stdout.split()
    yield Job(lab, alice.address(number), state)
    started.unlink()
    lab.run("login", ["scancel", str(number)], "alice", check=True)
    lab.wait_job(number)
    until(lambda: not alice.traces(), "nothing of the job is left")


with_agent = pytest.mark.parametrize("job", [True], ids=["agent"], indirect=True)
without_agent = pytest.mark.parametrize("job", [False], ids=["no-agent"], indirect=True)


@with_agent
@pytest.mark.parametrize("dialect", DIALECTS)
def test_the_jobs_user_and_root_get_through_and_bob_does_not(job: Job, dialect: str) -> None:
    assert job.fetch("alice", dialect) == OUTER1
    assert job.fetch("alice", dialect, "unshare", "--user", "--map-root-user") == OUTER1
    assert job.fetch("root", dialect) == OUTER1
    assert job.fetch("bob", dialect) == ""
    assert job.fetch("bob", dialect, "unshare", "--user", "--map-root-user") == ""


@with_agent
def test_who_was_refused_stands_in_the_log_once(job: Job) -> None:
    for _ in range(3):
        assert job.fetch("bob", "CONNECT") == ""
    assert job.log().count(f"refused uid {BOB}") == 1


def test_bob_reaches_no_socket_and_sees_no_file(job: Job) -> None:
    listed = job.lab.run(NODE, ["find", job.state, "-type", "s"], check=True).stdout.split()
    assert f"{job.state}/ctl" in listed
    argv = ["python3", "-I", "-c", _KNOCK, *listed]
    assert json.loads(job.lab.run(NODE, argv, "bob", check=True).stdout) == []
    assert set(listed) < set(json.loads(job.lab.run(NODE, argv, "alice", check=True).stdout))


def test_bob_cannot_reach_the_processes(job: Job) -> None:
    pids = [
        str(pid)
        for pid, user, line in job.lab.processes(NODE)
        if user == "alice" and (job.state in line or " -S ctl " in line)
    ]
    assert pids
    for pid in pids:
        assert job.lab.run(NODE, ["kill", "-TERM", pid], "bob").returncode != 0
        assert job.lab.run(NODE, ["ls", f"/proc/{pid}/fd"], "bob").returncode != 0


@without_agent
def test_without_the_agent_the_port_is_everybodys(job: Job) -> None:
    # A known limit that the manual names: a bare `ssh -D` asks nobody who he is.
    assert job.fetch("bob", "SOCKS 5") == OUTER1
    assert job.fetch("alice", "SOCKS 5") == OUTER1
    assert job.fetch("alice", "CONNECT") == ""

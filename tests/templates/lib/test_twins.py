"""Rules that Python and the shell both must know, each with one table of inputs that runs through both.

How logins spread has a file of its own (`test_spread.py`).
"""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from hpcproxy.account import tunnels
from hpcproxy.files import elsewhere
from hpcproxy.files.render import TEMPLATES
from hpcproxy.node.life import shutdown
from hpcproxy.node.state.closed import LOOPBACK, closed
from hpcproxy.node.state.policy import Policy, closed_by
from hpcproxy.node.upstream import open_error
from hpcproxy.openssh import reasons
from tests.shells import SHELLS


def _part(name: str) -> Path:
    (path,) = (TEMPLATES / "lib").rglob(name)
    return path


# ------------------------------------------------------------------------------------------------ KillWait

# slurm.conf, and how many seconds a tunnel may stay after SIGTERM by it.
KILL_WAITS = [
    ("", 28),
    ("ClusterName=c\nMailProg=/x\n", 28),
    ("KillWait=60\n", 58),
    ("KillWait=60", 58),  # a last line that does not end
    ("KillWait=60\r\n", 58),
    ("  kILLwAIT\t=\t007 # seconds\n", 5),
    ("#KillWait=600\n", 28),
    ("x KillWait=600\n", 28),
    ("XKillWait=600\nKillWaitX=600\n", 28),
    ("KillWait=5\nKillWait=90\n", 88),
    ("KillWait=90 MailProg=/x\n", 88),
    ("KillWait=65533\n", 65531),
    ("KillWait=2\n", 0),
    ("KillWait=1\n", 0),
    ("KillWait=0\n", 0),
    ("KillWait=\n", 28),
    ("KillWait=soon\n", 28),
    ("KillWait=-1\n", 28),
    ("KillWait=60s\n", 28),
    ("KillWait=123456\n", 28),
    ("KillWait=a[$(touch x)]\n", 28),
    ("Key=KillWait=600\n", 28),
]


def _grace_in_shell(conf: Path, directory: Path) -> int:
    text = '. "$1"; grace_s=; grace_seconds; printf %d "$grace"'
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", text, "bash", str(_part("job_processes.sh"))],
        capture_output=True,
        text=True,
        check=True,
        env={"SLURM_CONF": str(conf), "PATH": "/usr/bin:/bin"},
        cwd=directory,
    )
    assert done.stderr == ""
    return int(done.stdout)


def _grace_of_agent() -> int:
    return int(shutdown.kill_wait_s() - shutdown.RESERVE_S)


@pytest.mark.parametrize(("text", "grace_s"), KILL_WAITS, ids=[repr(text) for text, _ in KILL_WAITS])
def test_kill_wait_is_read_alike(text: str, grace_s: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    conf = tmp_path / "slurm.conf"
    conf.write_bytes(text.encode())
    monkeypatch.setenv("SLURM_CONF", str(conf))
    assert (_grace_in_shell(conf, tmp_path), _grace_of_agent()) == (grace_s, grace_s)
    assert [path.name for path in tmp_path.iterdir()] == ["slurm.conf"]


def test_a_slurm_conf_that_is_none_is_passed_over_alike(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_CONF", str(tmp_path))
    assert _grace_in_shell(tmp_path, tmp_path) == _grace_of_agent()


def test_both_look_in_the_same_places() -> None:
    (line,) = re.findall(r'for file in "\$\{SLURM_CONF-\}" (.*); do', _part("job_processes.sh").read_text())
    assert tuple(line.split()) == shutdown.CONFIGURATIONS


# ------------------------------------------------------------------------------------------------ a far end

# What sshd says of a channel that it could not open: the agent's kind, and `check`'s words where ssh itself listens.
OPEN_FAILURES = {
    "administratively prohibited: open failed": (
        "prohibited",
        "the jump host does not allow forwarding to it; this is its admin's rule",
    ),
    "connect failed: Name or service not known": ("name", "its name does not resolve at the jump host"),
    "connect failed: Temporary failure in name resolution": ("name", "its name does not resolve at the jump host"),
    "connect failed: Connection refused": ("refused", "nothing listens there"),
    "connect failed: Connection timed out": ("timeout", "it does not answer the jump host"),
    "connect failed: No route to host": ("host", "the jump host has no route to it"),
    "connect failed: Network is unreachable": ("network", "the jump host has no route to it"),
    "connect failed: something else": ("failed", "connect failed: something else"),
}


@pytest.mark.parametrize("said", OPEN_FAILURES)
def test_why_a_far_end_is_not_reached_is_known_alike(said: str) -> None:
    line = f"channel 3: open failed: {said}"
    assert (open_error.explain(said).kind, reasons.open_failure(line)) == OPEN_FAILURES[said]


def test_no_row_of_the_table_is_without_its_input() -> None:
    rows = [row.pattern for row in reasons._OPEN_FAILURES]
    assert [pattern for pattern in rows if not any(pattern in said for said in OPEN_FAILURES)] == []


# ------------------------------------------------------------------------------------------------ addresses

# What leads to the machine itself, and what does not, as the shells and the agent's rules take it.
HOSTS = {
    "127.0.0.1": True,
    "127.1": True,
    "127.64.0.1": True,
    "127.255.255.255": True,
    "2130706433": True,
    "0x7f.1": True,
    "0X7F000001": True,
    "0177.0.0.1": True,
    "0": True,
    "0.0.0.0": True,
    "0x0": True,
    "localhost": True,
    "LocalHost.": True,
    "x.localhost": True,
    "localhost.localdomain": True,
    "localhost6.localdomain6": True,
    "localhost4": True,
    "ip6-localhost": True,
    "ip6-loopback": True,
    "::1": True,
    "::": True,
    "0:0:0:0:0:0:0:1": True,
    "::ffff:127.0.0.1": True,
    "::FFFF:7f00:1": True,
    "::127.0.0.1": True,
    "126.255.255.255": False,
    "128.0.0.1": False,
    "10.127.0.1": False,
    "2130706432.1": False,
    "0x80.1": False,
    "2001:db8::1": False,
    "::ffff:10.0.0.1": False,
    "fe80::1": False,
    "localhost.example.com": False,
    "notlocalhost": False,
    "127.0.0.1.example.com": False,
    "proxy.site": False,
}
# Here they differ, for they ask different things: shells whether whatever listens there may be anybody of this machine,
# the agent what a jump host could be brought to reach of its own. Host, shells, agent.
DIFFERENT = {
    "0.0.0.5": (False, True),  # no way of Linux's to itself; a BSD's
    "::2": (False, True),  # 0.0.0.2 within an address that no kernel knows any more
    "64:ff9b::127.0.0.1": (False, True),  # NAT64: another machine turns it back
}
_LOOP = '. "$1"; shift; for host; do if __hpcproxy_loopback "$host"; then echo yes; else echo no; fi; done'


@pytest.mark.parametrize("shell", SHELLS)
def test_what_leads_to_the_machine_itself_is_known_alike(shell: str) -> None:
    expected = {**HOSTS, **{host: answer for host, (answer, _) in DIFFERENT.items()}}
    argv = [shell, "-c", _LOOP, shell, str(_part("proxies.sh")), *expected]
    said = subprocess.run(argv, capture_output=True, text=True, check=True).stdout.split()
    assert {host: answer == "yes" for host, answer in zip(expected, said)} == expected
    rules = Policy((), (), closed(LOOPBACK, ()))
    agents = {**HOSTS, **{host: answer for host, (_, answer) in DIFFERENT.items()}}
    assert {host: closed_by(rules, host, 80) == "the jump host's own loopback" for host in agents} == agents


# Addresses of tunnels, which job_address makes, and their neighbours.
TUNNELS = {
    "127.0.0.1": False,
    "127.6.4.0": False,
    "127.9.0.1": False,
    "127.63.255.255": False,
    "127.64.0.0": True,
    "127.69.1.1": True,
    "127.70.0.1": True,
    "127.99.0.1": True,
    "127.100.0.1": True,
    "127.128.7.209": True,
    "127.192.0.1": True,
    "127.255.255.254": True,
    "128.64.0.1": False,
    "12.127.64.1": False,
}


@pytest.mark.parametrize("shell", SHELLS)
def test_an_address_of_a_tunnel_is_known_alike(shell: str) -> None:
    loop = _LOOP.replace('__hpcproxy_loopback "$host"', '__hpcproxy_stray "http://$host:9"')
    argv = [shell, "-c", f"__hpcproxy_port=2015; {loop}", shell, str(_part("proxies.sh")), *TUNNELS]
    said = subprocess.run(argv, capture_output=True, text=True, check=True).stdout.split()
    assert {host: answer == "yes" for host, answer in zip(TUNNELS, said)} == TUNNELS
    ours = re.compile(elsewhere.OURS)
    assert {host: bool(ours.search(f"http://{host}:9")) for host in TUNNELS} == TUNNELS


@pytest.mark.parametrize("key", ["1", "4194303", "67108865", "4294967295", "shell"])
def test_what_job_address_makes_is_one(key: str) -> None:
    text = '. "$1"; job_address "$2"; printf %s "$address"'
    argv = ["bash", "-euo", "pipefail", "-c", text, "bash", str(_part("address.sh")), key]
    address = subprocess.run(argv, capture_output=True, text=True, check=True).stdout
    assert re.match(elsewhere.OURS, address)


# ------------------------------------------------------------------------------------------------ where states are

# A TMPDIR, below a directory of the test's, and whether supervisors make their states there; else in /tmp.
BASES = [
    (None, False),
    ("", False),
    ("relative", False),
    ("./", False),
    ("{}", True),
    ("{}/", True),
    ("{}/a b", True),
    ("{}/missing", False),
    ("{}/file", False),
    ("{}/new\nline", False),
]


def _told(text: str, *words: object, shell: str = "bash", **environ: str) -> str:
    argv = [shell, "-c", text, shell, *map(str, words)]
    clean = {"PATH": os.environ["PATH"], **environ}
    done = subprocess.run(argv, capture_output=True, text=True, check=True, env=clean, timeout=60)
    assert done.stderr == ""
    return done.stdout


@pytest.mark.parametrize(("given", "there"), BASES)
def test_commands_and_shells_look_where_supervisors_make_their_states(
    given: str | None, there: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a b", "new\nline", "relative"):
        (tmp_path / name).mkdir()
    (tmp_path / "file").touch()
    monkeypatch.chdir(tmp_path)
    environ = {} if given is None else {"TMPDIR": given.format(tmp_path)}
    base = Path(environ["TMPDIR"]) if there else Path("/tmp")
    home = base / f"hpcproxy-{os.geteuid()}"
    ask = 'set -euo pipefail; . "$1"; find_state_base; printf %s "$state_home"'
    made = _told(ask, _part("state.sh"), **environ)
    assert made == str(home)
    monkeypatch.setattr(tunnels, "_ours", lambda _directory: True)
    assert home in tunnels.homes(environ)
    if there:
        (home / "9.0-abcd1234").mkdir(parents=True)
        look = (
            '. "$2"; __hpcproxy_try() { [ -d "$2" ] && printf %s "$2"; }; __hpcproxy_run=/n; __hpcproxy_search 9 "$1"'
        )
        for shell in SHELLS:
            found = _told(look, os.geteuid(), _part("find.sh"), shell=shell, **environ)
            assert Path(found) == home / "9.0-abcd1234"


def test_on_the_jobs_other_nodes_they_look_beside_the_state_that_the_shell_has_from_its_parents(tmp_path: Path) -> None:
    """A shell there has a TMPDIR of its own (a TaskProlog's, a .bashrc's); the supervisors had the job's."""
    state = tmp_path / f"hpcproxy-{os.geteuid()}" / "9.0-abcd1234"
    state.mkdir(parents=True, mode=0o700)
    state.parent.chmod(0o700)
    environ = {"TMPDIR": "/nonexistent", "HPCPROXY_STATE": str(state.with_name("9.0-0000beef"))}
    assert state.parent in tunnels.homes(environ)
    assert tunnels.homes({"TMPDIR": "/nonexistent", "HPCPROXY_STATE": ""}) == tunnels.homes({"TMPDIR": "/nonexistent"})
    look = '. "$2"; __hpcproxy_try() { [ -d "$2" ] && printf %s "$2"; }; __hpcproxy_run=/n; __hpcproxy_search 9 "$1"'
    for shell in SHELLS:
        assert Path(_told(look, os.geteuid(), _part("find.sh"), shell=shell, **environ)) == state
    ours = "is_ours() { [[ -d $1 ]]; }; supervisor_lives() { :; }; run_base=/n state_home=/n"
    look = f'. "$1"; {ours}; find_state 9.0; printf %s "$state"'
    assert Path(_told(look, _part("state.sh"), **environ)) == state

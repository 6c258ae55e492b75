"""The root process of a lab: PID 1 of its own PID namespace, from which every process of the lab descends.

It is started by `Lab.up` with a plan on stdin, answers with one line of JSON per host on stdout and then waits for the
word `keep`. If that never comes, because whoever built the lab failed or was killed, it ends and the kernel takes the
half-built lab away: processes, mounts and networks all live in namespaces that only this tree holds.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import sys
from pathlib import Path
from typing import Any, NoReturn

from hpcproxy.lab import cgroup, rootfs
from hpcproxy.lab.kernel import (
    CLONE_NEWCGROUP,
    CLONE_NEWIPC,
    CLONE_NEWNET,
    CLONE_NEWNS,
    CLONE_NEWPID,
    CLONE_NEWUTS,
    MS_NODEV,
    MS_PRIVATE,
    MS_REC,
    mount,
    unshare,
)

KEEP = "keep"
SWITCH = "switch"
SYSLOG = "/var/log/messages"


def main() -> None:
    """Entry point: this process forks the root and ends, so that no caller has to reap it."""
    plan = json.loads(sys.stdin.readline())
    unshare(CLONE_NEWPID | CLONE_NEWNS)
    if os.fork():
        os._exit(0)
    try:
        _tend(plan)
    except BaseException as error:  # noqa: BLE001  the builder reads the reason; without this line it would only see EOF
        _say({"error": f"{type(error).__name__}: {error}"})
        os._exit(1)


def _tend(plan: dict[str, Any]) -> NoReturn:
    os.chdir("/")
    mount("none", "/", flags=MS_REC | MS_PRIVATE)
    _say({"root": _outer_pid()})
    mount("tmpfs", "/home", "tmpfs", MS_NODEV, "mode=755")  # the /home that all cluster hosts share
    _fork_switch()
    for host in plan["hosts"]:
        exposed = plan["exposed_to_releases" if host["root"] else "exposed"]
        _fork_host(host, [Path(path) for path in exposed], plan["python"])
    if sys.stdin.readline().strip() != KEEP:
        os._exit(1)  # the builder is gone
    _let_go_of_stdio()
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
    while True:
        _reap()
        signal.sigwait({signal.SIGCHLD})


def _fork_switch() -> None:
    """Fork a process that holds the network namespace in which the lab's bridges are."""
    if os.fork():
        return
    unshare(CLONE_NEWNET)
    _say({"host": SWITCH, "pid": _outer_pid()})
    _let_go_of_stdio()
    while True:
        signal.pause()


def _fork_host(host: dict[str, Any], exposed: list[Path], python: dict[str, str]) -> None:
    """Fork a host: its first process is PID 1 of its own namespaces and reports when its files stand."""
    if os.fork():
        return
    try:
        if host["cgroup"]:
            cgroup.enter(Path(host["cgroup"]))
            unshare(CLONE_NEWCGROUP)
        unshare(CLONE_NEWPID | CLONE_NEWNS | CLONE_NEWNET | CLONE_NEWUTS | CLONE_NEWIPC)
        if os.fork():
            os._exit(0)
        pid = _outer_pid()  # before /proc shows only this host
        socket.sethostname(host["name"])
        release = rootfs.Release(Path(host["root"]), **python) if host["root"] else None
        rootfs.build(exposed, host["own_home"], host["gpus"], release)
        if host["cgroup"]:
            cgroup.mount_own()
        Path("/proc/sys/net/ipv4/ip_forward").write_text("0")  # new namespaces inherit the machine's choice
        _say({"host": host["name"], "pid": pid})
    except BaseException as error:  # noqa: BLE001  see main
        _say({"error": f"{host['name']}: {error}"})
        os._exit(1)
    _let_go_of_stdio()
    _init()


def _init() -> NoReturn:
    """PID 1 of a host: reaps what its daemons leave and keeps the host's system log."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as log:
        log.bind("/dev/log")
        Path("/dev/log").chmod(0o666)
        wake, wake_writer = socket.socketpair()
        for end in (wake, wake_writer):
            end.setblocking(False)
        signal.set_wakeup_fd(wake_writer.fileno())
        signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
        while True:
            _reap()
            ready, _, _ = select.select([log, wake], [], [])
            if wake in ready:
                wake.recv(4096)
            if log in ready:
                with Path(SYSLOG).open("ab") as file:
                    file.write(log.recv(65536).rstrip(b"\n\0") + b"\n")


def _reap() -> None:
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def _outer_pid() -> int:
    """Return this process's pid as the builder sees it: the inherited /proc is still the builder's."""
    return int(Path("/proc/self").readlink().name)


def _say(fact: dict[str, Any]) -> None:
    """One whole line on stdout; shorter than PIPE_BUF, so lines of several hosts do not mix."""
    os.write(1, json.dumps(fact).encode()[:4000] + b"\n")


def _let_go_of_stdio() -> None:
    null = os.open("/dev/null", os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(null, descriptor)
    os.close(null)

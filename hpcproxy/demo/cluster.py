"""The demo with root: a lab of three compute nodes, and on it all that a researcher does, as an ordinary user.

Builds the lab, runs processes in it, and takes it down whatever happens.
"""

from __future__ import annotations

import contextlib
import functools
import os
import re
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import invoke
from rich.console import Console
from rich.status import Status
from rich.text import Text

from hpcproxy import quoting
from hpcproxy.demo.story import TIMED_OUT, Act, Output, show_scene, tell
from hpcproxy.demo.traces import Traces, highest
from hpcproxy.errors import LabError
from hpcproxy.files import render
from hpcproxy.lab import Lab, LabSpec, packages, record
from hpcproxy.lab.spec import CONTROLLER, INTERNET, USERS

USER = "alice"
PORT = 2015
_JUMP = "jump1"
_NAME_BEGIN = "demo-"
_COMMAND_TIMEOUT_S = 60
_UP_TIMEOUT_S = 60
_PACKAGE_PARENT = Path(__file__).parents[2]
_DEPENDENCIES = Path(invoke.__file__).parents[1]
_URL = "https://internet.test/ip"
# Where a program of the user's can leave something on a node.
_WRITABLE = ("/tmp", "/var/tmp", "/run", "/dev/shm")  # noqa: S108 - names of the lab's directories
_JOB = f"""\
#!/bin/bash
#SBATCH -N3 --ntasks-per-node=1 --time=5 --output=job.out
srun -l hostname
srun -l curl -sS {_URL}
srun -l curl -sS --noproxy '*' {_URL}
until [ -e looked ]; do sleep 0.1; done  # until the demo has looked
"""


def run(console: Console, name: str | None = None) -> bool:
    """Tell the story on `console`, on a lab called `name`; True if every step came out as expected.

    Raises LabError if the lab cannot be built here. No lab of that name is left, whatever happens, and none of a demo
    that was killed.
    """
    name = name or f"{_NAME_BEGIN}{os.getpid()}"  # its own, so that two demos can run side by side
    with _lab(console, name) as lab:
        show_scene(console, "hpcproxy, shown on a Slurm cluster of its own on this machine", _scene(lab))
        return tell(console, _acts(_Login(lab)))


@contextlib.contextmanager
def _lab(console: Console, name: str) -> Iterator[Lab]:
    with _advised():
        packages.require_privilege()
        _remove_abandoned()
    try:
        with _advised():
            lab = _build(console, name)
        yield lab
    finally:
        Lab.remove(name)


def _remove_abandoned() -> None:
    """Remove the labs of demos that were killed before they could."""
    for path in record.DIRECTORY.glob(f"{_NAME_BEGIN}*.json"):
        pid = path.stem[len(_NAME_BEGIN) :]
        if pid.isdecimal() and not Path("/proc", pid).exists():
            Lab.remove(path.stem)


@contextlib.contextmanager
def _advised() -> Iterator[None]:
    try:
        yield
    except LabError as error:
        raise LabError(f"{error}; the demo without a lab: invoke demo --loopback") from None


def _build(console: Console, name: str) -> Lab:
    exposed = tuple({render.TEMPLATES.resolve(), _PACKAGE_PARENT / "hpcproxy", _DEPENDENCIES})
    with console.status(Text("building the lab"), spinner="line") as status:
        return Lab.up(
            LabSpec(name=name, nodes=3, expose=exposed), on_step=functools.partial(_show_step, console, status)
        )


def _show_step(console: Console, status: Status, step: str) -> None:
    if console.is_terminal:
        status.update(Text(step))
    else:
        console.print(Text(step), soft_wrap=True)


def _scene(lab: Lab) -> list[tuple[str, str]]:
    inner, outer = (link.address for link in lab.spec.host(_JUMP).links)
    return [
        ("nodes", f"{', '.join(lab.nodes)}: real slurmd, no route out, no name server"),
        ("login", f"{CONTROLLER}, where {USER}, an ordinary user, types what follows"),
        ("jump host", f"{inner} inside, with sshd and {USER}'s key; {outer} to the outside"),
        ("internet", f"a web server outside; {_URL} answers with its visitor's address"),
    ]


@dataclass(frozen=True)
class _Login:
    """The user's session on the login node."""

    lab: Lab

    @property
    def outer(self) -> str:
        """The address that the internet sees when the jump host opens a connection."""
        return self.lab.spec.host(_JUMP).links[1].address

    def bash(self, *commands: str) -> Output:
        """Run `commands`, exactly as they are shown, with this very hpcproxy as `hpcproxy`."""
        path = quoting.word(f"{_PACKAGE_PARENT}:{_DEPENDENCIES}")
        prelude = (
            f'exec 2>&1; set -e; hpcproxy() {{ PYTHONPATH={path} {quoting.word(sys.executable)} -m hpcproxy "$@"; }}\n'
        )
        try:
            done = self.lab.run(
                CONTROLLER, ["bash", "-c", prelude + "\n".join(commands)], USER, timeout_s=_COMMAND_TIMEOUT_S
            )
        except LabError as error:
            return Output(str(error), TIMED_OUT)
        return Output(done.stdout.replace(f"/home/{USER}", "~"), done.returncode)

    def look(self, *, ours_only: bool) -> dict[str, Traces]:
        """Return what is on each node: the user's processes, listeners and files, all of them or what hpcproxy made."""
        return {node: self._look_at(node, "hpcproxy" if ours_only else "") for node in self.lab.nodes}

    def _look_at(self, node: str, mark: str) -> Traces:
        uid = USERS[USER]
        return Traces(
            tuple(
                f"{pid} {command}"
                for pid, user, command in self.lab.processes(node)
                if user == USER and mark in command
            ),
            tuple(
                f"{address}:{port}"
                for address, port, owner in self.lab.listeners(node)
                if owner == uid and (port == PORT or not mark)
            ),
            highest(Path(place, name) for place in _WRITABLE for name in self._names(node, place, uid) if mark in name),
        )

    def _names(self, node: str, place: str, uid: int) -> list[str]:
        """Return the entries of directory `place` that belong to `uid`, those in its directories too."""
        names = []
        for directory, directories, files in os.walk(self.lab.path_on(node, place)):
            for name in (*directories, *files):
                path = Path(directory, name)
                with contextlib.suppress(FileNotFoundError):  # it has gone since
                    if path.lstat().st_uid == uid:
                        names.append(str(path.relative_to(self.lab.path_on(node, place))))
        return names


def _acts(login: _Login) -> list[Act]:
    return [*_before(login), *_set_up(login), *_job(login), *_after(login)]


def _act(login: _Login, title: str, commands: tuple[str, ...], expectation: str, *patterns: str) -> Act:
    """Return the act of running `commands`, which must end well and print something that fits each of `patterns`."""

    def holds(output: Output) -> bool:
        return output.code == 0 and all(re.search(pattern, output.text, re.MULTILINE) for pattern in patterns)

    return Act(title, commands, lambda: login.bash(*commands), expectation, holds)


def _before(login: _Login) -> Iterator[Act]:
    address = login.lab.spec.host(INTERNET).links[0].address
    for how, url, reason in (
        ("name", _URL, "no node can resolve the name"),
        ("address", f"http://{address}/ip", "no node has a route there"),
    ):
        command = f"srun -N3 -l curl -sS {url}"
        yield Act(
            f"Before: the nodes do not reach the internet by {how}",
            (command,),
            functools.partial(login.bash, command),
            f"it fails on all three: {reason}",
            lambda output: output.code != 0 and _by_task(output.text, r"curl: \(\d+\)") == ["0", "1", "2"],
        )


def _by_task(text: str, pattern: str) -> list[str]:
    """Return the numbers of the tasks, in order, that printed a line beginning with `pattern` (`srun -l`)."""
    return sorted(re.findall(rf"^(\d+): {pattern}", text, re.MULTILINE))


def _set_up(login: _Login) -> Iterator[Act]:
    inner = login.lab.spec.host(_JUMP).links[0].address
    yield _act(
        login,
        "Name the jump host",
        (f"hpcproxy init --yes --jump {USER}@{inner}",),
        "its host key is pinned, and one login shows that it lets us through",
        "login and forwarding work",
    )
    yield _act(
        login,
        "Install, for this account only",
        (f"hpcproxy install-bashrc --port {PORT}",),
        "~/.hpcproxy/ is there, and one block in ~/.bashrc points to it",
        r"~/\.bashrc$",
    )
    yield _act(
        login,
        "Write a job script and put the hook line into it",
        (f"cat > job.sh <<'END'\n{_JOB}END", "hpcproxy wrap --in-place job.sh", "sed -n 1,3p job.sh"),
        "line 3, behind the #SBATCH lines, is the hook",
        r"^#SBATCH .*\n.*# hpcproxy hook$",
    )


def _job(login: _Login) -> Iterator[Act]:
    yield _act(login, "Submit it", ("sbatch job.sh",), "the job is queued", r"^Submitted batch job \d+$")
    yield Act(
        "While the job runs: what hpcproxy has on its nodes",
        (),
        functools.partial(_look_until_up, login),
        f"each node holds a tunnel of the job's own, at an address that is the same on all of them, port {PORT}",
        lambda output: output.code == 0,
    )
    yield Act(
        "The job's output",
        ("touch looked", "cat job.out"),
        functools.partial(_finish_job, login),
        f"every node was seen as {login.outer}, the jump host; straight, none of them gets out",
        lambda output: (
            output.code == 0
            and _by_task(output.text, re.escape(login.outer) + "$") == ["0", "1", "2"]
            and _by_task(output.text, r"curl: \(\d+\)") == ["0", "1", "2"]
        ),
    )


def _look_until_up(login: _Login) -> Output:
    """Look until every node shows a process, the same listener and a file of ours; exit code TIMED_OUT if none does."""
    deadline = time.monotonic() + _UP_TIMEOUT_S
    while True:
        found = login.look(ours_only=True)
        same_address = len({traces.listeners for traces in found.values()}) == 1
        if same_address and all(traces.all_kinds for traces in found.values()):
            return Output(_table(found))
        if time.monotonic() > deadline:
            return Output(_table(found), TIMED_OUT)
        time.sleep(0.1)


def _table(found: dict[str, Traces]) -> str:
    where = f"{USER}'s processes, listeners and files in {', '.join(_WRITABLE)}"
    rows = [f"{node}  {row}" for node, traces in found.items() for row in traces.rows(f"/home/{USER}")]
    return "\n".join((where, *rows))


def _finish_job(login: _Login) -> Output:
    """Let the job go on to its end, wait for that, and return what it printed."""
    queued = login.bash("touch looked", "squeue --noheader --format=%A").text.split()
    if len(queued) != 1:
        return Output(f"{len(queued)} jobs are queued, not one", 1)
    try:
        result = login.lab.wait_job(int(queued[0]))
    except LabError as error:
        return Output(str(error), TIMED_OUT)
    return Output(result.output, result.exit_code)


def _look_for_anything(login: _Login) -> Output:
    """Look for whatever the user has on the nodes; exit code 1 if there is anything."""
    found = login.look(ours_only=False)
    return Output(_table(found), 0 if all(traces.none for traces in found.values()) else 1)


def _after(login: _Login) -> Iterator[Act]:
    yield Act(
        f"After the job: the same places, now for anything at all of {USER}'s",
        (),
        functools.partial(_look_for_anything, login),
        "no process, no listener and no file is left on any node",
        lambda output: output.code == 0,
    )
    yield _act(
        login,
        "Take it all out of the account",
        ("hpcproxy uninstall", "ls -A"),
        "~/.hpcproxy is gone, and ~/.bashrc has no block of ours any more",
        r"removed .*config\.yaml$",
        r"changed .*~/\.bashrc$",
    )

"""A node of one's own for Prolog, supervisor and Epilog as they are installed: own mounts, own network, two users."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from hpcproxy.files.plan import EPILOG, PROLOG
from hpcproxy.files.render import render
from tests.cluster.cases import plan
from tests.waiting import until

ALICE, BOB, NUMBER = 2001, 2002, 2500
# Process ids are this machine's, and so are the variables that tell a job's processes: no two runs have the same.
JOB = 400000 + os.getpid() % 1000000 * 2
OTHER_JOB = JOB + 1
ADDRESS = f"127.{64 + (JOB >> 16 & 63)}.{JOB >> 8 & 255}.{JOB & 255}"
SOON_S = 5.0  # half a second where nothing else runs; what a user left would take minutes
PASSWD = f"""root:x:0:0:root:/root:/bin/bash
alice:x:{ALICE}:{ALICE}::/home/alice:/bin/bash
bob:x:{BOB}:{BOB}::/home/bob:/bin/bash
hpcproxy:x:2300:2300::/nonexistent:/usr/sbin/nologin
"""
NAMESAKE = f"{ALICE}:x:{NUMBER}:{NUMBER}::/home/number:/bin/bash\n"  # whose name is alice's number
MADE = f"""set -e
ip link set lo up
mount -t tmpfs -o mode=755 none /mnt
mkdir /mnt/lib /mnt/etc
printf '%s' "$0" >/mnt/etc/passwd
printf 'root:x:0:\\nalice:x:{ALICE}:\\n{ALICE}:x:{NUMBER}:\\n' >/mnt/etc/group
mount --bind /mnt/etc/passwd /etc/passwd
mount --bind /mnt/etc/group /etc/group
echo ready
exec sleep infinity
"""


class Node:
    """Scripts below /mnt of a mount and network namespace; process ids are this machine's."""

    def __init__(self, pid: int, **told: object) -> None:
        self.pid = pid
        self.root = Path(f"/proc/{pid}/root")
        self.run_base = self.root / "mnt/run"
        whole = plan(**told)
        values = {**whole.values, "run": Path("/mnt/run"), "home": Path("/mnt/lib")}
        artifacts = tuple(replace(each, path=Path("/mnt/lib", each.name)) for each in whole.artifacts)
        for file in render(replace(whole, values=values, artifacts=artifacts)).files:
            self.put(f"/mnt/lib/{file.artifact.name}", file.content.decode("latin-1"), file.artifact.mode)

        self.put("/mnt/lib/in-force", "", 0o644)

    def put(self, path: str, text: str, mode: int = 0o755) -> None:
        """A file of the node's."""
        where = self.root / path[1:]
        where.write_bytes(text.encode("latin-1"))
        where.chmod(mode)

    def edit(self, name: str, old: str, new: str) -> None:
        """An installed script says something else."""
        text = (self.root / "mnt/lib" / name).read_text()
        assert old in text
        self.put(f"/mnt/lib/{name}", text.replace(old, new))

    def way(self, script: str) -> None:
        """What stands for tunnel.sh: it finds JOB RESTART MODE STATE UID as $2 to $6."""
        self.put("/mnt/lib/tunnel.sh", f"#!/bin/bash\n{script}\n")

    def instead(self, program: str, script: str) -> None:
        """The node has this in the place of a system's program."""
        name = Path(program).name
        self.put(f"/mnt/etc/{name}", f"#!/bin/sh\n{script}\n")
        self.call("mount", "--bind", f"/mnt/etc/{name}", program)

    def command(self, *argv: str, uid: int = 0) -> list[str]:
        """The command line that runs `argv` there."""
        become = [] if uid == 0 else ["setpriv", f"--reuid=+{uid}", f"--regid=+{uid}", "--clear-groups", "--"]
        return ["nsenter", "-t", str(self.pid), "-m", "-n", "--", *become, *argv]

    def call(self, *argv: str, uid: int = 0) -> str:
        """What `argv` prints there."""
        done = subprocess.run(self.command(*argv, uid=uid), capture_output=True, text=True, check=False, timeout=60)
        return done.stdout + done.stderr

    def slurmd(self, name: str, job: int, more: Sequence[str] = (), uid: int = ALICE) -> float:
        """Run Prolog or Epilog as slurmd does; how many seconds it and its outputs were open."""
        words = [f"SLURM_JOB_ID={job}", f"SLURM_JOB_UID={uid}", "SLURMD_NODENAME=c1", "SLURM_NODELIST=c1", *more]
        begun = time.monotonic()
        done = subprocess.run(
            self.command("setsid", "-w", "env", "-i", *words, f"/mnt/lib/{name}"),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
            timeout=60,
        )
        assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
        return time.monotonic() - begun

    def prolog(self, job: int = JOB, more: Sequence[str] = (), uid: int = ALICE) -> None:
        """The job begins."""
        self.slurmd(PROLOG, job, more, uid)

    def epilog(self, job: int = JOB) -> float:
        """The job ends; how long that took."""
        return self.slurmd(EPILOG, job)

    def record(self, job: int = JOB) -> dict[str, list[str]]:
        """What root has on record."""
        lines = (self.run_base / f"holders/{job}.0").read_text().splitlines()
        return {word: rest for word, *rest in map(str.split, lines)}

    def said(self, job: int = JOB) -> str:
        """What the tunnel has said, as root has written it down."""
        path = self.run_base / f"holders/{job}.0.said"
        return path.read_text() if path.exists() else ""

    def await_word(self, word: str, job: int = JOB) -> str:
        """All that was said, once `word` is there."""
        return until(lambda: self.said(job) if word in self.said(job) else "", f"{word!r} in {self.said(job)!r}")

    def left(self) -> list[str]:
        """What there is of tunnels: files, mounts, processes of the two users'."""
        found = [str(path) for path in self.run_base.glob("holders/*")]
        found += [str(path) for path in self.run_base.glob("[0-9]*")]
        found += [line for line in (self.root / "proc/mounts").read_text().splitlines() if "/mnt/run" in line]
        return found + [f"{pid} {command}" for pid, command in self.processes()]

    def processes(self) -> list[tuple[int, str]]:
        """Processes in the node's network, but the first and what is root's own for a moment."""
        found = ((int(path.name), self._command(path)) for path in Path("/proc").glob("[0-9]*"))
        return [(pid, command) for pid, command in found if command and pid != self.pid]

    def _command(self, process: Path) -> str:
        """The words of a process in this network; nothing of one that is elsewhere, or has ended."""
        try:
            if not (process / "ns/net").samefile(f"/proc/{self.pid}/ns/net"):
                return ""
            return (process / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            return ""


@contextmanager
def made() -> Iterator[int]:
    """The process that holds a node's namespaces; whatever is left in them goes with it."""
    argv = ["unshare", "--mount", "--net", "--propagation", "private", "bash", "-c", MADE, PASSWD]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as supervisor:
        try:
            assert supervisor.stdout is not None
            assert supervisor.stdout.readline() == "ready\n"
            yield supervisor.pid
        finally:
            supervisor.kill()

"""Who exists in the lab: system accounts as on the machine, and alice and bob with homes and ssh keys."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path

from hpcproxy.lab.machine import Machine
from hpcproxy.lab.spec import USERS

SERVICE_USERS = {"munge": 990, "slurm": 991, "sshd": 992, "hpcproxy": 989}  # ids for machines whose packages made none
_FIRST_PERSON = 1000
_FIRST_SERVICE_AGAIN = 60000  # Debian gives slurm 64030
KEY = ".ssh/id_ed25519"


def create(machines: Iterable[Machine]) -> None:
    """Create the same users on every host, with homes for alice and bob whose keys open the jump hosts."""
    every = tuple(machines)
    passwd, group, shadow = _tables()
    for machine in every:
        machine.put("/etc/passwd", passwd)
        machine.put("/etc/group", group)
        machine.put("/etc/shadow", shadow, mode=0o640)
        machine.path("/etc/gshadow").unlink(missing_ok=True)
    shared = next(machine for machine in every if machine.host.in_cluster)
    jumps = [machine for machine in every if machine.host.role == "jump"]
    for machine in (shared, *jumps):
        for user, uid in USERS.items():
            _make_home(machine, user, uid)
    for user, uid in USERS.items():
        shared.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", user, "-f", KEY], user, check=True)
        public = shared.path(f"/home/{user}/{KEY}.pub").read_text()
        for machine in jumps:
            machine.put(f"/home/{user}/.ssh/authorized_keys", public, 0o600, (uid, uid))


def admit_root(controller: Machine, nodes: Iterable[Machine]) -> None:
    """Root on the controller has a key, and it opens the nodes."""
    controller.directory("/root/.ssh", 0o700)
    command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "admin", "-f", f"/root/{KEY}"]
    controller.run(command, check=True)
    public = controller.path(f"/root/{KEY}.pub").read_text()
    for node in nodes:
        node.directory("/root/.ssh", 0o700)
        node.put("/root/.ssh/authorized_keys", public, 0o600)


def ids(machine: Machine, user: str) -> tuple[int, int]:
    """Return the uid and gid of `user` on `machine`."""
    rows = (line.split(":") for line in machine.path("/etc/passwd").read_text().splitlines())
    return next((int(row[2]), int(row[3])) for row in rows if row[0] == user)


def _make_home(machine: Machine, user: str, uid: int) -> None:
    home = machine.directory(f"/home/{user}", 0o700, (uid, uid))
    machine.directory(f"/home/{user}/.ssh", 0o700, (uid, uid))
    for skeleton in sorted(Path("/etc/skel").glob(".*")):
        if skeleton.is_file():
            shutil.copyfile(skeleton, home / skeleton.name)
            shutil.chown(home / skeleton.name, uid, uid)


def _tables() -> tuple[str, str, str]:
    """Return passwd, group and shadow of the lab: no person of the machine is in them, no password opens anything."""
    people = {"root", *USERS}
    users = _machine_rows("/etc/passwd", people, 2)
    groups = _machine_rows("/etc/group", people, 2)
    users.insert(0, ["root", "x", "0", "0", "root", "/root", "/bin/bash"])
    groups.insert(0, ["root", "x", "0", ""])
    for name, uid in SERVICE_USERS.items():
        if name not in {row[0] for row in users}:
            users.append([name, "x", str(uid), str(uid), "", "/nonexistent", "/usr/sbin/nologin"])
            groups.append([name, "x", str(uid), ""])
    for name, uid in USERS.items():
        users.append([name, "x", str(uid), str(uid), name, f"/home/{name}", "/bin/bash"])
        groups.append([name, "x", str(uid), ""])
    # "*" and not "!": sshd without PAM refuses the keys of a locked account
    shadow = [[row[0], "*", "19000", "0", "99999", "7", "", "", ""] for row in users]
    return _table(users), _table(groups), _table(shadow)


def _machine_rows(path: str, without: set[str], id_column: int) -> list[list[str]]:
    rows = (line.split(":") for line in Path(path).read_text().splitlines() if line.count(":") >= id_column)
    return [row for row in rows if row[0] not in without and _is_service(row[id_column])]


def _is_service(number: str) -> bool:
    return number.isdigit() and not _FIRST_PERSON <= int(number) < _FIRST_SERVICE_AGAIN


def _table(rows: Iterable[list[str]]) -> str:
    return "".join(":".join(row) + "\n" for row in rows)

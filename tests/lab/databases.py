"""Databases and a mail server on the lab's internet: the real ones, found by one name from the jump hosts."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from hpcproxy.lab import Lab, Machine
from hpcproxy.lab.spec import INTERNET

from .researcher import until
from .services import name
from .standins import DOMAIN

HOST = f"db.{DOMAIN}"
TOOLS: Mapping[str, str] = {
    "redis-server": "redis-server",
    "mariadbd": "mariadb-server",
    "/usr/lib/postgresql/15/bin/postgres": "postgresql-15",
}
_AT = "/srv/databases"
_POSTGRES = "/usr/lib/postgresql/15/bin"
_NOBODY = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--")
_PORTS = (25, 3306, 5432, 6379)


@contextmanager
def running(lab: Lab, token: str) -> Iterator[None]:
    """PostgreSQL, MariaDB, Redis and a mail server listen at HOST's usual ports, and each has the token."""
    internet = lab.machine(INTERNET)
    name(lab, internet, ("db",))
    internet.run(["rm", "-rf", _AT], check=True)
    internet.run(["install", "-d", "-o", "nobody", "-m", "755", _AT, f"{_AT}/run"], check=True)
    sql = f"create table lab (token text); insert into lab values ('{token}');"  # noqa: S608 - the lab's own token
    _make_postgres(internet, sql)
    _make_mariadb(internet, sql)
    redis = [
        "redis-server",
        "--port",
        "6379",
        "--bind",
        "0.0.0.0",
        "--protected-mode",
        "no",
        "--dir",
        _AT,
        "--save",
        "",
    ]
    commands = (
        [*_NOBODY, f"{_POSTGRES}/postgres", "-D", f"{_AT}/pg", "-h", "0.0.0.0", "-k", f"{_AT}/run"],
        _mariadbd("--bind-address=0.0.0.0", "--port=3306"),
        [*_NOBODY, *redis],
        [sys.executable, str(Path(__file__).parent / "standins" / "mail.py"), token],
    )
    log = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "cwd": "/"}
    started = [internet.popen(argv, **log) for argv in commands]
    try:
        until(lambda: {port for _, port, _ in lab.listeners(INTERNET)} >= set(_PORTS), "all of them listen")
        until(lambda: internet.run(["redis-cli", "set", "token", token]).returncode == 0, "Redis has the token")
        yield
    finally:
        for process in started:
            process.terminate()
            process.wait()
        internet.run(["rm", "-rf", _AT])


def _make_postgres(internet: Machine, sql: str) -> None:
    make = [
        f"{_POSTGRES}/initdb",
        "-D",
        f"{_AT}/pg",
        "-U",
        "me",
        "-A",
        "trust",
        "--no-sync",
        "-E",
        "UTF8",
        "--locale=C",
    ]
    internet.run([*_NOBODY, *make], check=True, cwd=_AT)
    rule = "host all all all trust\nlocal all all trust\n"
    (internet.path(f"{_AT}/pg/pg_hba.conf")).write_text(rule)
    single = [*_NOBODY, f"{_POSTGRES}/postgres", "--single", "-D", f"{_AT}/pg", "-j", "postgres"]
    internet.run(single, input=sql + "\n\n", check=True, cwd=_AT)


def _make_mariadb(internet: Machine, sql: str) -> None:
    make = [
        "mariadb-install-db",
        "--no-defaults",
        "--user=nobody",
        f"--datadir={_AT}/my",
        "--auth-root-authentication-method=normal",
    ]
    internet.run(make, check=True, cwd=_AT)
    words = f"create database lab; use lab; create user me; grant all on *.* to me; {sql}"
    lines = "".join(f"{word.strip()};\n" for word in words.split(";") if word.strip())  # one to a line
    internet.path(f"{_AT}/init.sql").write_text(lines)


def _mariadbd(*more: str) -> list[str]:
    own = [f"--datadir={_AT}/my", f"--socket={_AT}/run/my", f"--pid-file={_AT}/run/pid", f"--init-file={_AT}/init.sql"]
    return ["mariadbd", "--no-defaults", "--user=nobody", *own, *more]

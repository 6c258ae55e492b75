"""Databases and mail: they know no proxy, and go by the manual's lines with `hpcproxy nc`. The far ends are real."""

from __future__ import annotations

from .clients import Client
from .databases import HOST
from .further import Further
from .manual import snippet
from .researcher import OUTER1

_SOCAT = {"socat": "socat"}
_LISTENS = 'for _ in $(seq 100); do test -S "$1" || ss -Hltn | grep -q "$1" && return; sleep 0.1; done'
_WAIT = f"listens() {{ {_LISTENS}; }}\n"


def _by_the_manual(beginning: str, listener: str) -> str:
    """The manual's lines, for the lab's host; the second begins once the first listens."""
    lines = snippet("sh", beginning).replace("db.example.org", HOST).replace("mail.example.org", HOST)
    first, rest = lines.split("\n", 1)
    return f"{_WAIT}{first}\nlistens {listener}\n{rest}kill %1\n"


_PSQL = _by_the_manual("socat TCP-LISTEN", "127.0.0.1:5432").replace(
    "-c 'select 1'", "-At -c 'select token, inet_client_addr() from lab'"
)
_MYSQL = _by_the_manual("socat UNIX-LISTEN", "tmp/db").replace(
    "-e 'select 1'", "-N -e 'select token, user() from lab.lab'"
)
_REDIS = (
    _by_the_manual("socat UNIX-LISTEN", "tmp/db")
    .replace("3306", "6379")
    .replace(
        "mysql --socket=\"$TMPDIR/db\" -u me -e 'select 1'",
        'for what in "get token" "client info"; do redis-cli -s "$TMPDIR/db" $what; done',
    )
)
_SWAKS = snippet("sh", "swaks ").replace("mail.example.org", HOST).replace(" --tls", "")

RAW = tuple(
    Further(Client(name, version, script, f"says {OUTER1}"), apt=apt, says="(?i)error|fail")
    for name, version, script, apt in (
        ("psql", "psql --version", _PSQL, {**_SOCAT, "psql": "postgresql-client"}),
        ("mysql", "mysql --version", _MYSQL, {**_SOCAT, "mysql": "mariadb-client"}),
        ("redis-cli", "redis-cli --version", _REDIS, {**_SOCAT, "redis-cli": "redis-tools"}),
        ("swaks", "swaks --version", _SWAKS, {"swaks": "swaks"}),
    )
)

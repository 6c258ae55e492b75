"""What the tunnel's own shell parts say of this machine, so that nobody judges it twice. Starts bash; changes nothing.

The parts are those of tunnel.sh; the script is templates/lib/doctor/look.sh.
"""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hpcproxy import heard, process
from hpcproxy.errors import TunnelError
from hpcproxy.files.plan import Artifact, Plan
from hpcproxy.files.render import render

_ASK_S = 30


@dataclass(frozen=True)
class Certificate:
    """A user's certificate: `end` in local time (2026-11-30T21:00:00), empty if there is none.

    `fault` is why it is no use for the account, empty if it is.
    """

    path: Path
    end: str
    fault: str


def certificates(account: str, paths: Sequence[Path], environ: Mapping[str, str]) -> list[Certificate]:
    """Return what each of `paths` that is a certificate says of itself, for a login to `account`."""
    rows = _ask(("certificate", account, *map(str, paths)), environ)
    return [Certificate(Path(path), end, fault) for path, end, fault in rows]


def listener(job: str, port: int, environ: Mapping[str, str]) -> tuple[str, str]:
    """Return where the tunnel of `job`, or of `shell`, listens, and whose process is there, empty if nobody's is."""
    rows = _ask(("listener", job), environ, port)
    return (rows[0][0], rows[0][1].strip(" ()")) if rows else ("", "")


def nodes(environ: Mapping[str, str]) -> list[str]:
    """Return the nodes of the job that `environ` is in, none outside of one."""
    return [row[0] for row in _ask(("nodes",), environ)]


def _ask(words: Sequence[str], environ: Mapping[str, str], port: int = 0) -> list[list[str]]:
    artifact = Artifact("look.sh", "doctor/look.sh.j2", Path("look.sh"), 0o700, "")
    script = render(Plan((artifact,), {"port": port}, {})).files[0].content
    try:
        done = process.run(("/bin/bash", "-p", "-s", *words), script, timeout_s=_ASK_S, environ=environ)
    except OSError as error:
        raise TunnelError("shell", f"/bin/bash cannot be run: {error.strerror}") from None
    except subprocess.TimeoutExpired:
        raise TunnelError("shell", f"this machine's own programs have not answered for {_ASK_S} s") from None
    if done.returncode:
        raise TunnelError("shell", heard.last_line(done.stderr) or f"look.sh ended with code {done.returncode}")
    return [heard.fields(line).split("\t") for line in done.stdout.decode(errors="replace").splitlines()]

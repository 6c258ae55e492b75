"""What this account logs in with, compared with a job's time limit before it is submitted. Starts bash; read-only.

The tunnel's own script judges it (templates/lib/tunnel/credentials.sh), as it does when the job begins.
"""

from __future__ import annotations

import subprocess
from collections.abc import Mapping

from hpcproxy import heard, process
from hpcproxy.config.model import Config
from hpcproxy.config.places import Home
from hpcproxy.files.plan import TUNNEL, account_plan
from hpcproxy.files.render import render

_ASK_S = 30


def too_short(config: Config, home: Home, environ: Mapping[str, str], limit_s: int | None) -> list[str]:
    """Return a sentence on what does not outlast a job of `limit_s` seconds that is submitted now, none if all does.

    Of a job whose limit is not known two weeks are reckoned with. What cannot be asked is said when the job begins.
    """
    if not config.jump_hosts:
        return []
    script = render(account_plan(config, home).only(TUNNEL)).files[0].content
    words = ("/bin/bash", "-p", "-s", "credentials", str(limit_s or 0))
    try:
        done = process.run(words, script, timeout_s=_ASK_S, environ=environ)
    except (OSError, process.TooMuchError, subprocess.TimeoutExpired):
        return []
    return [heard.line(line, 1000) for line in done.stdout.decode(errors="replace").splitlines()[:1]]

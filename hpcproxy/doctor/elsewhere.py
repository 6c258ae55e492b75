"""The same checks, made on a node: by a step of a job, or by one srun of its own. Runs Slurm's programs.

What the node says is another machine's word: it is read as JSON of the known form, and made fit to be shown.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass

from hpcproxy import heard, process
from hpcproxy.account import job_status
from hpcproxy.doctor.finding import Finding, Found, Mark, broken

LIMIT_S = 600
_IMMEDIATE_S = 60  # whoever waits at a terminal gives up sooner than a job does
_MOST = 200  # checks
_WORDS_MAX = 400
_NAME_MAX = 60


@dataclass(frozen=True)
class Where:
    """On which node: the first one of `job`, or, without a job, one that Slurm gives for it."""

    job: str = ""

    def words(self) -> tuple[str, ...]:
        """Return the srun that starts one program there."""
        if self.job:
            return job_status.step(self.job, 1, "hpcproxy-doctor")
        size = ("--nodes=1", "--ntasks=1", "--time=15", "--job-name=hpcproxy-doctor")
        return ("srun", *size, "--quiet", "--chdir=/", f"--immediate={_IMMEDIATE_S}")


def look(where: Where, environ: Mapping[str, str], *, endpoints: bool) -> list[Found]:
    """Return what the checks find there; that nobody could look is a finding, too."""
    here = () if endpoints else ("--no-endpoints",)
    argv = (*where.words(), sys.executable, "-m", "hpcproxy", "doctor", "--json", *here)
    try:
        done = process.run(argv, timeout_s=LIMIT_S, environ=job_status.outside(environ))
    except FileNotFoundError:
        return _not_looked("srun is not on PATH here; use --job and --on-node where jobs are submitted")
    except (OSError, process.TooMuchError) as error:
        return _not_looked(f"srun: {error}")
    except subprocess.TimeoutExpired:
        return _not_looked(f"the node has not answered for {LIMIT_S} s")
    try:
        return _read(done.stdout)
    except (ValueError, TypeError, LookupError, AttributeError):
        said = heard.last_line(done.stderr) or heard.last_line(done.stdout) or f"exit code {done.returncode}"
        return _not_looked(f"{said} (is {sys.executable} there for nodes, too?)")


def _not_looked(why: str) -> list[Found]:
    return [Found("node", "job", broken(f"on the node: {why}"))]


def _read(said: bytes) -> list[Found]:
    """Return what a doctor's JSON says, in the last line of `said`; raises ValueError and its like for any other."""
    told = json.loads(said.splitlines()[-1])
    node = heard.line(str(told["node"]), _NAME_MAX)
    return [_found(one, node) for one in told["checks"][:_MOST]]


def _found(one: Mapping[str, object], node: str) -> Found:
    finding = Finding(
        Mark(one["mark"]), heard.line(str(one["words"]), _WORDS_MAX), heard.line(str(one.get("fix", "")), _WORDS_MAX)
    )
    name, family = (heard.line(str(one[key]), _NAME_MAX) for key in ("check", "family"))
    return Found(name, family, finding, node)

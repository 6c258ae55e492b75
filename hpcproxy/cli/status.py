"""The command `status`: what was asked for, what is shown, the exit code. Without Invoke: it would take longer."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from hpcproxy.account import site_word, status
from hpcproxy.account.account import Account
from hpcproxy.account.tunnels import Tunnel
from hpcproxy.cli import output, status_page
from hpcproxy.cli.output import say


@dataclass(frozen=True)
class Asked:
    """What was typed: a job or none, and how it is to be shown."""

    job: str = ""
    as_json: bool = False
    long: bool = False


def by_itself(words: Sequence[str], environ: Mapping[str, str], *, quiet: bool) -> int | None:
    """Answer `status` with `words` behind it and return the exit code; None for what the task has to read."""
    asked = _read(words)
    if asked is None:
        return None
    output.be_quiet(quiet)
    with output.quiet_pipe():
        try:
            return answer(asked, Account.of(environ))
        except BaseException as error:
            told = output.told(error)
            if told is None:
                raise
            print(told.text, file=sys.stderr)
            return told.exit_code


def _read(words: Sequence[str]) -> Asked | None:
    """Return what `words` ask for; None where Invoke may read something else in them, or find them wrong."""
    job, seen, rest = "", set[str](), iter(words)
    for word in rest:
        if word in seen or word not in {"--job", "--json", "--long"}:
            return None
        seen.add(word)
        if word == "--job":
            job = next(rest, "")
            if not job or job.startswith("-"):
                return None
    return Asked(job, "--json" in seen, "--long" in seen)


def answer(asked: Asked, account: Account) -> int:
    """Print what `asked` asks for and return the exit code; raises HpcproxyError."""
    return _of_job(asked, account) if asked.job else _here(asked, account)


def _here(asked: Asked, account: Account) -> int:
    tunnels, drifted = status.here(account)
    if asked.as_json:
        print(json.dumps({"tunnels": [tunnel.as_json() for tunnel in tunnels], "drift": [str(p) for p in drifted]}))
    else:
        status_page.show(tunnels, long=asked.long)
        set_up, rolled_out = account.home.config.exists(), account.site_config.exists()
        why = None if tunnels or set_up else site_word.why_none(account.environ)
        if why is not None:
            say(f"this job has none: {why.layer}: {why}")
            return 1
        for line in status_page.next_steps(drifted, set_up=set_up, rolled_out=rolled_out):
            say(line)
    return 0 if any(tunnel.ready for tunnel in tunnels) else 1


def _of_job(asked: Asked, account: Account) -> int:
    found = status.of_job(account, asked.job)
    tunnels = [one for one in found if isinstance(one, Tunnel)]
    without = [one for one in found if isinstance(one, str)]
    if asked.as_json:
        print(json.dumps({"tunnels": [tunnel.as_json() for tunnel in tunnels], "without": without}))
    else:
        if tunnels:
            status_page.show(tunnels, long=asked.long)
        for node in without:
            say(f"{node} has no tunnel of job {asked.job}")
    return 1 if without or not all(tunnel.ready for tunnel in tunnels) else 0

"""The verb `wrap`: a job script gets the hook line or loses it, or it is told how scripts stand to this version."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from hpcproxy import changes
from hpcproxy.account import credentials, job_script, overrides, time_limit
from hpcproxy.account.account import Account
from hpcproxy.account.verbs import settings_of
from hpcproxy.changes import Outcome, Write
from hpcproxy.errors import FileError
from hpcproxy.files import install


@dataclass(frozen=True)
class Wrapped:
    """A job script's new text, whether it differs, and what its owner should know: one line each."""

    content: bytes
    outcome: Outcome
    remarks: list[str]


def wrap(account: Account, script: Path, target: Path | None, *, remove: bool, plain: bool) -> Wrapped:
    """Put the hook line into `script`, or take it out, and write the result to `target` if there is one."""
    before = changes.read(script)
    if before is None:
        raise FileError(script, "does not exist")
    if remove:
        after, remarks = job_script.remove(before), []
    else:
        placed = job_script.place(before, str(script), plain=plain, home=_hook_home(account))
        after, remarks = placed.content, _remarks(account, script, before, placed, target)
    outcome = Outcome.UNCHANGED if after == before else Outcome.CHANGED
    if target is not None:
        mode = None if target.exists() else script.stat().st_mode & 0o777
        (result,) = changes.apply([Write(target, after, mode)])
        outcome = result.outcome
    return Wrapped(after, outcome, remarks)


def _hook_home(account: Account) -> str:
    """Return the directory that a hook line without variables names."""
    return account.environ.get("HPCPROXY_HOME") or job_script.DEFAULT_HOME


def _remarks(
    account: Account, script: Path, before: bytes, placed: job_script.Placed, target: Path | None
) -> list[str]:
    """Return what to know of the script as it will lie there: where the hook is, what nobody heeds, what wins."""
    shown, text = (target, placed.content) if target is not None else (script, before)
    lines = []
    if target is not None:
        where = " and ".join(str(number) for number in placed.lines)
        why = f", without braces: {placed.why}" if placed.why else ", without braces" if placed.plain else ""
        lines.append(f"{target}:{where}: the hook line stands behind all that sbatch reads{why}")
    lines += [
        f"{shown}:{number}: sbatch ignores this #SBATCH line, a command stands before it"
        for number in job_script.ignored_options(text)
    ]
    lines += [
        f"{shown}:{number}: hands another job to sbatch, which needs a hook line of its own"
        for number in job_script.submissions(text)
    ]
    behind = placed.lines[-1] - (0 if target is not None else len(placed.lines))
    others = overrides.in_script(text, str(shown), behind, account.user_home, account.home.directory)
    lines += [str(found) for found in [*others, *overrides.in_tools(account.user_home, account.environ)]]
    config = settings_of(account).config
    return lines + credentials.too_short(config, account.home, account.environ, time_limit.seconds(text))


def check_scripts(account: Account, path: Path) -> list[tuple[Path, job_script.State]]:
    """Return how the script at `path`, or each script with a hook line below that directory, stands to this version."""
    if not path.is_dir():
        text = changes.read(path)
        if text is None:
            raise FileError(path, "does not exist")
        return [(path, job_script.state(text, _hook_home(account)))]
    states = [(file, job_script.state(text, _hook_home(account))) for file, text in install.texts_below(path)]
    return [(file, state) for file, state in states if state is not job_script.State.NONE]

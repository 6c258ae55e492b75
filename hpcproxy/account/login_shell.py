"""Whether the account's own shells will read our block: they are started once and asked. Starts the user's shells."""

from __future__ import annotations

import os
import pwd
import re
import signal
import subprocess
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from hpcproxy.shell_lines import shell_line

_TIMEOUT_S = 10
_MARK = "hpcproxy-block-was-read"  # printed by question.sh
# Read by a login bash: the first that exists, and only that (bash(1), INVOCATION).
LOGIN_FILES = (".bash_profile", ".bash_login", ".profile")
# How bash shows each line that it runs, in trace.sh.
_TRACED = re.compile(r"^\++hpcproxy:(/[^\n:]*):(\d+):(.*)$", re.MULTILINE)
_SYNTAX = re.compile(r": line (\d+): .*(?:syntax error|unexpected|conditional)")
_LEAVES = re.compile(r"(?:^|[\s;&|])(?:return|exit|exec)\b")


# By which of its variables a .bashrc may see that it is a job's: those of a step on one node (srun(1)).
_NUMBERS = (
    "JOB_ID JOBID JOB_NUM_NODES NNODES NTASKS NPROCS STEP_ID STEPID PROCID LOCALID NODEID TASK_PID STEP_NUM_NODES"
)
_NAMES = "JOB_NAME JOB_PARTITION JOB_USER JOB_NODELIST NODELIST STEP_NODELIST CLUSTER_NAME SUBMIT_HOST SUBMIT_DIR"
_IN_A_JOB = {
    **{f"SLURM_{name}": "1" for name in _NUMBERS.split()},
    **{f"SLURM_{name}": "x" for name in _NAMES.split()},
    "SLURMD_NODENAME": "x",
}
# What depends on a terminal, of which there is none here.
_OF_A_TERMINAL = re.compile(r"\btty\b|-t [012]\b")
_UNENDED = re.compile(
    r": line \d+: (?:warning: here-document at line (\d+) |unexpected EOF|syntax error: unexpected end)"
)

Question = tuple[list[str], Mapping[str, str]]


@dataclass(frozen=True)
class Asked:
    """Which of the account's shells read the block; `why` says in one line what is wrong, empty if nothing is.

    `is_other`: the login shell is none that reads a .bashrc.
    """

    login: bool
    interactive: bool
    in_job: bool
    why: str
    is_other: bool = False


# What is typed in another shell; zsh keeps the manners of sh for functions that are defined so (zshbuiltins(1)).
_INSTEAD = {
    "zsh": "for proxy_on add to ~/.zshrc: emulate sh -c '. ~/.hpcproxy/bashrc.sh'",
    "fish": "in place of proxy_on type: hpcproxy env --shell fish | source",
    "tcsh": 'in place of proxy_on type: eval "`hpcproxy env --shell tcsh`"',
    "csh": 'in place of proxy_on type: eval "`hpcproxy env --shell csh`"',
}


def ask(home: Path, environ: Mapping[str, str]) -> Asked:
    """Return which shells of the account read our block: a login shell, a plain one, and one inside a job."""
    shell = _login_shell(environ)
    name = Path(shell).name
    if name != "bash":
        instead = _INSTEAD.get(name, "proxy_on is there in a bash only")
        why = (
            f"your login shell is {name}, which reads no .bashrc: {instead};"
            " job scripts need no .bashrc, the hook line is enough"
        )
        return Asked(login=False, interactive=False, in_job=False, why=why, is_other=True)
    inside = {**environ, **_IN_A_JOB}
    questions = (([shell, "-l"], environ), ([shell], environ), ([shell], inside))
    with ThreadPoolExecutor(len(questions)) as pool:
        login, plain, job = pool.map(lambda question: _reads_block(*question), questions)
    asked = Asked(login, plain, job, "")
    return asked if login and plain and job else replace(asked, why=_why(home, asked, questions))


def login_file(home: Path) -> Path:
    """Return the file that a login bash of this home reads: the first that is there, else .bash_profile."""
    return next((home / name for name in LOGIN_FILES if os.access(home / name, os.R_OK)), home / LOGIN_FILES[0])


def _login_shell(environ: Mapping[str, str]) -> str:
    """Return the account's shell as the system has it; the environment's where the account is not known there."""
    try:
        found = pwd.getpwuid(os.getuid()).pw_shell
    except KeyError:
        found = ""
    return found or environ.get("SHELL") or "/bin/bash"


def _why(home: Path, asked: Asked, questions: Sequence[Question]) -> str:
    bashrc, file = home / ".bashrc", login_file(home)
    _, (plain, environ), (_, inside) = questions
    if not asked.interactive:
        where = _leaver(bashrc, plain, environ)
        if _OF_A_TERMINAL.search(_line_of(bashrc, where)):
            return (
                f"without a terminal no bash of yours gets as far as the block in {bashrc}{where}; try proxy_status in"
                " a new shell, and if it is not found move the block above that"
            )
        return f"no bash of yours gets as far as the block in {bashrc}{where}; move the block above that"
    if not asked.in_job:
        where = _leaver(bashrc, plain, inside)
        return f"inside a job no bash gets as far as the block in {bashrc}{where}; move the block above that"
    where = _leaver(file, plain, environ)
    return f"a login shell does not read ~/.bashrc{where}; add to {file}: [ -r ~/.bashrc ] && . ~/.bashrc"


def _leaver(path: Path, argv: list[str], environ: Mapping[str, str]) -> str:
    """Return ` (line N leaves before it)` for what bash itself shows as the last line of `path` that it ran, or beyond.

    Where it shows none that can leave, the last line of `path` above our block that can. (PS4 from outside is not taken
    from root.)
    """
    rc = shell_line("trace").replace("FILE", path.name) + "\n"
    shown = _run([*argv, "--rcfile", "/dev/stdin", "-i", "-c", ":"], environ, rc.encode(), errors=True)
    ran = _TRACED.findall(shown.decode(errors="replace"))
    if ran:
        file, number, command = ran[-1]
        if _LEAVES.search(command) or _can_leave(Path(file), int(number)):
            return f" (line {number} leaves before it)" if file == str(path) else f" (line {number} of {file} leaves)"
    words = _run([*argv, "-n", str(path)], environ, errors=True).decode(errors="replace")
    unended = _UNENDED.search(words)
    if unended:
        return f" (the here-document of line {unended[1]} has no end)" if unended[1] else " (something has no end)"
    wrong = _SYNTAX.search(words)
    if wrong:
        return f" (line {wrong[1]} is none that bash understands)"
    return _last_that_can_leave(path) or (f" (bash ends at line {ran[-1][1]} of {ran[-1][0]})" if ran else "")


def _line_of(path: Path, where: str) -> str:
    """Return the line of `path` that `where` names, as above."""
    named = re.match(r" \(line (\d+) leaves", where)
    lines = _lines(path)
    return lines[int(named[1]) - 1] if named and int(named[1]) <= len(lines) else ""


def _can_leave(path: Path, number: int) -> bool:
    lines = _lines(path)
    return 0 < number <= len(lines) and bool(_LEAVES.search(lines[number - 1]))


def _last_that_can_leave(path: Path) -> str:
    lines = _lines(path)
    ours = next((n for n, line in enumerate(lines) if line.startswith("# >>> hpcproxy >>>")), len(lines))
    numbers = [
        n for n, line in enumerate(lines[:ours], 1) if not line.lstrip().startswith("#") and _LEAVES.search(line)
    ]
    return f" (line {numbers[-1]} leaves before it)" if numbers else ""


def _lines(path: Path) -> list[str]:
    try:
        return path.read_bytes().decode(errors="replace").splitlines()
    except OSError:
        return []


def _reads_block(argv: list[str], environ: Mapping[str, str]) -> bool:
    """Whether this shell knows what our block defines once its own files are read.

    What says nothing counts as a shell that does not read it: the advice that follows does no harm.
    """
    return _MARK.encode() in _run([*argv, "-i", "-c", shell_line("question")], environ).splitlines()


def _run(argv: list[str], environ: Mapping[str, str], words: bytes = b"", *, errors: bool = False) -> bytes:
    """Return what the shell prints, with its `errors` if asked for; b"" if it cannot be run or needs too long.

    It has no terminal, a session of its own and ten seconds; all that it started ends with it.
    """
    clean = {name: value for name, value in environ.items() if not name.startswith(("BASH_FUNC_", "HPCPROXY_"))}
    clean.update({k: v for k, v in environ.items() if k == "HPCPROXY_HOME"})
    aside = subprocess.STDOUT if errors else subprocess.DEVNULL
    try:
        process = subprocess.Popen(
            argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=aside, env=clean, start_new_session=True
        )
    except OSError:
        return b""
    try:
        output, _ = process.communicate(words, timeout=_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        output = b""
    finally:
        _end(process)
    return output


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the session of a shell that we started: its id is the child's own until that is waited for."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()

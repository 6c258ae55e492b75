"""Whether the account's own shells will read our block: they are started once and asked. Starts the user's shells."""

from __future__ import annotations

import os
import pwd
import re
import signal
import subprocess
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

_TIMEOUT_S = 10
_MARK = "hpcproxy-block-was-read"
# Printed by the shell itself once its files are read; the function is what our block defines.
_QUESTION = f"command -v proxy_on >/dev/null 2>&1 && printf '%s\\n' {_MARK}"
# Read by a login bash: the first that exists, and only that (bash(1), INVOCATION).
LOGIN_FILES = (".bash_profile", ".bash_login", ".profile")
_LEAVES = re.compile(r"(?:^|[\s;&|])(?:return|exit|exec)\b")


@dataclass(frozen=True)
class Asked:
    """Which of the account's shells read the block; `why` says in one line what is wrong, empty if nothing is."""

    login: bool
    interactive: bool
    in_job: bool
    why: str


def ask(home: Path, environ: Mapping[str, str]) -> Asked:
    """Return which shells of the account read our block: a login shell, a plain one, and one inside a job."""
    shell = _login_shell(environ)
    name = Path(shell).name
    if name != "bash":
        why = (
            f"your login shell is {name}, which reads no .bashrc: proxy_on is there in a bash only;"
            " job scripts need no .bashrc, the hook line is enough"
        )
        return Asked(login=False, interactive=False, in_job=False, why=why)
    inside = {**environ, "SLURM_JOB_ID": "1", "SLURM_JOBID": "1"}
    questions = (([shell, "-l", "-i"], environ), ([shell, "-i"], environ), ([shell, "-i"], inside))
    with ThreadPoolExecutor(len(questions)) as pool:
        login, plain, job = pool.map(lambda question: _reads_block(*question), questions)
    return Asked(login, plain, job, _why(home, login=login, plain=plain, job=job))


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


def _why(home: Path, *, login: bool, plain: bool, job: bool) -> str:
    bashrc = home / ".bashrc"
    if not plain:
        return f"no bash of yours gets as far as the block in {bashrc}{_leaver(bashrc)}; move the block above that"
    if not job:
        return f"inside a job no bash gets as far as the block in {bashrc}{_leaver(bashrc)}; move the block above that"
    if not login:
        file = login_file(home)
        return f"a login shell does not read ~/.bashrc{_leaver(file)}; add to {file}: [ -r ~/.bashrc ] && . ~/.bashrc"
    return ""


def _leaver(path: Path) -> str:
    """Return `, it leaves at line N` for the last line above our block that can leave the file, if there is one."""
    try:
        lines = path.read_bytes().decode(errors="replace").splitlines()
    except OSError:
        return ""
    ours = next((n for n, line in enumerate(lines) if line.startswith("# >>> hpcproxy >>>")), len(lines))
    numbers = [
        n for n, line in enumerate(lines[:ours], 1) if not line.lstrip().startswith("#") and _LEAVES.search(line)
    ]
    return f" (line {numbers[-1]} leaves before it)" if numbers else ""


def _reads_block(argv: list[str], environ: Mapping[str, str]) -> bool:
    """Whether this shell knows what our block defines once its own files are read.

    It has no terminal, a session of its own and ten seconds; all that it started ends with it. What says nothing counts
    as a shell that does not read it: the advice that follows does no harm.
    """
    clean = {name: value for name, value in environ.items() if not name.startswith(("BASH_FUNC_", "HPCPROXY_"))}
    clean.update({k: v for k, v in environ.items() if k == "HPCPROXY_HOME"})
    try:
        process = subprocess.Popen(
            [*argv, "-c", _QUESTION],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=clean,
            start_new_session=True,
        )
    except OSError:
        return False
    try:
        output, _ = process.communicate(timeout=_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        output = b""
    finally:
        _end(process)
    return _MARK.encode() in output.splitlines()


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the session of a shell that we started: its id is the child's own until that is waited for."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()

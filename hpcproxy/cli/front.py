"""What the program says before it loads anything: first page, help, version, and what was meant by a wrong word.

Invoke and the tasks take half a second to load on a cold login node; a list of commands must not. No other library.
"""

from __future__ import annotations

import contextlib
import shutil
import sys
from collections.abc import Sequence
from typing import NamedTuple

from hpcproxy import __version__

WHAT = "internet for Slurm jobs on nodes that have none, by a jump host"
_SSH_ANSWERS_S = 5.0
_HELP = ("-h", "--help", "help")
_VERSION = ("-V", "--version")
_UNKNOWN = 2  # exit code of a command line that cannot mean anything, as errors.UsageError


class Command(NamedTuple):
    """A command in the list: one line about it, and how it is typed most often."""

    name: str
    line: str
    example: str


GROUPS: dict[str, tuple[Command, ...]] = {
    "Start": (
        Command("init", "settings, the jump host's key, one login on trial", "init --jump me@login.example.org"),
        Command("install-bashrc", "our files, and the block in ~/.bashrc", "install-bashrc --port 2015"),
        Command("wrap", "put the hook line into a job script", "wrap --in-place job.sh"),
        Command("completion", "tab completion for bash, zsh or fish", "completion --install"),
    ),
    "In a job, or in a shell": (
        Command("run", "one command with the tunnel of this job or shell", "run -- git pull"),
        Command("env", "what a program needs to get out: shell, Java, git, ...", "env --java"),
        Command("nc", "stdin and stdout to HOST PORT; for ssh's ProxyCommand", "nc github.com 22"),
        Command("up", "start a tunnel for shells of this machine, without Slurm", "up"),
        Command("down", "end it", "down"),
        Command("serve", "bring jobs a tunnel from where you are logged in", "serve --job 4711"),
    ),
    "Look": (
        Command("status", "your tunnels here, or those of a job", "status --job 4711"),
        Command("report", "a page about the tunnels of a job, for a browser", "report --job 4711 >report.html"),
        Command("doctor", "what is wrong, and the one command that mends it", "doctor --job 4711"),
        Command("check", "the address that the internet sees, or what failed", "check"),
        Command("render", "the files that are installed, or one of them", "render prologue.sh"),
    ),
    "Undo": (
        Command("uninstall-bashrc", "take the block out of ~/.bashrc", "uninstall-bashrc"),
        Command("uninstall", "remove everything of this account", "uninstall"),
    ),
    "Admin": (
        Command("trust", "the hosts' keys: fetched, shown, kept", "trust --inventory site.yaml"),
        Command("deploy", "roll out to the hosts of an inventory", "deploy --inventory site.yaml --enable"),
        Command("verify", "which hosts differ, and how; changes nothing", "verify --inventory site.yaml"),
        Command("who", "every tunnel that is up now: user, job, node, since, bytes", "who --inventory site.yaml"),
        Command("rollback", "back to the version before", "rollback --inventory site.yaml"),
        Command("undeploy", "remove everything from the hosts", "undeploy --inventory site.yaml"),
        Command("jump-kit", "what the jump host's admin needs for service mode", "jump-kit --inventory site.yaml"),
    ),
    "Lab": (
        Command("demo", "the whole story on this machine, before and after", "demo"),
        Command("lab.up", "a real small Slurm cluster on this machine (root)", "lab.up"),
        Command("lab.run", "run a command on its hosts", "lab.run --node login -- sinfo"),
        Command("lab.down", "remove it", "lab.down"),
    ),
}
COMMANDS = {command.name: command for group in GROUPS.values() for command in group}


def first_page() -> str:
    """Return what `hpcproxy` alone prints: what it is, the start, where to go on."""
    start = (
        ("hpcproxy init --jump USER@HOST", "once: which jump host"),
        ("hpcproxy install-bashrc", "once: our files, a block in ~/.bashrc"),
        ("hpcproxy wrap --in-place job.sh", "each job script; then sbatch as always"),
    )
    steps = "".join(f"  {typed:34}{text}\n" for typed, text in start)
    return (
        f"hpcproxy {__version__}: {WHAT}\n\n{steps}\n"
        "In the job curl, pip, git, SwanLab, W&B and LLM clients get out by themselves.\n"
        "See it first: hpcproxy demo. Is it up: hpcproxy status. All: hpcproxy --help.\n"
        "If it fails: hpcproxy doctor. To read: docs/researcher.md, docs/admin.md.\n"
    )


def help_page() -> str:
    """Return the list of all commands, by who needs them when, with an example for each group."""
    parts = [f"hpcproxy: {WHAT}\n"]
    for title, group in GROUPS.items():
        lines = "".join(f"  {command.name:18}{command.line}\n" for command in group)
        parts.append(f"{title}\n{lines}  {'':18}e.g. hpcproxy {group[0].example}\n")
    parts.append(
        "hpcproxy COMMAND --help says what a command takes. --quiet leaves out all but\n"
        "results and errors; --json, where it is, prints what a script reads.\n"
    )
    return "\n".join(parts)


def version_line() -> str:
    """Return the versions that a report of a fault needs: ours, Python's, that of ssh."""
    python = ".".join(str(part) for part in sys.version_info[:3])
    return f"hpcproxy {__version__} (Python {python}, {_ssh_version()})\n"


def _ssh_version() -> str:
    """What `ssh -V` says of itself; it writes that to stderr."""
    found = shutil.which("ssh")
    if found is None:
        return "no ssh"
    import subprocess  # noqa: PLC0415 - only --version pays for it

    from hpcproxy import process  # noqa: PLC0415

    with contextlib.suppress(OSError, process.TooMuchError, subprocess.TimeoutExpired):
        done = process.run([found, "-V"], timeout_s=_SSH_ANSWERS_S)
        said = done.stderr.decode("ascii", "replace").partition(",")[0].strip()
        if said and said.isprintable():
            return said
    return "an ssh that does not answer"


def nearest(word: str, words: Sequence[str]) -> str | None:
    """Return the one of `words` that was probably meant, or None."""
    from difflib import get_close_matches  # noqa: PLC0415 - only who mistyped pays for it

    found = get_close_matches(word, words, n=1)
    return found[0] if found else None


def unknown(word: str) -> str:
    """Return the sentence about a command that there is not."""
    meant = nearest(word, list(COMMANDS))
    hint = f"; did you mean {meant}?" if meant else "."
    return f"hpcproxy: there is no command {ascii(word)[1:-1]}{hint} All of them: hpcproxy --help\n"


def answer(arguments: list[str]) -> int | None:
    """Answer what needs no task, and return the exit code; None: a task is to be run.

    `help VERB` is `VERB --help`, which is the task's own.
    """
    if not arguments:
        return _print(first_page())
    first = arguments[0]
    if first in _VERSION:
        return _print(version_line())
    if first in _HELP and len(arguments) == 1:
        return _print(help_page())
    word = arguments[1] if first in _HELP else first
    if word.startswith("-") or word in COMMANDS:
        return None
    sys.stderr.write(unknown(word))
    return _UNKNOWN


def _print(text: str) -> int:
    """Who reads it may have gone (`hpcproxy --help | head -1`): no error."""
    with contextlib.suppress(BrokenPipeError):
        sys.stdout.write(text)
        sys.stdout.flush()
    return 0


def without_quiet(arguments: list[str]) -> tuple[list[str], bool]:
    """Return `arguments` without --quiet before a lone `--`, and whether it was there."""
    end = arguments.index("--") if "--" in arguments else len(arguments)
    kept = [word for word in arguments[:end] if word != "--quiet"]
    return kept + arguments[end:], len(kept) < end

"""What bash, zsh and fish need to complete commands and options, and where they look for it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from invoke.collection import Collection

from hpcproxy import changes
from hpcproxy.cli import front
from hpcproxy.errors import UsageError
from hpcproxy.files.render import shell_text

SHELLS = ("bash", "zsh", "fish")
_MODE = 0o644
_LATER = {
    "bash": "new shells have it where the package bash-completion is installed; else: . {path}",
    "zsh": "zsh looks there if ~/.zshrc has, before compinit:  fpath+=({directory})",
    "fish": "new shells have it",
}


def chosen(shell: str | None, environ: Mapping[str, str]) -> str:
    """Return the shell that was named, or that of this account; raises UsageError for one that we do not know."""
    name = shell or Path(environ.get("SHELL", "")).name
    if name not in SHELLS:
        raise UsageError(f"say for which shell: --shell {', '.join(SHELLS[:-1])} or {SHELLS[-1]}")
    return name


def install(shell: str, text: str, environ: Mapping[str, str]) -> tuple[list[changes.Result], str]:
    """Put `text` where `shell` finds it; return what changed and when it takes effect. Raises FileError."""
    path = place(shell, environ)
    done = changes.apply([changes.Write(path, text.encode(), _MODE)])
    return done, _LATER[shell].format(path=path, directory=path.parent)


def remove(shell: str, environ: Mapping[str, str]) -> list[changes.Result]:
    """Take the completion for `shell` away again."""
    path = place(shell, environ)
    return changes.apply([changes.Remove(path)] if path.exists() else [])


def place(shell: str, environ: Mapping[str, str]) -> Path:
    """Return the file of this account's where `shell` looks for the completion of hpcproxy.

    bash: README of bash-completion, "Where should I put it"; fish: its manual, "Where to put completions"; zsh has no
    such place of a user's, `~/.zfunc` is what most programs take.
    """
    home = Path(environ.get("HOME") or "/")
    data = Path(environ.get("XDG_DATA_HOME") or home / ".local/share")
    if shell == "bash":
        directory = Path(environ.get("BASH_COMPLETION_USER_DIR") or data / "bash-completion")
        return directory / "completions/hpcproxy"
    if shell == "zsh":
        return home / ".zfunc/_hpcproxy"
    return Path(environ.get("XDG_CONFIG_HOME") or home / ".config") / "fish/completions/hpcproxy.fish"


def script(commands: Collection, shell: str) -> str:
    """Return the completion of `commands` for `shell`; raises RenderError."""
    return shell_text(f"completion/completion.{shell}.j2", {"rows": list(_rows(commands))})


def _rows(collection: Collection) -> Iterator[tuple[str, str, str]]:
    """Yield each command, a line about it, and its options."""
    for context in collection.to_contexts():
        name = str(context.name)
        flags = sorted(flag for flag in [*context.flags, *context.inverse_flags] if flag.startswith("--"))
        yield name, front.COMMANDS[name].line, " ".join([*flags, "--help"])

"""The manual page hpcproxy(1), in man(7)'s language, from the commands themselves."""

from __future__ import annotations

from collections.abc import Iterator

from invoke.collection import Collection

from hpcproxy import __version__
from hpcproxy.cli import front, program

_FILES = (
    ("~/.hpcproxy/config.yaml", "your settings; docs/configuration.md has every key"),
    ("~/.hpcproxy/known_hosts", "the pinned keys of jump hosts"),
    ("/etc/hpcproxy/config.yaml", "the site's settings, below every user's own"),
)
_CODES = (
    ("0", "all is as it should be"),
    ("1", "it is not, and a line says why"),
    ("2", "the command line or a configuration file cannot be meant"),
)


def page(commands: Collection) -> str:
    """Return the page."""
    return "\n".join(_lines(commands)) + "\n"


def _lines(commands: Collection) -> Iterator[str]:
    yield f'.TH HPCPROXY 1 "" "hpcproxy {__version__}" "User Commands"'
    yield ".SH NAME"
    yield f"hpcproxy \\- {_safe(front.WHAT)}"
    yield ".SH SYNOPSIS"
    yield ".B hpcproxy"
    yield "COMMAND [OPTIONS]"
    yield ".SH DESCRIPTION"
    yield "A Slurm job gets a tunnel of its own through a jump host, on each of its nodes, for as long as it lives."
    yield "Programs that know a proxy use it with no change."
    contexts = {str(context.name): context for context in commands.to_contexts()}
    for title, group in front.GROUPS.items():
        yield f'.SH "{title.upper()}"'
        for command in group:
            told = program.described(contexts[command.name], str(commands[command.name].__doc__))
            yield f".SS {_safe(told.usage)}"
            yield _safe(told.sentence)
            for spelling, text in told.options:
                yield ".TP"
                yield f".B {_safe(spelling)}"
                yield _safe(text)
            yield ".PP"
            yield f"Example: hpcproxy {_safe(command.example)}"
    for title, rows in (("FILES", _FILES), ("EXIT STATUS", _CODES)):
        yield f'.SH "{title}"'
        for name, text in rows:
            yield ".TP"
            yield f".B {_safe(name)}"
            yield _safe(text)
    yield ".SH SEE ALSO"
    yield "ssh(1), sbatch(1), srun(1)"


def _safe(text: str) -> str:
    """Return `text` so that nothing in it is a request or an escape of roff's."""
    escaped = text.replace("\\", "\\e").replace("-", "\\-")
    escaped = "".join(one if one.isascii() else f"\\[u{ord(one):04X}]" for one in escaped)
    return f"\\&{escaped}" if escaped.startswith((".", "'")) else escaped

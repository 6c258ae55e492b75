"""All tasks together, as the program `hpcproxy` and for a checkout's `invoke`."""

from __future__ import annotations

import os
import sys
import textwrap
from collections.abc import Iterator
from typing import Any, NamedTuple

from invoke.collection import Collection
from invoke.context import Context
from invoke.exceptions import Exit, ParseError
from invoke.parser.argument import Argument
from invoke.parser.context import ParserContext
from invoke.program import Program
from invoke.tasks import task

from hpcproxy import __version__
from hpcproxy.cli import admin, completion, doctor, front, lab, output, serve, use, user
from hpcproxy.errors import UsageError

_WIDTH = 80
_HELP: dict[Any, dict[str, str]] = {}  # of each task, whole
_WORDS = {  # what stands for a flag's value in the help; else the flag's own name in capitals
    "jump": "[USER@]HOST[:PORT]",
    "identity": "FILE",
    "adopt": "PATH",
    "through": "[USER@]HOST[:PORT]",
    "output": "FILE",
    "report": "FILE",
    "bundle": "FILE",
    "job": "ID",
    "inventory": "FILE",
    "limit": "NODES",
    "timeout": "SECONDS",
    "root": "DIRECTORY",
    "via": "WAY",
}


@task(
    help={
        "shell": "bash, zsh or fish; without it the one that $SHELL names.",
        "install": "Put it where that shell looks for it.",
        "remove": "Take it away again.",
    }
)
@output.verb
def _completion(_context: Context, shell: str | None = None, install: bool = False, remove: bool = False) -> None:
    """Print tab completion for a shell, or put it where that shell finds it."""
    if install and remove:
        raise UsageError("--install and --remove exclude each other")
    name = completion.chosen(shell, os.environ)
    if remove:
        output.results(completion.remove(name, os.environ))
        return
    text = completion.script(tasks(), name)
    if not install:
        sys.stdout.write(text)
        return
    done, later = completion.install(name, text, os.environ)
    output.results(done)
    output.say(later)


def tasks() -> Collection:
    """Return the collection of everything a user types."""
    collection = Collection(*user.TASKS, *use.TASKS, *serve.TASKS, *doctor.TASKS, *admin.TASKS, lab.demo)
    collection.add_task(_completion, name="completion")
    collection.add_collection(lab.lab_tasks())
    for each in (*collection.tasks.values(), *collection.collections["lab"].tasks.values()):
        # Invoke takes a task's help away from it when it is asked for the first time.
        each.help = dict(_HELP.setdefault(each.body, dict(each.help)))
    return collection


def _help_first(argv: list[str]) -> list[str]:
    """Return `argv` with --help before the task that it is about, which would take it for a file of its own."""
    given = argv[: argv.index("--")] if "--" in argv else argv
    if given[1:2] == ["help"]:
        return [argv[0], "--help", *given[2:3]]
    asked = {"--help", "-h"} & set(given[2:])
    return [argv[0], "--help", argv[1]] if asked and not argv[1].startswith("-") else argv


class _Hpcproxy(Program):
    """Invoke's program, which speaks of our commands and not of its own options."""

    def print_task_help(self, name: str) -> None:
        """Print what one command takes."""
        sys.stdout.write(_help_of(self.parser.contexts[name], str(self.collection[name].__doc__)))

    def parse_tasks(self) -> None:
        """Read the tasks on the command line; what cannot be read is one line that says what to type instead."""
        try:
            super().parse_tasks()
        except ParseError as error:
            raise Exit(f"hpcproxy: {_in_our_words(error, self.core.unparsed)}", code=UsageError.exit_code) from None
        for context in self.tasks:
            for flag in _without_a_value(context, self.core.unparsed):
                raise Exit(f"hpcproxy: {context.name}: {flag} needs a value", code=UsageError.exit_code)


def _arguments(context: ParserContext) -> Iterator[Argument]:
    """Yield each argument once; a context has it by each of its names."""
    seen: list[Argument] = []
    for argument in context.args.values():
        if argument not in seen:
            seen.append(argument)
            yield argument


class Described(NamedTuple):
    """What one command takes, in words: its usage, its sentence, and each option with a text."""

    usage: str
    sentence: str
    options: tuple[tuple[str, str], ...]


def described(context: ParserContext, doc: str) -> Described:
    """Return what the command `context` takes; `doc` is its task's sentence."""
    found = list(_arguments(context))
    words = [argument for argument in found if _is_word(argument)]
    options = [(_word(argument), str(argument.help)) for argument in words]
    options += [(_spelling(argument), str(argument.help)) for argument in found if not _is_word(argument)]
    usage = " ".join(["hpcproxy", str(context.name), *(_word(argument) for argument in words)])
    return Described(usage + (" [OPTIONS]" if len(options) > len(words) else ""), " ".join(doc.split()), tuple(options))


def _help_of(context: ParserContext, doc: str) -> str:
    """Return a command's usage, its sentence, an example, and its options, within 80 columns."""
    told = described(context, doc)
    parts = [told.usage + "\n", _filled(told.sentence, "  ") + "\n"]
    if str(context.name) in front.COMMANDS:
        parts.append(f"  e.g. hpcproxy {front.COMMANDS[str(context.name)].example}\n")
    column = min(30, max((len(spelling) for spelling, _ in told.options), default=0) + 4)
    for spelling, text in told.options:
        body = _filled(text, " " * column)
        head = f"  {spelling}"
        parts.append((head.ljust(column) + body[column:]) if len(head) < column else f"{head}\n{body}")
    return "\n".join(parts) + "\n"


def _filled(text: str, indent: str) -> str:
    return textwrap.fill(text, _WIDTH, initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False)


def _flag(argument: Argument) -> str:
    """An argument's long flag; Invoke keeps underscores and the last one of a word that Python reserves."""
    return str(argument.name).rstrip("_").replace("_", "-")


def _is_word(argument: Argument) -> bool:
    """Whether it is typed without its flag; Invoke calls lists positional too, and they are not."""
    return bool(argument.positional) and argument.kind is not list


def _word(argument: Argument) -> str:
    return _WORDS.get(_flag(argument), _flag(argument).upper())


def _spelling(argument: Argument) -> str:
    if argument.kind is bool:
        return f"--[no-]{_flag(argument)}" if argument.default is True else f"--{_flag(argument)}"
    return f"--{_flag(argument)} {_word(argument)}"


def _in_our_words(error: ParseError, typed: list[str]) -> str:
    """Return what was wrong with the command line that was `typed` behind the program's name."""
    context: Any = error.context
    name = str(context.name) if context is not None and context.name else ""
    words = str(error)
    unread = [word for word in typed if repr(word) in words]
    if name and words.startswith("No idea what") and unread:
        flags = [f"--{_flag(argument)}" for argument in _arguments(context)]
        meant = front.nearest(unread[0], flags) if unread[0].startswith("-") else None
        what = "takes no option" if unread[0].startswith("-") else "takes no further word"
        hint = f"; did you mean {meant}?" if meant else ";"
        return f"{name} {what} {ascii(unread[0])[1:-1]}{hint} See: hpcproxy {name} --help"
    missing = [_word(argument) for argument in context.missing_positional_args] if context is not None else []
    if missing:
        return f"{name}: say {' and '.join(missing)}; see: hpcproxy {name} --help"
    return " ".join(words.split())


def _without_a_value(context: ParserContext, typed: list[str]) -> Iterator[str]:
    """Yield the flags that may be given several times and have no value here, which Invoke takes for nothing."""
    for argument in _arguments(context):
        flags = [f"--{_flag(argument)}", *(f"-{name}" for name in argument.names if len(name) == 1)]
        if argument.kind is list and not argument.value:
            yield from (flag for flag in flags[:1] if set(flags) & set(typed))


def main() -> None:
    """Run the collection as the program `hpcproxy`."""
    arguments, quiet = front.without_quiet(sys.argv[1:])
    output.be_quiet(quiet)
    program = _Hpcproxy(name="hpcproxy", binary="hpcproxy", namespace=tasks(), version=__version__)
    with output.quiet_pipe():
        program.run(_help_first([sys.argv[0], *arguments]))

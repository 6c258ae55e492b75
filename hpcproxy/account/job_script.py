"""Put the hook line into a job script, behind what sbatch and its plugins read, and take it out. Pure: bytes.

sbatch, and the plugins that read the script too (burst buffers: #DW, #BB; #PBS), read up to the first line that is
neither a comment nor blank (sbatch(1), burst_buffer.conf(5)), so the hook must stand behind the last line of that block
which is written for a program: a # with no blank behind it. A script that hands its job to sbatch in a here-document
gets the hook in there, for the outer script runs on the login node.
"""

from __future__ import annotations

import enum
import io
import itertools
import re
from dataclasses import dataclass

from hpcproxy.account import template_lines
from hpcproxy.errors import ScriptError
from hpcproxy.shell_lines import shell_line

MARK = b"# hpcproxy hook"
DEFAULT_HOME = "~/.hpcproxy"

_SHEBANG = re.compile(rb"#!\s*(?P<program>\S+)(?:\s+(?P<arguments>.*))?")
_SHELL = re.compile(rb"(?:bash|sh|dash)(?:-?\d[\d.]*)?")
_SHELLS = "bash, sh, dash"
_DIRECTIVE = re.compile(rb"#[A-Za-z$@%]")
# sbatch as a command of the script, or of one that runs it for each line or word, and not of itself ($0) anew.
_SUBMITS = re.compile(
    rb"(?:^|[;&|(`]|\b(?:if|then|do|else|exec|time)\s|!|\b(?:xargs|parallel|env|nohup)\s(?:[^;&|#]*\s)?['\"]?)"
    rb"\s*(?:\w+=\S*\s+)*(?:/[\w./-]*/)?sbatch(?:\s|$)(?!.*(?:\$0|BASH_SOURCE))"
)
_HERE_DOCUMENT = re.compile(rb"(?<![<(])<<(?P<tabs>-?)[ \t]*\\?(?P<quote>['\"]?)(?P<word>[A-Za-z_][\w.-]*)(?P=quote)")
_SAFE_PATH = re.compile(r"~?[A-Za-z0-9/._+-]+")


class State(enum.Enum):
    """How a job script stands to the hook line of this version."""

    CURRENT = "current"
    STALE = "stale"
    MISPLACED = "misplaced"
    NONE = "not wrapped"


@dataclass(frozen=True)
class Placed:
    """A script with its hook: the lines (from 1) where it stands, in which form, and why the plain one if it is."""

    content: bytes
    lines: tuple[int, ...]
    plain: bool
    why: str


def usual_hook() -> bytes:
    """Return the hook line; its directory is looked up when the job runs."""
    return f"{shell_line('hook')}  ".encode() + MARK


def plain_hook(home: str = DEFAULT_HOME) -> bytes:
    """Return the hook with no brace, dollar, percent sign or backslash in it, for templates and here-documents.

    Its directory is fixed when it is written; raises ScriptError for a `home` that would need quoting there.
    """
    if not _SAFE_PATH.fullmatch(home):
        raise ScriptError(home, "cannot stand in a hook line without quotes; move HPCPROXY_HOME to a plain path")
    line = shell_line("hook_plain").replace("PROLOGUE", f"{home}/prologue.sh")
    return f"{line}  ".encode() + MARK


def put(script: bytes, path: str = "script") -> bytes:
    """Return `script` with the hook line in its place, once; raises ScriptError if it cannot take one."""
    return place(script, path).content


def place(script: bytes, path: str = "script", *, plain: bool = False, home: str = DEFAULT_HOME) -> Placed:
    """Return `script` with the hook line in its place, once; raises ScriptError if it cannot take one.

    The plain form is taken if asked for, if the script has it already, in a template and in a here-document.
    """
    was_plain = any(line.startswith(b"if test ") for line in _hooks(script))
    bare = remove(script)
    lines = io.BytesIO(bare).readlines()
    reads_options = _reads_options(lines[: _end_of_head(lines)])
    jobs = [] if reads_options else _jobs_within(lines)
    why = ""
    if jobs:
        why = "the job is in a here-document"
    elif template_lines.is_one(bare):
        why = "this looks like a template"
    as_plain = plain or was_plain or bool(why)
    hook = plain_hook(home) if as_plain else usual_hook()
    if not jobs:
        _check(lines, path)
        if not reads_options:
            _check_submits(lines, path)
        return _insert(lines, [(_behind_directives(lines), b"")], hook, as_plain, why)
    for job in jobs:
        _check(job.lines, f"{path}:{job.first + 1}")
    places = [(job.first + _behind_directives(job.lines), job.indent) for job in jobs]
    return _insert(lines, places, hook, as_plain, why)


def _insert(lines: list[bytes], places: list[tuple[int, bytes]], hook: bytes, plain: bool, why: str) -> Placed:
    """Return the text with `hook` before each index of `places`, in rising order, behind what indents it."""
    parts: list[bytes] = []
    numbers = []
    begin = 0
    for count, (at, indent) in enumerate(places, 1):
        head = b"".join(lines[begin:at])
        if not head.endswith(b"\n"):  # options and nothing else, without a final newline: the hook has none either
            parts += [head, b"\n" + indent + hook]
        else:
            parts += [head, indent + hook + b"\n"]
        numbers.append(at + count)
        begin = at
    return Placed(b"".join([*parts, *lines[begin:]]), tuple(numbers), plain, why)


def remove(script: bytes) -> bytes:
    """Return `script` without our hook line, byte for byte as before `put`; lines of earlier versions go too."""
    lines = io.BytesIO(script).readlines()
    kept = [line for line in lines if not line.rstrip(b"\n").endswith(MARK)]
    text = b"".join(kept)
    ours_was_last = bool(lines) and lines[-1].endswith(MARK)
    return text[:-1] if ours_was_last else text


def state(script: bytes, home: str = DEFAULT_HOME) -> State:
    """Return how `script` stands to the hook line that this version would put into it."""
    hooks = _hooks(script)
    if not hooks:
        return State.NONE
    if any(hook not in (usual_hook(), plain_hook(home)) for hook in hooks):
        return State.STALE
    try:
        right = place(script, home=home).content
    except ScriptError:
        return State.MISPLACED
    return State.CURRENT if right == script else State.MISPLACED


def ignored_options(script: bytes) -> list[int]:
    """Return the numbers (from 1) of #SBATCH lines that sbatch does not read, because a command stands before them.

    Those in a here-document are read by somebody else, if at all.
    """
    lines = io.BytesIO(script).readlines()
    at = _end_of_head(lines)
    inside = {number for first, last, _ in _here_documents(lines) for number in range(first, last)}
    return [n + 1 for n in range(at, len(lines)) if lines[n].startswith(b"#SBATCH") and n not in inside]


def submissions(script: bytes) -> list[int]:
    """Return the numbers (from 1) of lines that hand another job to sbatch, which gets no hook by this one.

    What is submitted in a here-document with a hook line has one.
    """
    lines = io.BytesIO(script).readlines()
    documents = _here_documents(lines)
    hooked = {body[0] - 1 for body in documents if _hooks(b"".join(lines[body[0] : body[1]]))}
    passed = hooked.union(*(range(first, last) for first, last, _ in documents))
    return [n + 1 for n, line in enumerate(lines) if n not in passed and _hands_on(line)]


def _hands_on(line: bytes) -> bool:
    return bool(_SUBMITS.search(line.split(b" #", 1)[0]))


def _hooks(script: bytes) -> list[bytes]:
    """Return the hook lines in `script`, of whatever version."""
    return [line for line in (raw.strip(b"\t\n") for raw in io.BytesIO(script)) if line.endswith(MARK)]


def _check(lines: list[bytes], path: str) -> None:
    if any(line.endswith(b"\r\n") for line in lines):
        raise ScriptError(path, "has DOS line endings, which sbatch refuses; convert it first (dos2unix)")
    head = lines[_first(lines) :]
    match = _SHEBANG.fullmatch(head[0].rstrip(b"\n")) if head else None
    if match is None:
        raise ScriptError(path, "is not a job script: its first line is no #!, and sbatch wants one")
    if template_lines.is_one(head[0]):
        return  # whoever fills it in says which shell it will be
    words = [match["program"], *(match["arguments"] or b"").split()]
    if words[0].endswith(b"/env"):
        words = list(itertools.dropwhile(lambda word: word.startswith(b"-") or b"=" in word, words[1:])) or words
    shell = words[0].rsplit(b"/", 1)[-1]
    if not _SHELL.fullmatch(shell):
        name, call = shell.decode(errors="replace"), b" ".join(words).decode(errors="replace")
        raise ScriptError(
            path,
            f"is a {name} script; the hook line needs one of {_SHELLS}. Submit a small sh script in its place:"
            f" #!/bin/sh, these #SBATCH lines, and the line: exec {call} {path}; wrap that one",
        )


def _check_submits(lines: list[bytes], path: str) -> None:
    """Raise ScriptError for a script with no options of its own that hands jobs to sbatch: no job runs it itself."""
    for number in submissions(b"".join(lines)):
        raise ScriptError(
            f"{path}:{number}",
            "hands a job to sbatch, and the script has no #SBATCH line of its own: what is submitted here needs the"
            " hook line, not this. Wrap the script that is submitted; where its text stands here (--wrap, a string),"
            f" begin it with: . {DEFAULT_HOME}/prologue.sh;",
        )


def _first(lines: list[bytes]) -> int:
    """Return the index of the first line that is the script's own: before it a template may have lines."""
    kinds = template_lines.lines_of(lines)
    return next((n for n, line in enumerate(lines) if not kinds[n].control and (n == 0 or line.strip())), 0)


def _end_of_head(lines: list[bytes]) -> int:
    """Return the index of the first line that is a command: what stands before it is all that sbatch reads."""
    kinds = template_lines.lines_of(lines)
    for index, line in enumerate(lines):
        ours = not kinds[index].control and not kinds[index].output
        if ours and line.strip() and not line.lstrip().startswith(b"#"):
            return index
    return len(lines)


def _behind_directives(lines: list[bytes]) -> int:
    """Return the index behind the last line of the head that is written for a program, or behind the first line.

    Behind the end of the template's conditions that it stands in, too, if that is still in the head.
    """
    kinds = template_lines.lines_of(lines)
    end = _end_of_head(lines)
    first = _first(lines)
    directives = [n for n in range(end) if _DIRECTIVE.match(lines[n]) or kinds[n].options]
    last = max(directives, default=first)
    return next((n + 1 for n in range(last, end) if kinds[n].depth <= kinds[first].depth), last + 1)


def _reads_options(head: list[bytes]) -> bool:
    return any(line.startswith(b"#SBATCH") for line in head)


@dataclass(frozen=True)
class _Job:
    """A job script in a here-document: its lines without what indents them, and the index of the first."""

    first: int
    lines: list[bytes]
    indent: bytes


def _jobs_within(lines: list[bytes]) -> list[_Job]:
    """Return the here-documents that are job scripts: a #! first, and #SBATCH in their own head or sbatch before it."""
    jobs = []
    for first, last, tabs in _here_documents(lines):
        body = [line.lstrip(b"\t") if tabs else line for line in lines[first:last]]
        indent = lines[first][: len(lines[first]) - len(body[0])]
        is_job = _reads_options(body[: _end_of_head(body)]) or _hands_on(lines[first - 1])
        if body[0].startswith(b"#!") and is_job:
            jobs.append(_Job(first, body, indent))
    return jobs


def _here_documents(lines: list[bytes]) -> list[tuple[int, int, bool]]:
    """Return the bodies of here-documents: the index of the first line, of the one behind the last, whether tabs go.

    What only looks like one (a shift in arithmetic) has no line that ends it, and is none.
    """
    found = []
    index = 0
    while index < len(lines):
        line, index = lines[index], index + 1
        if line.lstrip().startswith(b"#"):
            continue
        for match in _HERE_DOCUMENT.finditer(line):
            last = _end_of_body(lines, index, match["word"], tabs=bool(match["tabs"]))
            if last is not None:
                if last > index:
                    found.append((index, last, bool(match["tabs"])))
                index = last + 1
    return found


def _end_of_body(lines: list[bytes], first: int, word: bytes, *, tabs: bool) -> int | None:
    """Return the index of the line that is `word` alone, None if there is none."""
    for index in range(first, len(lines)):
        line = lines[index].rstrip(b"\n")
        if (line.lstrip(b"\t") if tabs else line) == word:
            return index
    return None

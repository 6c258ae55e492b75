"""Put the hook line into a job script, behind what sbatch and its plugins read, and take it out again. Pure: bytes.

sbatch, and the plugins that read the script too (burst buffers: #DW, #BB; #PBS), read up to the first line that is
neither a comment nor blank (sbatch(1), burst_buffer.conf(5)), so the hook must stand behind the last line of that block
which is written for a program: a # with no blank behind it. A script that hands its job to sbatch in a here-document
gets the hook in there, for the outer script runs on the login node.
"""

from __future__ import annotations

import enum
import io
import re
from dataclasses import dataclass

from hpcproxy.errors import ScriptError

MARK = b"# hpcproxy hook"
HOOK = (
    b'if [ -r "${HPCPROXY_HOME:-${HOME-}/.hpcproxy}/prologue.sh" ]; then'
    b' . "${HPCPROXY_HOME:-${HOME-}/.hpcproxy}/prologue.sh";'
    b" else printf 'hpcproxy: no prologue.sh here; the job runs on without a way out\\n' >&2; fi  " + MARK
)
DEFAULT_HOME = "~/.hpcproxy"

_SHEBANG = re.compile(rb"#!\s*(?P<program>\S+)(?:\s+(?P<arguments>.*))?")
_SHELL = re.compile(rb"(?:bash|sh|dash)(?:-?\d[\d.]*)?")
_SHELLS = "bash, sh, dash"
_DIRECTIVE = re.compile(rb"#[A-Za-z$@%]")
# A name in braces that no shell would write so: {exec_job} of str.format, {{ x }} and {% if %} of Jinja.
_PLACEHOLDER = re.compile(rb"(?<![$\w{}])\{(?!(?:print|next|exit)\})[A-Za-z_][\w.]*\}(?!\})|\{\{ ?[A-Za-z_]|\{%")
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


def plain_hook(home: str = DEFAULT_HOME) -> bytes:
    """Return the hook with no brace, dollar, percent sign or backslash in it, for templates and here-documents.

    Its directory is fixed when it is written; raises ScriptError for a `home` that would need quoting there.
    """
    if not _SAFE_PATH.fullmatch(home):
        raise ScriptError(home, "cannot stand in a hook line without quotes; move HPCPROXY_HOME to a plain path")
    path = f"{home}/prologue.sh"
    missing = "echo hpcproxy: no prologue.sh here, the job runs on without a way out >&2"
    return f"if test -r {path}; then . {path}; else {missing}; fi  ".encode() + MARK


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
    jobs = [] if _reads_options(lines[: _end_of_head(lines)]) else _jobs_within(lines)
    why = ""
    if jobs:
        why = "the job is in a here-document"
    elif _PLACEHOLDER.search(bare):
        why = "this looks like a template"
    as_plain = plain or was_plain or bool(why)
    hook = plain_hook(home) if as_plain else HOOK
    if not jobs:
        _check(bare, path)
        return _insert(lines, [_behind_directives(lines)], hook, as_plain, why)
    for first, last in jobs:
        _check(b"".join(lines[first:last]), f"{path}:{first + 1}")
    return _insert(lines, [first + _behind_directives(lines[first:last]) for first, last in jobs], hook, as_plain, why)


def _insert(lines: list[bytes], places: list[int], hook: bytes, plain: bool, why: str) -> Placed:
    """Return the text with `hook` before each index of `places`, in rising order."""
    parts: list[bytes] = []
    numbers = []
    begin = 0
    for count, at in enumerate(places, 1):
        head = b"".join(lines[begin:at])
        if not head.endswith(b"\n"):  # options and nothing else, without a final newline: the hook has none either
            parts += [head, b"\n" + hook]
        else:
            parts += [head, hook + b"\n"]
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
    if any(hook not in (HOOK, plain_hook(home)) for hook in hooks):
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
    inside = {number for first, last in _here_documents(lines) for number in range(first, last)}
    return [n + 1 for n in range(at, len(lines)) if lines[n].startswith(b"#SBATCH") and n not in inside]


def _hooks(script: bytes) -> list[bytes]:
    """Return the hook lines in `script`, of whatever version."""
    return [line for line in (raw.rstrip(b"\n") for raw in io.BytesIO(script)) if line.endswith(MARK)]


def _check(script: bytes, path: str) -> None:
    if b"\r\n" in script:
        raise ScriptError(path, "has DOS line endings, which sbatch refuses; convert it first (dos2unix)")
    first = script.split(b"\n", 1)[0]
    match = _SHEBANG.fullmatch(first)
    if match is None:
        raise ScriptError(path, "is not a job script: its first line is no #!, and sbatch wants one")
    words = [match["program"], *(match["arguments"] or b"").split()]
    if words[0].endswith(b"/env"):
        words = [word for word in words[1:] if not word.startswith(b"-") and b"=" not in word] or words
    shell = words[0].rsplit(b"/", 1)[-1]
    if not _SHELL.fullmatch(shell):
        name, call = shell.decode(errors="replace"), b" ".join(words).decode(errors="replace")
        raise ScriptError(
            path,
            f"is a {name} script; the hook line needs one of {_SHELLS}. Submit a small sh script in its place:"
            f" #!/bin/sh, these #SBATCH lines, and the line: exec {call} {path}; wrap that one",
        )


def _end_of_head(lines: list[bytes]) -> int:
    """Return the index of the first line that is a command: what stands before it is all that sbatch reads."""
    for index, line in enumerate(lines):
        if line.strip() and not line.lstrip().startswith(b"#"):
            return index
    return len(lines)


def _behind_directives(lines: list[bytes]) -> int:
    """Return the index behind the last line of the head that is written for a program, or behind the first line."""
    head = lines[: _end_of_head(lines)]
    return max((n for n, line in enumerate(head, 1) if _DIRECTIVE.match(line)), default=1)


def _reads_options(head: list[bytes]) -> bool:
    return any(line.startswith(b"#SBATCH") for line in head)


def _jobs_within(lines: list[bytes]) -> list[tuple[int, int]]:
    """Return the here-documents that are job scripts: a #! first, and #SBATCH in their own head."""
    return [
        (first, last)
        for first, last in _here_documents(lines)
        if lines[first].startswith(b"#!") and _reads_options(lines[first : first + _end_of_head(lines[first:last])])
    ]


def _here_documents(lines: list[bytes]) -> list[tuple[int, int]]:
    """Return the bodies of here-documents, each as the index of its first line and the one behind its last.

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
                    found.append((index, last))
                index = last + 1
    return found


def _end_of_body(lines: list[bytes], first: int, word: bytes, *, tabs: bool) -> int | None:
    """Return the index of the line that is `word` alone, None if there is none."""
    for index in range(first, len(lines)):
        line = lines[index].rstrip(b"\n")
        if (line.lstrip(b"\t") if tabs else line) == word:
            return index
    return None

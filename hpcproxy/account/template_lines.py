"""Job scripts that another program fills in first: what of them is the template's, and how deep it nests. Pure: bytes.

Jinja (signac-flow, Snakemake, cookiecutter), brew and ERB (batchtools, EJS: `<% code %>`), mustache, and the formats of
Python (str.format, string.Template, %). Only enough is read to say where a line of shell may stand.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

_BLOCK = re.compile(
    rb"\{%[-+]?\s(?P<jinja>.*?)[-+]?%\}|(?<!\$)\{#.*?#\}|\{\{(?P<section>[#^/])[^{}]*\}\}"
    rb"|<%(?P<mark>[=#]?)-?(?P<code>.*?)-?%>|<\?=?.*?\?>|\{\{[^{}]*\}\}",
    re.DOTALL,
)
# A name in braces that no shell would write so: {exec_job} of str.format, {{ x }} and {% if %} of Jinja.
_PLACEHOLDER = re.compile(
    rb"(?<![$\w{}])\{(?!(?:print|next|exit)\})[A-Za-z_][\w.]*\}(?!\})|\{\{ ?[A-Za-z_#^/]|\{%[-+]?\s"
    rb"|<%[=#-]?[\s\w].*%>|<%\s*\n"
)
# Nobody expands anything in sbatch's options or a #!: who writes so means another program, or errs.
_IN_OPTION = re.compile(rb"^#(?:SBATCH|!).*(?:\$\{?[A-Za-z_]|%\([A-Za-z_]\w*\)[a-z]|@[A-Za-z_]\w*@|<\?)", re.MULTILINE)
# A line that is nothing but a name, which by that name stands for options: ${scheduler_options}, {{ header }}.
_OPTIONS = re.compile(
    rb"\s*(?:\$\$?\{?|\{\{?|<%=|<\?=|%\(|@)\s*[\w.$]*"
    rb"(?:option|overrid|header|directive|resource|sbatch|slurm|asis|scheduler)[^{}<>@]*(?:\}\}?|%>|\?>|\)s|@)?\s*",
    re.IGNORECASE,
)
_OPENS = (b"if", b"for", b"with", b"call", b"filter", b"macro", b"raw", b"autoescape", b"trans", b"while", b"unless")
_DO = re.compile(rb"\bdo\s*(?:\|[^|]*\|)?\s*$")


@dataclass(frozen=True)
class Line:
    """What a line is to the template: nothing but its own (`control`), text it puts in (`output`), or neither.

    `options` is text that it puts in and that are options for sbatch.

    `depth` is how many conditions and loops of the template are open behind it; blocks that only have a name do not
    count.
    """

    control: bool = False
    output: bool = False
    options: bool = False
    depth: int = 0


def is_one(script: bytes) -> bool:
    """Return whether `script` looks like a template."""
    return bool(_PLACEHOLDER.search(script) or _IN_OPTION.search(script))


def lines_of(lines: Sequence[bytes]) -> list[Line]:
    """Return what each of `lines` is to the template."""
    text = b"".join(lines)
    if not is_one(text):
        return [Line()] * len(lines)
    blocks = [(found.start(), found.end(), _depth(found), _is_output(found)) for found in _BLOCK.finditer(text)]
    result = []
    at = depth = 0
    for line in lines:
        end = at + len(line)
        here = [block for block in blocks if block[0] < end and block[1] > at]
        rest = bytearray(line)
        for start, stop, _, _ in here:
            rest[max(0, start - at) : stop - at] = b" " * (min(stop - at, len(line)) - max(0, start - at))
        depth += sum(change for _, stop, change, _ in here if at < stop <= end)
        whole = bool(here) and not rest.strip()
        puts = any(block[3] for block in here)
        options = bool(_OPTIONS.fullmatch(line)) or (whole and puts and b"#SBATCH" in line)
        result.append(Line(whole and not puts, options or (whole and puts), options, max(0, depth)))
        at = end
    return result


def _is_output(found: re.Match[bytes]) -> bool:
    text = found[0]
    return text.startswith((b"<%=", b"<?=")) or (text.startswith(b"{{") and not found["section"])


def _depth(found: re.Match[bytes]) -> int:
    """Return by how much the block changes the depth."""
    if found["section"]:
        return -1 if found["section"] == b"/" else 1
    if found["jinja"] is not None:
        word = (found["jinja"].split() or [b""])[0]
        return int(word in _OPENS) - int(word.startswith(b"end") and word != b"endblock")
    code = b"" if found["mark"] else (found["code"] or b"").strip()
    if b"{" in code or b"}" in code:
        return code.count(b"{") - code.count(b"}")
    word = re.split(rb"\W", code)[0]
    return int(word in _OPENS or word == b"case" or bool(_DO.search(code))) - int(word == b"end")

"""docs/demo.svg: what `hpcproxy demo` prints on the lab, the parts that tell the story, as a still picture.

    python bench/demo_picture.py [FILE]

Runs the demo, or takes what it has printed before from FILE. Ends with 1 if the demo did not come out right.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path

PICTURE = Path(__file__).resolve().parents[1] / "docs" / "demo.svg"
TITLES = (
    "Before: the nodes do not reach the internet by name",
    "Write a job script",
    "The job's output",
    "After the job",
    # Of the demo without root.
    "Before: this shell",
    "Start the tunnel",
    "The same by an ordinary program",
)
_STEP = re.compile(r"\d+/\d+  (.*)")
_COLUMNS = 92
_LINE_PX, _LETTER_PX, _MARGIN_PX = 19, 7.9, 22
# Dark as a terminal is, in both of a page's fashions.
_STYLE = """\
.ground { fill: #0d1117; } .bar { fill: #21262d; }
text { font: 13px ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", monospace; }
text { fill: #c9d1d9; white-space: pre; } .title { font-weight: bold; fill: #f0f6fc; }
.typed { fill: #79c0ff; } .ok { fill: #7ee787; } .hook { fill: #e3b341; }"""


def steps(said: str) -> list[list[str]]:
    """Return the demo's steps, each by its lines; the last line of all is a step of its own."""
    found: list[list[str]] = []
    for line in said.splitlines():
        if _STEP.fullmatch(line) or line.startswith("All "):
            found.append([])
        if found and line:
            found[-1].append(line)
    return found


def chosen(said: str) -> list[str]:
    """Return the lines that the picture has, folded to its width."""
    lines: list[str] = []
    for step in steps(said):
        match = _STEP.fullmatch(step[0])
        if match is None or match[1].startswith(TITLES):
            lines += [
                "",
                *(part for line in step for part in _fold(line.replace(match[0], match[1]) if match else line)),
            ]
    return lines[1:]


def _fold(line: str) -> Iterator[str]:
    """Yield `line` in pieces; the hook line in a job script is cut, for it is one thing."""
    if "# hpcproxy hook" in line and len(line) > _COLUMNS:
        yield f"{line[: _COLUMNS - 20]} …  # hpcproxy hook"
        return
    while len(line) > _COLUMNS:
        cut = line.rfind(" ", 20, _COLUMNS) if " " in line[20:_COLUMNS] else _COLUMNS
        yield line[:cut]
        line = " " * 14 + line[cut:].lstrip()
    yield line


def picture(lines: Sequence[str]) -> str:
    """Return the SVG of `lines`."""
    width = round(_COLUMNS * _LETTER_PX + 2 * _MARGIN_PX)
    height = 34 + len(lines) * _LINE_PX + _MARGIN_PX
    texts = "\n".join(
        f'<text x="{_MARGIN_PX}" y="{54 + number * _LINE_PX}" class="{_kind(line)}">{escape(line)}</text>'
        for number, line in enumerate(lines)
        if line
    )
    lights = "".join(
        f'<circle cx="{20 + 18 * n}" cy="16" r="5.5" fill="{c}"/>'
        for n, c in enumerate(("#ff5f57", "#febc2e", "#28c840"))
    )
    return f"""\
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img" \
aria-label="What hpcproxy demo prints: before, a job without a route out; then one line in its script, and it gets out">
<style>
{_STYLE}
</style>
<rect class="ground" width="{width}" height="{height}" rx="8"/>
<path class="bar" d="M0 32V8a8 8 0 0 1 8-8H{width - 8}a8 8 0 0 1 8 8V32z"/>
{lights}
{texts}
</svg>
"""


def _kind(line: str) -> str:
    if "# hpcproxy hook" in line:
        return "hook"
    if not line.startswith(" "):
        return "ok" if line.startswith("All ") else "title"
    word = line.split(maxsplit=1)[0]
    return {"$": "typed", ">": "typed", "ok": "ok"}.get(word, "said")


def main() -> int:
    """Write the picture."""
    parser = argparse.ArgumentParser()
    parser.add_argument("file", nargs="?", type=Path)
    asked = parser.parse_args()
    if asked.file:
        said = asked.file.read_text()
    else:
        argv = [sys.executable, "-m", "hpcproxy", "demo"]
        said = subprocess.run(argv, stdout=subprocess.PIPE, text=True, check=False).stdout
    if "steps came out as expected" not in said:
        print(said)
        return 1
    PICTURE.write_text(picture(chosen(said)))
    return 0


if __name__ == "__main__":
    sys.exit(main())

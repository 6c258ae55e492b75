"""Put the hook line into a job script, after its #SBATCH block, and take it out again. Pure: bytes in, bytes out.

sbatch reads options up to the first line that is neither a comment nor blank (sbatch(1)), so the hook must stand behind
the last of them.
"""

from __future__ import annotations

import io
import re

from hpcproxy.errors import ScriptError

MARK = b"# hpcproxy hook"
HOOK = (
    b'if [ -r "${HPCPROXY_HOME:-${HOME-}/.hpcproxy}/prologue.sh" ]; then'
    b' . "${HPCPROXY_HOME:-${HOME-}/.hpcproxy}/prologue.sh";'
    b" else printf 'hpcproxy: no prologue.sh here; the job runs on without a way out\\n' >&2; fi  " + MARK
)

_SHEBANG = re.compile(rb"#!\s*(?P<program>\S+)(?:\s+(?P<arguments>.*))?")
_SHELLS = (b"bash", b"sh", b"dash")


def put(script: bytes, path: str = "script") -> bytes:
    """Return `script` with the hook line behind its #SBATCH block, once; raises ScriptError if it cannot take one."""
    _check(script, path)
    lines = io.BytesIO(remove(script)).readlines()
    at = _end_of_options(lines)
    head, tail = b"".join(lines[:at]), b"".join(lines[at:])
    if not head.endswith(b"\n"):  # options and nothing else, without a final newline: the hook has none either
        return head + b"\n" + HOOK
    return head + HOOK + b"\n" + tail


def remove(script: bytes) -> bytes:
    """Return `script` without our hook line, byte for byte as before `put`; lines of earlier versions go too."""
    lines = io.BytesIO(script).readlines()
    kept = [line for line in lines if not line.rstrip(b"\n").endswith(MARK)]
    text = b"".join(kept)
    ours_was_last = bool(lines) and lines[-1].endswith(MARK)
    return text[:-1] if ours_was_last else text


def ignored_options(script: bytes) -> list[int]:
    """Return the numbers (from 1) of #SBATCH lines that sbatch does not read, because a command stands before them."""
    lines = io.BytesIO(script).readlines()
    at = _end_of_options(lines)
    return [number for number, line in enumerate(lines, 1) if number > at and line.startswith(b"#SBATCH")]


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
    if shell not in _SHELLS:
        names = ", ".join(name.decode() for name in _SHELLS)
        raise ScriptError(path, f"is a {shell.decode(errors='replace')} script; the hook line needs one of {names}")


def _end_of_options(lines: list[bytes]) -> int:
    """Return the index behind the last #SBATCH line that sbatch reads, or behind the first line if there is none."""
    end = 1
    for index, line in enumerate(lines):
        if line.strip() and not line.lstrip().startswith(b"#"):
            break
        if line.startswith(b"#SBATCH"):
            end = index + 1
    return end

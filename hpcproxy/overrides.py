"""What would send a program elsewhere than through the way out: proxies in job scripts, rc files, tools' own files.

Read-only: it opens files below the home and asks git for its own settings. A value is never shown, for it may hold a
password; file, line and name are.
"""

from __future__ import annotations

import configparser
import json
import os
import re
import stat
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import yaml

# What a person keeps in such a file is far below this; more is not read, so a wrong file costs no memory.
_MOST_BYTES = 1 << 20
_GIT_TIMEOUT_S = 5

_VARIABLE = r"(?:https?|all|ftp)_proxy"
_SET = re.compile(rf"(?:^|[\s;&|(])(?:setenv\s+)?({_VARIABLE})(?:=|\s+\S*:\d)(?!\$)", re.IGNORECASE)
_OPTION = re.compile(
    r"\b(curl|git|pip3?|wget|conda)\b[^|;&#]*\s(-x\s|--proxy\b|-c\s+https?\.proxy=|-e\s+https?_proxy=)"
)
_FORWARD = re.compile(r"\bssh\b[^|;&#]*\s-[A-Za-z]*D\s*\S*\d")
_SOURCED = re.compile(r"(?:^|[\s;&|])(?:source|\.)\s+[\"']?(~|\$HOME|\$\{HOME\})?(/?[\w./-]+)")


@dataclass(frozen=True)
class Override:
    """`what` stands in `path` at `line` (from 1, None if only the file is known) and wins over the way out."""

    path: str
    line: int | None
    what: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.what}" if self.line else f"{self.path}: {self.what}"


def in_script(script: bytes, path: str, behind: int, home: Path) -> list[Override]:
    """Return what the lines of `script` after number `behind` set beside the way out, files that they source included.

    One level of files is followed, and only those below `home` or named by an absolute path.
    """
    found = []
    for number, line in _lines(script, behind):
        found += [Override(path, number, what) for what in _in_line(line)]
        for match in _SOURCED.finditer(line):
            file = home / match[2].lstrip("/") if match[1] else Path(match[2])
            if match[1] or file.is_absolute():
                found += in_rc_file(file)
    return found


def in_rc_file(path: Path, behind: int = 0) -> list[Override]:
    """Return what a shell's rc file sets beside the way out behind line `behind`; nothing if it cannot be read."""
    text = _read(path)
    return [Override(str(path), number, what) for number, line in _lines(text, behind) for what in _in_line(line)]


def in_tools(home: Path, environ: Mapping[str, str]) -> list[Override]:
    """Return the proxies that git, curl, wget, pip, conda, npm and docker have in files of their own."""
    config = Path(environ.get("XDG_CONFIG_HOME") or home / ".config")
    return [
        *_git(environ),
        *_by_line(home / ".curlrc", r"(?:--?)?(proxy|socks[45]\w*(?:-hostname)?|preproxy|x)\s*[=:\s]\s*\S", "curl"),
        *_by_line(config / "curlrc", r"(?:--?)?(proxy|socks[45]\w*(?:-hostname)?|preproxy|x)\s*[=:\s]\s*\S", "curl"),
        *_by_line(home / ".wgetrc", r"(https?_proxy|use_proxy)\s*=\s*\S", "wget"),
        *_by_line(home / ".npmrc", r"(proxy|https-proxy|http-proxy)\s*=\s*\S", "npm"),
        *_pip(Path(environ["PIP_CONFIG_FILE"]) if environ.get("PIP_CONFIG_FILE") else None, home, config),
        *_conda(home / ".condarc"),
        *_docker(home / ".docker" / "config.json"),
    ]


def _in_line(line: str) -> Iterator[str]:
    """Yield what one line of shell sets beside the way out."""
    if re.match(r"\s*(#|unset\b)", line):
        return
    names = list(dict.fromkeys(match[1] for match in _SET.finditer(line)))
    if names:
        yield f"sets {', '.join(names)}, which wins over the way out; take it out"
    if _FORWARD.search(line):
        yield "opens a forward by hand (ssh -D); the way out takes its place, take it out"
    for match in _OPTION.finditer(line):
        yield f"tells {match[1]} a proxy of its own, which wins over the way out; take it out"


def _lines(text: bytes, behind: int) -> Iterator[tuple[int, str]]:
    for number, raw in enumerate(text.split(b"\n"), 1):
        if number > behind:
            yield number, raw.decode(errors="replace")


def _read(path: Path) -> bytes:
    """Return what is in `path`, nothing if it is none that can be read: then it is no file of the tool's either."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # a pipe by that name must not be waited for
    except OSError:
        return b""
    with os.fdopen(descriptor, "rb") as file:
        return file.read(_MOST_BYTES) if stat.S_ISREG(os.fstat(descriptor).st_mode) else b""


def _by_line(path: Path, pattern: str, tool: str) -> Iterator[Override]:
    for number, line in _lines(_read(path), 0):
        match = re.match(rf"\s*{pattern}", line, re.IGNORECASE)
        if match:
            yield _of(tool, str(path), number, match[1])


def _of(tool: str, path: str, line: int | None, name: str) -> Override:
    return Override(path, line, f"{tool} reads {name} here, which wins over the way out")


def _git(environ: Mapping[str, str]) -> Iterator[Override]:
    """Ask git itself, which knows its Include lines: the name and file of each proxy setting of the user's."""
    argv = [
        "git",
        "config",
        "--global",
        "--includes",
        "--show-origin",
        "--name-only",
        "--get-regexp",
        r"^https?\..*proxy$",
    ]
    try:
        done = subprocess.run(argv, capture_output=True, check=False, timeout=_GIT_TIMEOUT_S, env=dict(environ))
    except (OSError, subprocess.TimeoutExpired):
        return
    for line in done.stdout.decode(errors="replace").splitlines():
        origin, _, name = line.partition("\t")
        if name:
            yield _of("git", origin.removeprefix("file:"), None, name)


def _pip(named: Path | None, home: Path, config: Path) -> Iterator[Override]:
    for path in (named, config / "pip" / "pip.conf", home / ".pip" / "pip.conf"):
        parser = configparser.RawConfigParser(strict=False)
        try:
            parser.read_string(_read(path).decode(errors="replace") if path else "")
        except configparser.Error:
            continue  # pip cannot read it either, and says so itself
        for section in parser.sections():
            if parser.get(section, "proxy", fallback=""):
                yield _of("pip", str(path), None, f"[{section}] proxy")


def _conda(path: Path) -> Iterator[Override]:
    try:
        found = yaml.safe_load(_read(path))
    except yaml.YAMLError:
        return  # conda cannot read it either, and says so itself
    if isinstance(found, dict) and found.get("proxy_servers"):
        yield _of("conda", str(path), None, "proxy_servers")


def _docker(path: Path) -> Iterator[Override]:
    try:
        found = json.loads(_read(path) or b"{}")
    except ValueError:
        return
    if isinstance(found, dict) and found.get("proxies"):
        yield _of("docker", str(path), None, "proxies")

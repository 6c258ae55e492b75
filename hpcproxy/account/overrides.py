"""What would send a program elsewhere than through the tunnel: proxies in job scripts, rc files, tools' own files.

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
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from hpcproxy.config.layers import YAML_ERRORS
from hpcproxy.files import elsewhere, variables

# What a person keeps in such a file is far below this; more is not read, so a wrong file costs no memory.
_MOST_BYTES = 1 << 20
_GIT_TIMEOUT_S = 5
_GIT_FATAL = 128

_PROXIES = tuple(sorted((*variables.named(variables.URL), "all_proxy", "ALL_PROXY"), key=str.isupper))
_MOST_DEEP = 3  # of files that read files


_HARMLESS, _SOURCED = re.compile(elsewhere.HARMLESS), re.compile(elsewhere.SOURCED)
_COMMENT = re.compile(r"(^|[ \t])#.*")
_LINES = [(row, re.compile(row.pattern)) for row in elsewhere.LINES]
_TAKEN = [(row, re.compile(row.pattern)) for row in elsewhere.TAKEN]


@dataclass(frozen=True)
class Override:
    """`what` stands in `path` at `line` (from 1, None if only the file is known) and wins over the tunnel.

    `tool` is whose it is, empty for a shell's.
    """

    path: str
    line: int | None
    what: str
    tool: str = ""

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.what}" if self.line else f"{self.path}: {self.what}"


def in_script(script: bytes, path: str, behind: int, home: Path, ours: Path | None = None) -> list[Override]:
    """Return what the lines of `script` after number `behind` set beside the tunnel, files that they source included.

    A relative name is looked up beside the script; what lies in `ours` is our own.
    """
    seen = {ours} if ours else set()
    return list(_in_shell(script, path, behind, (home, Path(path).parent), seen))


def _in_shell(
    text: bytes, path: str, behind: int, places: tuple[Path, Path], seen: set[Path], deep: int = 0
) -> Iterator[Override]:
    """As `in_script`; `places` are the home and where relative names are looked up, `seen` is passed over and grows."""
    home, beside = places
    for number, line in _lines(text, behind):
        yield from (Override(path, number, what) for what in _in_line(line, behind_hook=True))
        for match in _SOURCED.finditer(line):
            base = home if match[3] and "SUBMIT" not in match[3] else beside
            file = base / match[4]
            if deep < _MOST_DEEP and not any(file == one or one in file.parents for one in seen):
                seen.add(file)
                yield from _in_shell(_read(file), str(file), 0, (home, file.parent), seen, deep + 1)


def in_rc_file(path: Path, behind: int = 0) -> list[Override]:
    """Return what a shell's rc file sets beside the tunnel behind line `behind`; nothing if it cannot be read."""
    text = _read(path)
    return [Override(str(path), number, what) for number, line in _lines(text, behind) for what in _in_line(line)]


def in_environment(environ: Mapping[str, str]) -> list[str]:
    """Return which variables of a job or shell with a tunnel lead elsewhere by now, or are gone."""
    url = environ.get("HPCPROXY_URL", "")
    if not url:
        return []
    changed = [name for name in _PROXIES if environ.get(name, url) != url]
    gone = [name for name in ("http_proxy", "https_proxy") if not environ.get(name)]
    said = [
        f"{name} leads elsewhere than to the tunnel: something set it since" for name in changed if name not in gone
    ]
    return said + [f"{name} is gone: programs that read it use no tunnel" for name in gone]


def in_tools(home: Path, environ: Mapping[str, str]) -> list[Override]:
    """Return the proxies that git, curl, wget, pip, conda, npm and docker have in files of their own."""
    config = Path(environ.get("XDG_CONFIG_HOME") or home / ".config")
    found = list(_git(environ))
    for tool, name, pattern in elsewhere.TOOLS:
        path = config / name.removeprefix(".config/") if name.startswith(".config/") else home / name
        # git itself knows its Include lines, a YAML reader conda's.
        if tool not in {"git", "pip", "conda"}:
            found += _by_line(path, pattern, tool)
        elif tool == "conda":
            found += _conda(path)
    if environ.get("CONDARC"):
        found += _conda(Path(environ["CONDARC"]))
    named = [Path(environ[name]) for name in ("PIP_CONFIG_FILE", "VIRTUAL_ENV") if environ.get(name)]
    pips = [path / "pip.conf" if path.is_dir() else path for path in named]
    pips += [config / "pip" / "pip.conf", home / ".pip" / "pip.conf", Path("/etc/pip.conf")]
    return [*found, *_pip(pips), *_docker(home / ".docker" / "config.json"), *_variables(environ)]


def _variables(environ: Mapping[str, str]) -> Iterator[Override]:
    for tool, name, pattern in elsewhere.VARIABLES:
        value = environ.get(name, "")
        if re.search(pattern, value) and not re.search(elsewhere.OURS, value):
            yield Override(f"your environment: {name}", None, elsewhere.VARIABLE_GIVES.replace("%", tool), tool)


def _in_line(line: str, *, behind_hook: bool = False) -> Iterator[str]:
    """Yield what one line of shell sets beside the tunnel; `behind_hook`: or takes back."""
    line = _COMMENT.sub("", line)
    said = _HARMLESS.sub("", line)
    for row, pattern in _LINES:
        names = list(dict.fromkeys(match[row.group] for match in pattern.finditer(said)))
        if names:
            yield row.what.replace("%", ", ".join(names))
            break
    for row, pattern in _TAKEN if behind_hook else ():
        match = pattern.search(line)
        if match:
            yield row.what.replace("%", match[row.group])


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
        match = re.match(pattern, line)
        if match:
            yield _of(tool, str(path), number, match[2])


def _of(tool: str, path: str, line: int | None, name: str) -> Override:
    return Override(path, line, f"{tool} {elsewhere.TOOL_READS.replace('%', name)}", tool)


def _git(environ: Mapping[str, str]) -> Iterator[Override]:
    """Ask git itself, which knows its Include lines: the name and file of each proxy setting of the user's."""
    for scope in ("--global", "--system"):
        try:
            done = _git_config(scope, environ, None)
            if done.returncode == _GIT_FATAL:  # it will not say anything in a directory whose repository is broken
                done = _git_config(scope, environ, "/")
        except (OSError, subprocess.TimeoutExpired):
            return
        for line in done.stdout.decode(errors="replace").splitlines():
            origin, _, name = line.partition("\t")
            if name:
                yield _of("git", origin.removeprefix("file:"), None, name)


def _git_config(scope: str, environ: Mapping[str, str], where: str | None) -> subprocess.CompletedProcess[bytes]:
    argv = ["git", "config", scope, "--includes", "--show-origin", "--name-only", "--get-regexp", r"^https?\..*proxy$"]
    return subprocess.run(argv, capture_output=True, check=False, timeout=_GIT_TIMEOUT_S, env=dict(environ), cwd=where)


def _pip(paths: Sequence[Path]) -> Iterator[Override]:
    for path in paths:
        parser = configparser.RawConfigParser(strict=False)
        try:
            parser.read_string(_read(path).decode(errors="replace"))
        except configparser.Error:
            continue  # pip cannot read it either, and says so itself
        for section in parser.sections():
            if parser.get(section, "proxy", fallback=""):
                yield _of("pip", str(path), None, f"[{section}] proxy")


def _conda(path: Path) -> Iterator[Override]:
    try:
        found = yaml.safe_load(_read(path))
    except YAML_ERRORS:
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

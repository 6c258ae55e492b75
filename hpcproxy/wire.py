"""What goes to one host, and what comes back: a script with an archive behind it, and lines with a token. Pure.

The host's side is templates/deploy/glance.sh.j2 and templates/lib/receive.sh.
"""

from __future__ import annotations

import base64
import binascii
import functools
import gzip
import hashlib
import io
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from hpcproxy.errors import HpcproxyError
from hpcproxy.plan import EPILOG, PROLOG, RUN, TASK_PROLOG, Artifact, Plan
from hpcproxy.render import Bundle, File, render
from hpcproxy.shell import word

STORE = Path("/var/lib/hpcproxy")
LOCK_FILE = Path("/run/hpcproxy-deploy.lock")
OUTPUT = "output"  # of a command, among a host's contents
ACTIONS = ("look", "apply", "rollback", "remove")

# Does not depend on the login shell's language, and reads nobody's rc file; the shell in between may, and may print.
COMMAND = "exec /bin/bash -p -s"
# `read -N`, which counts characters, so bytes in this locale, is older than all that we run on.
_OLD_BASH = b"((BASH_VERSINFO[0] > 3)) || { echo bash $BASH_VERSION is too old, 4.2 is needed >&2; exit; }; LC_ALL=C; "
_NO_COMMAND = b"hpcproxy_command=(); "
_PART = b'IFS= read -r -N %d hpcproxy_part; eval "$hpcproxy_part"; '


@dataclass(frozen=True)
class Change:
    """One file of a host: `action` is create, change, remove or foreign."""

    action: str
    path: str


@dataclass(frozen=True)
class Answer:
    """What one host said: `word` is unchanged, changed, would or failed; `text` is the reason of a failure."""

    word: str
    text: str = ""
    changes: tuple[Change, ...] = ()
    contents: Mapping[str, bytes] = field(default_factory=dict)
    facts: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Place:
    """Where a host keeps versions and the lock, and the mode of directories that are made there."""

    store: Path
    lock_file: Path
    directory_mode: str = "0755"


class NoAnswerError(HpcproxyError):
    """A host ended the conversation without its last line."""


def message(
    bundle: Bundle, action: str, token: str, *, want_content: bool = False, place: Place | None = None
) -> bytes:
    """Return what a host reads on stdin for `action`; `place` is root's if not given."""
    files = bundle.files
    place = place or Place(STORE, LOCK_FILE)
    values = {
        "token": token,
        "action": action,
        "store": place.store,
        "lock_file": place.lock_file,
        "directory_mode": place.directory_mode,
        "run": RUN,
        "want_content": want_content,
        "task_prolog": next((str(f.artifact.path) for f in files if f.artifact.name == TASK_PROLOG), ""),
        "drop_ins": [str(f.artifact.path) for f in files if f.artifact.name in (PROLOG, EPILOG)],
        "paths": [str(file.artifact.path) for file in files],
        "digests": [file.digest for file in files],
        "modes": [_mode(file) for file in files],
        "owners": [_owner(file) for file in files],
    }
    artifact = Artifact("receive.sh", "deploy/receive.sh.j2", Path("receive.sh"), 0o700, "")
    script = render(Plan((artifact,), values, {})).files[0].content
    if action != "apply":
        return framed(script)
    return framed(script, archive(files, place), glance(bundle, token, place))


def with_command(message: bytes, command: Sequence[str]) -> bytes:
    """Return `message`, which applies, so that it has a host run `command` too, which reads only, if anything changed.

    Its output comes back as the content of `OUTPUT`; none if it fails.
    """
    words = " ".join(str(word(value)) for value in command)
    return message.replace(_NO_COMMAND, b"hpcproxy_command=(%s); " % words.encode(), 1)


def framed(script: bytes, archive: bytes = b"", first: bytes = b"") -> bytes:
    """Return what `COMMAND` reads on stdin: a line that takes the scripts `first` and `script` whole; the archive.

    From a pipe bash reads its own commands byte by byte, a system call for each; `read -N` takes as many as it is
    told, and no more. Nothing that follows that line is ever read as shell, whatever becomes of the scripts.
    """
    parts = [part for part in (first, script) if part]
    return b"%s%s%sexit\n%s%s" % (
        _OLD_BASH,
        _NO_COMMAND,
        b"".join(_PART % len(part) for part in parts),
        b"".join(parts),
        archive,
    )


def glance(bundle: Bundle, token: str, place: Place) -> bytes:
    """Return the script that answers for a host which has this version already, and does nothing on any other."""
    values = {
        "token": token,
        "store": place.store,
        "lock_file": place.lock_file,
        "manifest_digest": hashlib.sha256(_manifest(bundle)).hexdigest(),
    }
    artifact = Artifact("glance.sh", "deploy/glance.sh.j2", Path("glance.sh"), 0o700, "")
    return render(Plan((artifact,), values, {})).files[0].content


def _manifest(bundle: Bundle) -> bytes:
    """Return the list of its files as a host keeps it (`write_manifest` in templates/lib/receive.sh)."""
    lines = (f"{file.digest} {_mode(file)} {_owner(file)} {file.artifact.path}\n" for file in bundle.files)
    return "".join(lines).encode()


def _mode(file: File) -> str:
    return f"{file.artifact.mode:04o}"


def _owner(file: File) -> str:
    return file.artifact.owner or "root"


@dataclass(frozen=True)
class Edit:
    """A file of somebody's that shall change from `before` to `after`; None: it is not there, or shall go."""

    path: str
    before: bytes | None
    after: bytes | None


def reading(paths: Sequence[str], token: str, command: Sequence[str] = ()) -> bytes:
    """Return the message that asks for the bytes of `paths` and the output of `command`, which reads only."""
    return framed(_edit_script(token, paths, ["look"] * len(paths), ["look"] * len(paths), command))


def editing(edits: Sequence[Edit], token: str, command: Sequence[str] = ()) -> bytes:
    """Return the message that carries `edits` out, each only if the file is as it was; then `command` runs."""
    paths = [edit.path for edit in edits]
    script = _edit_script(
        token, paths, [_digest(edit.after) for edit in edits], [_digest(edit.before) for edit in edits], command
    )
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for number, edit in enumerate(edits):
            info = tarfile.TarInfo(str(number))
            info.size, info.mode = len(edit.after or b""), 0o600
            tar.addfile(info, io.BytesIO(edit.after or b""))
    return framed(script, gzip.compress(buffer.getvalue(), mtime=0))


def _edit_script(
    token: str, paths: Sequence[str], digests: Sequence[str], befores: Sequence[str], command: Sequence[str]
) -> bytes:
    values = {"token": token, "paths": paths, "digests": digests, "befores": befores, "command": command}
    artifact = Artifact("edit.sh", "deploy/edit.sh.j2", Path("edit.sh"), 0o700, "")
    return render(Plan((artifact,), values, {})).files[0].content


def _digest(content: bytes | None) -> str:
    return "none" if content is None else hashlib.sha256(content).hexdigest()


def archive(files: Sequence[File], place: Place) -> bytes:
    """Return `files` as a compressed tar archive, each by its path below STORE/stage; the same bytes each time."""
    stage = PurePosixPath(str(place.store).lstrip("/"), "stage")
    names = {file: stage / str(file.artifact.path).lstrip("/") for file in files}
    directories = {parent for name in names.values() for parent in name.parents if parent.is_relative_to(stage)}
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for directory in sorted(directories):
            info = tarfile.TarInfo(str(directory))
            info.type, info.uname, info.gname = tarfile.DIRTYPE, "root", "root"
            info.mode = 0o700 if directory == stage else int(place.directory_mode, 8)
            tar.addfile(info)
        for file, name in names.items():
            info = tarfile.TarInfo(str(name))
            info.size, info.mode, info.uname = len(file.content), file.artifact.mode, _owner(file)
            info.gname = "root"
            tar.addfile(info, io.BytesIO(file.content))
    return gzip.compress(buffer.getvalue(), compresslevel=4, mtime=0)


def parse(output: bytes, token: str) -> Answer:
    """Return what the host said; lines without the token are somebody else's. Raises NoAnswerError."""
    changes, contents, facts = [], {}, {}
    for line in output.decode("utf-8", "surrogateescape").splitlines():
        # A .bashrc may have printed without a final newline.
        _, found, rest = line.partition(f"{token} ")
        verb, _, rest = rest.partition(" ")
        if not found:
            continue
        first, _, second = rest.partition(" ")
        if verb == "file":
            changes.append(_change(first, second))
        elif verb == "fact":
            facts[first] = second
        elif verb == "content":
            path, _, text = rest.rpartition(" ")
            contents[path] = _decode(text)
        elif verb == "done":
            return Answer(first, second, tuple(changes), contents, facts)
    raise NoAnswerError("it ended without an answer")


_change = functools.cache(Change)  # many hosts say the same


def _decode(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error:
        return b""

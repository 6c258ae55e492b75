"""What goes to one host, and what comes back: a script with an archive behind it, and lines with a token. Pure.

The host's side is templates/deploy/inspect.sh.j2 and templates/lib/host/receive.sh.
"""

from __future__ import annotations

import base64
import binascii
import functools
import gzip
import hashlib
import io
import re
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from hpcproxy import heard
from hpcproxy.config.places import PROGRAMS, RUN
from hpcproxy.errors import HpcproxyError
from hpcproxy.files.plan import EPILOG, IN_FORCE, PLUGIN, PROLOG, TASK_PROLOG, Artifact, Plan
from hpcproxy.files.render import Bundle, File, render
from hpcproxy.shell_lines import shell_line

STORE = Path("/var/lib/hpcproxy")
LOCK_FILE = Path("/run/hpcproxy-deploy.lock")
OUTPUT = "output"  # of a command, among a host's contents
ACTIONS = ("look", "apply", "rollback", "remove")
# What a host can say; whoever teaches a script a new word adds it here. Anything else is no answer of ours.
WORDS = ("unchanged", "changed", "would", "failed")
CHANGES = ("create", "change", "remove", "foreign", "breach", "slow", "confirmed")
_FACT = re.compile(r"[a-z][a-z0-9_-]{0,31}", re.ASCII)
_LINES_MAX = 5000  # of one answer; a host with more to say than that has another purpose
_PATH_MAX = 4096
_TEXT_MAX = 1000

# What with_facts fills in (templates/line/receive.sh).
_NO_FACTS = b"hpcproxy_facts=; "


@dataclass(frozen=True)
class Change:
    """One file of a host; `action` is one of CHANGES."""

    action: str
    path: str


@dataclass(frozen=True)
class Answer:
    """What one host said: `word` is one of WORDS, `text` why it failed; all but `contents` is fit to be shown."""

    word: str
    text: str = ""
    changes: tuple[Change, ...] = ()
    contents: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    facts: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Place:
    """Where a host keeps versions and the lock, and the mode of directories that are made there."""

    store: Path
    lock_file: Path
    directory_mode: str = "0755"


@dataclass(frozen=True)
class SlurmPlace:
    """Where a host has Slurm's programs, if not beside its daemon, and slurm.conf, if not beside the hooks.

    `in_force`: whether our Epilog runs, which `apply` leaves on record for our Prolog; None if nobody knows.
    `port`: that of tunnels, at which a host looks who else listens. `unplugged`: plugstack.conf names no plugin of
    ours any more, wherever this host has it from.
    """

    programs: str = ""
    conf: str = ""
    in_force: bool | None = None
    unplugged: bool = False
    port: int = 0

    @property
    def word(self) -> str:
        """As the scripts have it."""
        return "" if self.in_force is None else "yes" if self.in_force else "no"


class NoAnswerError(HpcproxyError):
    """A host ended the conversation without its last line."""


def message(
    bundle: Bundle,
    action: str,
    token: str,
    *,
    want_content: bool = False,
    place: Place | None = None,
    slurm: SlurmPlace | None = None,
) -> bytes:
    """Return what a host reads on stdin for `action`; `place`: root's."""
    files = bundle.files
    place, slurm = place or Place(STORE, LOCK_FILE), slurm or SlurmPlace()
    drop_ins = [file.artifact.path for file in files if file.artifact.name in (PROLOG, EPILOG)]
    values = {
        "token": token,
        "action": action,
        "store": place.store,
        "lock_file": place.lock_file,
        "directory_mode": place.directory_mode,
        "run": RUN,
        "want_content": want_content,
        "port": slurm.port,
        "own_directory": PROGRAMS,
        "in_force": slurm.word,
        "task_prolog": next((str(f.artifact.path) for f in files if f.artifact.name == TASK_PROLOG), ""),
        "drop_ins": [str(path) for path in drop_ins],
        "slurm_conf": slurm.conf or (str(drop_ins[0].parent.parent / "slurm.conf") if drop_ins else ""),
        "slurm_bin": slurm.programs,
        "plugin": PROGRAMS / PLUGIN,
        "unplugged": slurm.unplugged,
        **_listed(files),
    }
    artifact = Artifact("receive.sh", "deploy/receive.sh.j2", Path("receive.sh"), 0o700, "")
    script = render(Plan((artifact,), values, {})).files[0].content
    if action != "apply":
        return framed(script)
    return framed(script, archive(files, place), inspection(bundle, token, place, slurm))


def _listed(files: Sequence[File]) -> dict[str, list[str]]:
    """Return what a host is told of each of `files`."""
    return {
        "paths": [str(file.artifact.path) for file in files],
        "digests": [file.digest for file in files],
        "modes": [_mode(file) for file in files],
        "owners": [_owner(file) for file in files],
        "secrets": [str(file.artifact.path) for file in files if file.artifact.secret],
    }


def with_facts(message: bytes) -> bytes:
    """Return `message`, which applies, so that a host says of its programs what `look` says, if anything changed."""
    return message.replace(_NO_FACTS, b"hpcproxy_facts=1; ", 1)


def framed(script: bytes, archive: bytes = b"", first: bytes = b"") -> bytes:
    """Return what a host reads on stdin: a line that takes the scripts `first` and `script` whole; the archive.

    From a pipe bash reads its own commands byte by byte, a system call for each; `read -N` takes as many as it is
    told, and no more. Nothing that follows that line is ever read as shell, whatever becomes of the scripts.
    """
    parts = [part for part in (first, script) if part]
    takes = [shell_line("part").replace("SIZE", str(len(part))) for part in parts]
    line = "; ".join([shell_line("receive"), *takes, "exit"])
    return b"%s\n%s%s" % (line.encode(), b"".join(parts), archive)


def inspection(bundle: Bundle, token: str, place: Place, slurm: SlurmPlace | None = None) -> bytes:
    """Return the script that answers for a host which has this version already, and does nothing on any other."""
    values = {
        "token": token,
        "store": place.store,
        "lock_file": place.lock_file,
        "manifest_digest": hashlib.sha256(manifest(bundle)).hexdigest(),
        "in_force": (slurm or SlurmPlace()).word,
        "mark": PROGRAMS / IN_FORCE,
    }
    artifact = Artifact("inspect.sh", "deploy/inspect.sh.j2", Path("inspect.sh"), 0o700, "")
    return render(Plan((artifact,), values, {})).files[0].content


def manifest(bundle: Bundle) -> bytes:
    """Return the list of its files as a host keeps it (`write_manifest` in templates/lib/host/receive.sh)."""
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
    before: bytes | None = field(repr=False)
    after: bytes | None = field(repr=False)


def reading(paths: Sequence[str], token: str, command: Sequence[str] = ()) -> bytes:
    """Return the message that asks for the bytes of `paths` and the output of `command`, which reads only."""
    return framed(_edit_script(token, paths, ["look"] * len(paths), ["look"] * len(paths), command))


def editing(edits: Sequence[Edit], token: str, command: Sequence[str] = (), trial: Sequence[str] = ()) -> bytes:
    """Return the message that carries `edits` out, each only if the file is as it was; then `command` runs.

    `trial` is run before with SLURM_CONF naming the new file, and must succeed.
    """
    paths = [edit.path for edit in edits]
    script = _edit_script(
        token, paths, [_digest(edit.after) for edit in edits], [_digest(edit.before) for edit in edits], command, trial
    )
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for number, edit in enumerate(edits):
            info = tarfile.TarInfo(str(number))
            info.size, info.mode = len(edit.after or b""), 0o600
            tar.addfile(info, io.BytesIO(edit.after or b""))
    return framed(script, gzip.compress(buffer.getvalue(), mtime=0))


def _edit_script(
    token: str,
    paths: Sequence[str],
    digests: Sequence[str],
    befores: Sequence[str],
    command: Sequence[str],
    trial: Sequence[str] = (),
) -> bytes:
    values = {
        "token": token,
        "paths": paths,
        "digests": digests,
        "befores": befores,
        "command": command,
        "trial": trial,
    }
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
    """Return what the host said; lines without the token are somebody else's. Raises NoAnswerError.

    Whoever has the host can say anything: only words that we know count, and what is shown of the rest is printable.
    """
    changes: list[Change] = []
    contents: dict[str, bytes] = {}
    facts: dict[str, str] = {}
    mark = f"{token} ".encode()
    for raw in output.split(b"\n"):
        # A .bashrc may have printed without a final newline.
        _, found, said = raw.partition(mark)
        if not found:
            continue
        if len(changes) + len(contents) + len(facts) > _LINES_MAX:
            raise NoAnswerError("says more than any answer holds")
        verb, _, rest = said.partition(b" ")
        if verb not in (b"content", b"file", b"fact", b"done"):
            continue
        if verb == b"content":
            path, _, encoded = rest.rpartition(b" ")
            contents[heard.line(path, _PATH_MAX)] = _decode(encoded)
            continue
        word, _, text = heard.line(rest, _PATH_MAX).partition(" ")
        if verb == b"file" and word in CHANGES:
            changes.append(_change(word, text))
        elif verb == b"fact" and _FACT.fullmatch(word):
            facts[word] = heard.line(text)
        elif verb == b"done" and word in WORDS:
            return Answer(word, heard.line(text, _TEXT_MAX), tuple(changes), contents, facts)
        else:
            raise NoAnswerError(f"says what is no word of ours: {heard.line(said, 80)}")
    raise NoAnswerError("it ended without an answer")


_change = functools.lru_cache(_LINES_MAX)(Change)  # many hosts say the same


def _decode(text: bytes) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error:
        return b""

"""The files of a roll-out as a tree to bake into the image of nodes that start from one. Writes below one directory.

The tree is what `deploy` leaves on a node, its record too, so that `verify` and `deploy` find a node that starts from
such an image as it shall be. The file `image` in the record says that the files come back with every start.
"""

from __future__ import annotations

from pathlib import Path

from hpcproxy import changes
from hpcproxy.changes import Result, Step, Write
from hpcproxy.cluster import protocol
from hpcproxy.cluster.run import Request, read_site
from hpcproxy.config.places import PROGRAMS
from hpcproxy.errors import FileError
from hpcproxy.files.plan import IN_FORCE
from hpcproxy.files.render import Bundle

_DIRECTORY_MODE, _STORE_MODE, _RECORD_MODE = 0o755, 0o700, 0o600
IMAGE = "image"


def render_root(request: Request, root: Path) -> list[Result]:
    """Write the files of the inventory and the record of them below `root`; raises ConfigError, FileError."""
    bundle = read_site(request).bundle
    steps = tree(bundle, root)
    for step in steps:
        _make_directories(step.path.parent, root)
    try:
        (root / protocol.STORE.relative_to("/")).chmod(_STORE_MODE)
    except OSError as error:
        raise FileError(root, f"cannot be written: {error.strerror}") from None
    written: list[Step] = list(steps)
    return changes.apply(written)


def tree(bundle: Bundle, root: Path) -> list[Write]:
    """Return what is written: every file of `bundle`, and last the record that a host keeps."""
    store = root / protocol.STORE.relative_to("/")
    paths = "".join(f"{file.artifact.path}\n" for file in bundle.files)
    return [
        *(Write(root / file.artifact.path.relative_to("/"), file.content, file.artifact.mode) for file in bundle.files),
        Write(root / (PROGRAMS / IN_FORCE).relative_to("/"), b"", 0o644),
        Write(store / "owned", paths.encode(), _RECORD_MODE),
        Write(store / "manifest", protocol.manifest(bundle), _RECORD_MODE),
        Write(store / IMAGE, b"hpcproxy render --root: these files come back with every start\n", _RECORD_MODE),
    ]


def others(request: Request) -> list[str]:
    """Return in words which files must be another account's in the image, for whoever packs it."""
    return [
        f"{file.artifact.path} must be {file.artifact.owner}'s in the image"
        for file in read_site(request).bundle.files
        if file.artifact.owner not in ("", "root")
    ]


def _make_directories(directory: Path, root: Path) -> None:
    missing = []
    try:
        while directory != root and not directory.is_dir():
            missing.append(directory)
            directory = directory.parent
        root.mkdir(parents=True, exist_ok=True)
        for path in reversed(missing):
            path.mkdir()
            path.chmod(_DIRECTORY_MODE)  # whatever the umask is: this becomes /usr, /etc
    except OSError as error:
        raise FileError(root, f"cannot be written: {error.strerror}") from None

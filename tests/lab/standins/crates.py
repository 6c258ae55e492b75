"""A registry of crates, sparse (doc.rust-lang.org/cargo, registry index), with one: `labcrate`."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile

from werkzeug.wrappers import Request, Response

from tests.lab.standins import DOMAIN, PORT
from tests.lab.standins.world import World

_MANIFEST = '[package]\nname = "labcrate"\nversion = "1.0.0"\nedition = "2018"\n'


def service(world: World) -> object:
    """GET /config.json, the crate's line of the index, and its archive."""
    crate = pack({"Cargo.toml": _MANIFEST, "src/lib.rs": "", "token": f"{world.token}\n"}, "labcrate-1.0.0")
    line = {"name": "labcrate", "vers": "1.0.0", "deps": [], "features": {}, "yanked": False}
    entry = {**line, "cksum": hashlib.sha256(crate).hexdigest()}
    files = {
        "/config.json": json.dumps({"dl": f"https://crates.{DOMAIN}:{PORT}/dl/{{crate}}-{{version}}"}).encode(),
        "/la/bc/labcrate": json.dumps(entry).encode() + b"\n",
        "/dl/labcrate-1.0.0": crate,
    }

    @Request.application
    def answer(request: Request) -> Response:
        found = files.get(request.path)
        return Response("not found\n", 404) if found is None else Response(found)

    return answer


def pack(files: dict[str, str], directory: str = "", mode: str = "w:gz") -> bytes:
    """Return an archive of `files`, below `directory`."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode=mode) as archive:  # type: ignore[call-overload]
        for name, text in files.items():
            entry = tarfile.TarInfo(f"{directory}/{name}" if directory else name)
            entry.size = len(text.encode())
            entry.mode = 0o644
            archive.addfile(entry, io.BytesIO(text.encode()))
    return packed.getvalue()

"""agent.pyz: this package as one file, the same bytes for the same sources."""

import os
import stat
import zipfile
from typing import List

PACKAGE = "hpcproxy_node"
# Signals first: one that comes before the handlers are there is kept until then (life/hold.py). Else the agent
# would end of it and leave its state behind.
MAIN = """\
import gc
import signal
import sys

gc.disable()  # until the worker runs (life/supervisor.py): what is imported stays
signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTERM, signal.SIGURG, signal.SIGINT, signal.SIGUSR1))

if sys.argv[1:2] == ["port"]:  # root's: nothing is kept compiled by it, and little is loaded
    from {package}.proxy.port import main

    main(sys.argv[2:])

if sys.argv[1:2] == ["meet"]:  # over ssh: it has little to do, and its signals are a program's
    signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGTERM, signal.SIGURG, signal.SIGINT, signal.SIGUSR1))
    from {package}.life.meet import main as meet

    sys.exit(meet(sys.argv[2:]))

from {package}.compiled import use

use(sys.argv[0], "{package}", {names})

if sys.argv[1:2] == ["handshakes"]:  # a child of the agent's, which does not load the rest
    from {package}.upstream.handshakes import main

    main(sys.argv[2:])

from {package}.life.hold import main

sys.exit(main(sys.argv[1:]))
"""
SHEBANG = b"#!/usr/bin/env python3\n"
EPOCH = (1980, 1, 1, 0, 0, 0)  # the first moment that a zip file can name
NOT_INSIDE = ("build.py",)


def build() -> bytes:
    """The content of agent.pyz."""
    import io

    folder = os.path.dirname(os.path.abspath(__file__))
    buffer = io.BytesIO()
    buffer.write(SHEBANG)
    with zipfile.ZipFile(buffer, "w") as archive:
        names = sources(folder)
        modules = [dotted(name) for name in names if name != "__init__.py"]
        add(archive, "__main__.py", MAIN.format(package=PACKAGE, names=modules).encode("ascii"))
        for name in names:
            with open(os.path.join(folder, name), "rb") as file:
                add(archive, "{}/{}".format(PACKAGE, name), file.read())
    return buffer.getvalue()


def sources(folder: str) -> List[str]:
    """The files of the agent, sorted, by their paths below `folder`."""
    names = []
    for entry in os.scandir(folder):
        if entry.is_dir():
            names += ["{}/{}".format(entry.name, name) for name in os.listdir(entry.path)]
        elif entry.name not in NOT_INSIDE:
            names.append(entry.name)
    return sorted(name for name in names if name.endswith(".py"))


def dotted(name: str) -> str:
    """What such a file is called where it is imported."""
    return name[: -len(".py")].replace("/", ".").replace(".__init__", "")


def add(archive: zipfile.ZipFile, name: str, data: bytes) -> None:
    """One member. Stored: zlib's version would show in the bytes, and python3 without zlib can read it too."""
    member = zipfile.ZipInfo(name, EPOCH)
    member.create_system = 3  # Unix
    member.external_attr = (stat.S_IFREG | 0o644) << 16
    archive.writestr(member, data)

"""Whether a proxy of the site's intercepts TLS, and the list of authorities with which programs believe it then.

It does where a certificate is verified by this system's list of authorities and not by those that programs bring along
(certifi's in a Python's packages, conda's). Asked by a process of its own (handshakes.py), through the tunnel itself.
"""

import os
from typing import List, Mapping, Tuple

from ..io.loop import Loop
from .outside import lines_of

AUTO = "auto"
MOST = 4  # lists that programs bring along: one is as good as another
PACKAGES = ("certifi", "pip/_vendor/certifi")


async def found(loop: Loop, by: str, targets: Tuple[str, ...], environ: Mapping[str, str], deadline: float) -> str:
    """The system's list, if one of `targets` is intercepted on the way through the proxy at `by`; else ""."""
    lists = brought_along(environ)
    if not lists:
        return ""
    words = ["--by", by]
    for path in lists:
        words += ["--list", path]
    for line in await lines_of(loop, [*words, *targets], deadline):
        if line[0] == "ca" and len(line) == 3:
            return line[2]
    return ""


def brought_along(environ: Mapping[str, str]) -> List[str]:
    """Lists of authorities that programs of this job bring along: its Python's, conda's, the system Python's."""
    prefixes = [environ.get(name, "") for name in ("VIRTUAL_ENV", "CONDA_PREFIX")] + ["/usr", "/usr/local"]
    files: List[str] = []
    for prefix in prefixes:
        if not prefix.startswith("/"):
            continue
        files.append(os.path.join(prefix, "ssl/cacert.pem"))
        pythons = [python for lib in beginning(prefix, "lib") for python in beginning(lib, "python3")]
        for package in PACKAGES:
            for packages in ("site-packages", "dist-packages"):
                files += [os.path.join(python, packages, package, "cacert.pem") for python in pythons]
    return [path for path in files if os.path.isfile(path) and not os.path.islink(path)][:MOST]


def beginning(directory: str, name: str) -> List[str]:
    """What is in `directory` and begins with `name`, sorted; nothing if it cannot be read."""
    try:
        return sorted(os.path.join(directory, entry) for entry in os.listdir(directory) if entry.startswith(name))
    except OSError:
        return []

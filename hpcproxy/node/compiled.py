"""The agent's modules, compiled: kept beside agent.pyz, because Python keeps nothing of what it compiles out of a zip.

To compile them costs each start some 50 ms of a core, which a node that starts a job has better uses for. What is kept
is for one agent.pyz and one Python; whoever may write into that directory may replace agent.pyz itself. Where it cannot
be written (an admin's directory) or read, everything goes on without it.
"""

import marshal
import os
import stat
import sys
import time
from typing import Any, Callable, Dict, List, Optional

LIMIT = 1 << 24
FORGOTTEN_S = 60  # a draft that is older was left by somebody who was killed over it


class Compiled:
    """An importer (PEP 451) of the modules in `codes`, each marshalled: what is never imported is never made."""

    def __init__(self, codes: Dict[str, bytes]) -> None:
        self.codes = codes
        self.packages = {name.rpartition(".")[0] for name in codes}

    def find_spec(self, name: str, *_: Any) -> Any:
        """The module's specification; None if it is none of ours."""
        if name not in self.codes:
            return None
        # Not importlib.machinery: that would cost more than the modules that it imports.
        bootstrap = sys.modules["_frozen_importlib"]
        return bootstrap.ModuleSpec(name, self, is_package=name in self.packages)

    def create_module(self, spec: Any) -> None:
        """As Python makes it."""

    def exec_module(self, module: Any) -> None:
        """The module has run; its code is kept no longer."""
        code = marshal.loads(self.codes.pop(module.__name__))  # noqa: S302 - as much ours as agent.pyz
        exec(code, module.__dict__)  # noqa: S102 - this is what an import is


def use(archive: str, package: str, names: List[str]) -> None:
    """Modules `names` of `package` in the zip file `archive` are imported compiled, and kept so for the next start."""
    try:
        found = os.stat(archive)
        key = [sys.version, found.st_size, found.st_mtime_ns, *names]
        kept = "{}.{}.code".format(os.path.splitext(archive)[0], sys.implementation.cache_tag)
        codes = read(kept, key)
        if codes is None:
            codes = marshal.loads(apart(lambda: made(archive, package, names, kept, key)))  # noqa: S302 - our own child's
    except Exception:
        return  # a file system that gives errors, a Python that does it differently: the zip file serves
    sys.meta_path.insert(0, Compiled(codes))


def apart(make: Callable[[], bytes]) -> bytes:
    """What `make` returns, from a process of its own; nothing if that fails.

    What compiling takes of memory would be the agent's for as long as it lives.
    """
    reading, writing = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            with open(writing, "wb") as file:
                file.write(make())
        finally:
            os._exit(0)
    os.close(writing)
    with open(reading, "rb") as file:
        said = file.read()
    os.waitpid(pid, 0)
    return said


def made(archive: str, package: str, names: List[str], kept: str, key: List[Any]) -> bytes:
    """The modules' codes, marshalled; kept for the next start where that can be."""
    codes = compile_all(archive, package, names)
    try:
        write(kept, key, codes)
    except OSError:
        pass  # a disk that is full costs the next start its time
    return marshal.dumps(codes)


def compile_all(archive: str, package: str, names: List[str]) -> Dict[str, bytes]:
    """The code of each module by its name, marshalled."""
    import zipimport

    sources = {}
    for name in [package] + ["{}.{}".format(package, name) for name in names]:
        *folders, last = name.split(".")
        sources[name] = zipimport.zipimporter("/".join([archive] + folders)).get_source(last)
    # Without docstrings, which nobody reads there.
    return {
        name: marshal.dumps(compile(text or "", os.path.join(archive, name), "exec", dont_inherit=True, optimize=2))
        for name, text in sources.items()
    }


def read(path: str, key: List[Any]) -> Optional[Dict[str, bytes]]:
    """What is kept there for `key`; None if there is no such thing, or somebody else could have written it."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    with open(fd, "rb") as file:
        found = os.fstat(fd)
        ours = stat.S_ISREG(found.st_mode) and found.st_uid in (0, os.geteuid()) and not found.st_mode & 0o022
        if not ours or found.st_size > LIMIT:
            return None
        try:
            kept, codes = marshal.loads(file.read())  # noqa: S302 - as much ours as agent.pyz
        except (EOFError, ValueError, TypeError):
            return None  # half of it, after a crash
    return codes if kept == key else None


def write(path: str, key: List[Any], codes: Dict[str, bytes]) -> None:
    """`codes` are kept there; many nodes may want that at the same moment, and one does it."""
    draft = path + ".new"
    try:
        fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        if time.time() - os.lstat(draft).st_mtime > FORGOTTEN_S:
            os.unlink(draft)
        return
    except OSError:
        return
    try:
        with open(fd, "wb") as file:
            file.write(marshal.dumps([key, codes]))
        os.replace(draft, path)
    except OSError:
        os.unlink(draft)

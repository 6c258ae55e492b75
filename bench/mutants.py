"""Which small mistakes the quick tests would not notice: a seeded sample of mutants, each tried on its room's tests.

    python bench/mutants.py [--count N] [--seed N] [--only PATH] [--kind python|shell] [--within SECONDS]

`--count` mutants of Python and as many of shell are drawn, from all code or from that below PATH. Each is put into a
private copy of this tree, where the test files of its room run, without the lab, one after another, until a test fails:
those that speak most of its module first, and a dozen at most. The checkers of style and the golden files are left out:
they see that something changed and not that it is wrong. A mutant that nobody noticed is listed; when it is one that
changes nothing that matters, a line of bench/mutants-without-effect.txt says so, and why. The table at the end has a
row for each room.

A file runs once without a mutant first: it must pass, and a mutant's run may last thrice as long as it did; `--within`
bounds the first run, and a file that fails or takes longer than that is tried on nothing. What runs longer hangs, which
is noticed. All that a run has started is ended with it. Ends with 1 if fewer than nine tenths of the mutants with an
effect were noticed.

mutmut and cosmic-ray do this for Python. Neither knows shell, which is where most of what can go wrong here stands, nor
draws a bounded sample with a seed, nor has a test run on files that are not imported.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT)]

from bench.mutations import Mutation, is_one, mutations  # noqa: E402
from bench.rooms import room_of, scripts_of, tests_of  # noqa: E402

WITHOUT_EFFECT = ROOT / "bench" / "mutants-without-effect.txt"
# Not the product: what its own tests and its demonstration are made of.
APART = ("hpcproxy/lab/", "hpcproxy/demo/", "hpcproxy/templates/")
CHECKERS = (
    "not shellcheck and not shfmt and not golden and not laid_out and not over_40_lines and not over_400_lines"
    " and not stand_alone"
)
NOTICED, IN_TIME, SURVIVED, NO_EFFECT, UNKNOWN = (
    "noticed",
    "noticed: it hangs",
    "SURVIVED",
    "without effect",
    "not tried",
)
GRACE_S = 10
MOST = 12  # test files that are tried on a mutant
PR_SET_CHILD_SUBREAPER = 36  # prctl(2)


def main(argv: Sequence[str] | None = None) -> int:
    """Draw, try, say; return the exit code."""
    asked = _arguments(argv)
    drawn = draw(asked.count, asked.seed, asked.only, asked.kind)
    print(f"{len(drawn)} mutants, seed {asked.seed}", flush=True)
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)  # who loses its parent becomes ours, and is ended
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    with private_copy() as tree:
        outcomes = [(mutant, _say(mutant, outcome)) for mutant, outcome in tried(tree, drawn, asked.within)]
    return report(outcomes)


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=30)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", default="", metavar="PATH")
    parser.add_argument("--kind", choices=("python", "shell"), default="")
    parser.add_argument("--within", type=int, default=600, metavar="SECONDS")
    return parser.parse_args(argv)


def files(only: str = "") -> list[str]:
    """The files that can be mutated, from the root, those below `only`."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "hpcproxy", "templates"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    names = [name for name in listed.stdout.split("\0") if name.endswith((".py", ".sh")) and not name.startswith(APART)]
    return sorted(name for name in names if name.startswith(only) and (ROOT / name).is_file())


def draw(count: int, seed: int, only: str = "", kind: str = "") -> list[Mutation]:
    """`count` mutants of each language, the same for the same seed and code, room by room."""
    drawn = []
    for language, suffix in (("python", ".py"), ("shell", ".sh")):
        if kind in ("", language):
            names = [name for name in files(only) if name.endswith(suffix)]
            pool = [found for name in names for found in mutations(name, (ROOT / name).read_bytes())]
            random.Random(f"{seed} {language}").shuffle(pool)  # noqa: S311 - a sample, no secret
            drawn += list(_first(pool, count))
    return sorted(drawn, key=lambda mutant: (room_of(mutant.path), mutant.path, mutant.begin))


def _first(pool: Sequence[Mutation], count: int) -> Iterator[Mutation]:
    for found in pool:
        if count and is_one(found):
            count -= 1
            yield found


@contextlib.contextmanager
def private_copy() -> Iterator[Path]:
    """What is tracked here, as it stands now, in a directory that is gone afterwards; its Python is compiled."""
    with tempfile.TemporaryDirectory(prefix="hpcproxy-mutants-", dir="/var/tmp") as directory:
        tree = Path(directory)
        tree.chmod(0o755)  # as other users tests run what is in it
        listed = subprocess.run(
            ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
            cwd=ROOT, capture_output=True, text=True, check=True,
        ).stdout  # fmt: skip
        for name in filter(None, listed.split("\0")):
            if (ROOT / name).is_symlink() or (ROOT / name).is_file():
                (tree / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / name, tree / name, follow_symlinks=False)
        subprocess.run([sys.executable, "-m", "compileall", "-q", "hpcproxy", "tests"], cwd=tree, check=True)
        yield tree


def tried(tree: Path, drawn: Sequence[Mutation], within_s: float) -> Iterator[tuple[Mutation, str]]:
    """Each mutant with what became of it."""
    bounds: dict[str, float] = {}
    innocent = without_effect()
    for mutant in drawn:
        if (mutant.path, *mutant.lines) in innocent:
            yield mutant, NO_EFFECT
            continue
        outcome = UNKNOWN
        copied = [name for name in tests_of(mutant.path) if (tree / name).is_file()]  # somebody goes on writing here
        for name in nearest(tree, mutant.path, copied)[:MOST]:
            if name not in bounds:
                bounds[name] = bound(tree, mutant.path, (name,), within_s)
            if bounds[name]:
                with altered(tree / mutant.path, mutant.mutated):
                    outcome = passes(tree, (name,), bounds[name])[0]
                if outcome != SURVIVED:
                    break
        yield mutant, outcome


def bound(tree: Path, path: str, tests: Sequence[str], within_s: float) -> float:
    """How many seconds a run of `tests` with a mutant may last; 0 where they fail without one, which is said."""
    begun = time.monotonic()
    outcome, said = passes(tree, tests, within_s)
    if outcome == SURVIVED:
        return 30 + 3 * (time.monotonic() - begun)
    print(f"the tests of {path} fail without a mutant:\n{said}", flush=True)
    return 0


@contextlib.contextmanager
def altered(path: Path, content: bytes) -> Iterator[None]:
    """For as long as the block lasts the file is another one; then the old one, whose compiled form is still right."""
    before, status = path.read_bytes(), path.stat()
    path.write_bytes(content)
    try:
        yield
    finally:
        path.write_bytes(before)
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def passes(tree: Path, tests: Sequence[str], within_s: float) -> tuple[str, str]:
    """What becomes of the mutant in `tree`: whether a test fails. With the last words of the tests."""
    argv = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "--tb=line", "-k", CHECKERS]
    environ = {**os.environ, "PYTHONPATH": str(tree), "PYTHONDONTWRITEBYTECODE": "1"}
    with tempfile.TemporaryFile() as output:
        child = subprocess.Popen(
            [*argv, *tests], cwd=tree, env=environ, stdin=subprocess.DEVNULL, stdout=output,
            stderr=output, start_new_session=True,
        )  # fmt: skip
        try:
            code = ended(child, within_s)
        finally:
            end(child)
        output.seek(0)
        said = output.read().decode(errors="replace")[-2000:]
    assert code in (None, 0, 1, 2, 3, 4) and (code != 5), said
    return {None: IN_TIME, 0: SURVIVED}.get(code, NOTICED), said


def ended(child: subprocess.Popen[bytes], within_s: float) -> int | None:
    """The exit code; None if it runs still. Orphans are ours, as elsewhere they are init's, and are reaped."""
    deadline = time.monotonic() + within_s
    while child.poll() is None and time.monotonic() < deadline:
        for pid in _children(os.getpid()):
            if pid != child.pid:
                with contextlib.suppress(ChildProcessError):
                    os.waitpid(pid, os.WNOHANG)
        time.sleep(0.05)
    return child.returncode


def nearest(tree: Path, path: str, tests: Sequence[str]) -> tuple[str, ...]:
    """The test files that speak of the mutated module, who speaks most of it first; those beside it where none does."""
    own, further = (
        re.compile(rf"\b({'|'.join(map(re.escape, words))})\b")
        for words in (words_of(tree, path), neighbours(tree, path))
    )
    beside = f"tests/{room_of(path)}/"
    stem = module_of(path).removeprefix("of_")
    stem = stem if len(stem) < 6 else stem[:-1]  # one or several of them

    def mentions(name: str) -> int:
        text, named = (
            (tree / name).read_text(),
            f"_{Path(name).stem}_".find(f"_{stem}" if len(stem) > 4 else f"_{stem}_") >= 0,
        )
        near = 2 if name.startswith(beside) else 1
        return 1000 * named * near + (4 * len(own.findall(text)) + len(further.findall(text))) * near

    speaking = sorted((name for name in tests if mentions(name)), key=lambda name: (-mentions(name), name))
    return tuple(speaking) or tuple(name for name in tests if name.startswith(beside)) or tuple(tests)


def words_of(tree: Path, path: str) -> list[str]:
    """What one calls the module, and what it has for others."""
    text = (tree / path).read_text()
    if not path.endswith(".py"):
        return [Path(path).stem, *re.findall(r"(?m)^(?:__hpcproxy_)?(\w{5,})\(\) \{", text)]
    return [module_of(path), *re.findall(r"(?m)^(?:async )?(?:def|class) ([A-Za-z]\w{5,})\b", text)]


def neighbours(tree: Path, path: str) -> list[str]:
    """What a test says that may not know the module's name: scripts that have it in, modules that import it."""
    if not path.endswith(".py"):
        return scripts_of(path)
    stem, whole = module_of(path), ".".join(Path(path).with_suffix("").parts).removesuffix(".__init__")
    inside = re.compile(rf"(?m)^ *from (?:[\w.]*\b{stem} import|[\w.]+ import .*\b{stem}\b)")
    importers = [each for each in sorted((tree / "hpcproxy").rglob("*.py")) if inside.search(each.read_text())]
    if not importers:  # a program: what it has run has tests that start it
        return re.findall(r"(?m)^ *from hpcproxy[\w.]* import (\w+)", (tree / path).read_text())
    return [whole, *(module_of(str(each)) for each in importers)]


def module_of(path: str) -> str:
    """The name that a module is imported by."""
    return Path(path).parent.name if path.endswith("__init__.py") else Path(path).stem


def end(child: subprocess.Popen[bytes]) -> None:
    """Nothing runs any more that `child` has started: asked first, for its fixtures end theirs, then by force."""
    if child.poll() is None:
        child.send_signal(signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(GRACE_S)
    while left := _descendants(os.getpid()):
        for pid in left:
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        time.sleep(0.01)


def _children(pid: int) -> list[int]:
    try:
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def _descendants(pid: int) -> list[int]:
    return [each for child in _children(pid) for each in (child, *_descendants(child))]


def without_effect() -> set[tuple[str, str, str]]:
    """Mutants that somebody has looked at, and that change nothing that matters: path, line before, line after."""
    lines = WITHOUT_EFFECT.read_text().splitlines() if WITHOUT_EFFECT.exists() else []
    found = [line for line in lines if line and not line.startswith("#")]
    return {(path, before, after) for path, before, after in (line.split("\t")[:3] for line in found)}


def _say(mutant: Mutation, outcome: str) -> str:
    print(f"{outcome:>18}  {mutant}", flush=True)
    return outcome


@dataclass
class Row:
    """What became of a room's mutants."""

    noticed: int = 0
    survived: int = 0
    without_effect: int = 0

    def count(self, outcome: str) -> None:
        """One more."""
        if outcome == NO_EFFECT:
            self.without_effect += 1
        elif outcome in (SURVIVED, UNKNOWN):
            self.survived += 1
        else:
            self.noticed += 1


def report(outcomes: Sequence[tuple[Mutation, str]]) -> int:
    """Print survivors and the table; return the exit code."""
    rows: dict[str, Row] = {}
    total = Row()
    for mutant, outcome in outcomes:
        rows.setdefault(room_of(mutant.path), Row()).count(outcome)
        total.count(outcome)
    print("\nSurvivors:")
    for mutant, outcome in outcomes:
        if outcome in (SURVIVED, UNKNOWN):
            print("\t".join((mutant.path, *mutant.lines)))
    print(f"\n{'room':26} noticed survived without effect")
    for name, row in [*sorted(rows.items()), ("all", total)]:
        print(f"{name:26} {row.noticed:7} {row.survived:8} {row.without_effect:14}")
    tellable = total.noticed + total.survived
    share = total.noticed / tellable if tellable else 1.0
    print(f"{share:.0%} of those with an effect are noticed")
    return int(share < 0.9)


if __name__ == "__main__":
    sys.exit(main())

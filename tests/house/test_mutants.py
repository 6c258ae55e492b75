"""`invoke mutants`: a seed draws the same again, every file has its tests, a mistake that a test sees is noticed."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from bench import mutants, rooms
from bench.mutations import Mutation, is_one, mutations
from tests.waiting import until

PYTHON = b'''"""Doc."""
LIMIT = 8


def few(count: int = 0) -> bool:
    """Whether that is few."""
    if not count or count < LIMIT:
        return True
    raise ValueError("many")
'''
SHELL = b"""# A comment with 8 in it.
few() {
    if [[ -z $1 ]] || (($1 < 8)); then return 0; fi
    printf 'many: %s\\n' "$1" >&2
    return 1
}
"""


def _said(path: str, source: bytes) -> set[str]:
    return {each.lines[1] for each in mutations(path, source) if is_one(each)}


def test_what_somebody_could_write_instead_in_python() -> None:
    assert _said("x.py", PYTHON) == {
        "LIMIT = 17",
        "def few(count: int = 1) -> bool:",
        "if (not (not count or count < LIMIT)):",
        "if bool(count) or count < LIMIT:",
        "if not count and count < LIMIT:",
        "if not count or count <= LIMIT:",
        "return False",
        "return None",
        "pass",
    }


def test_what_somebody_could_write_instead_in_shell() -> None:
    found = _said("x.sh", SHELL)
    assert {
        "if [[ -n $1 ]] || (($1 < 8)); then return 0; fi",
        "if [[ -z $1 ]] && (($1 < 8)); then return 0; fi",
        "if [[ -z $1 ]] || (($1 <= 8)); then return 0; fi",
        "if [[ -z $1 ]] || (($1 < 17)); then return 0; fi",
        "if [[ -z $1 ]] || (($1 < 8)); then return 1; fi",
        "return 0",
        ":",
    } <= found
    assert not any(line.startswith("#") or "5&2" in line for line in found)


@pytest.mark.parametrize("seed", [1, 2])
def test_the_same_seed_draws_the_same_and_no_more_than_was_asked_for(seed: int) -> None:
    drawn = mutants.draw(3, seed, "templates/lib")
    assert [str(each) for each in drawn] == [str(each) for each in mutants.draw(3, seed, "templates/lib")]
    assert len(drawn) == 3
    assert {each.path.rpartition(".")[2] for each in mutants.draw(2, seed)} == {"py", "sh"}
    assert [str(each) for each in drawn] != [str(each) for each in mutants.draw(3, seed + 2, "templates/lib")]


@pytest.mark.parametrize("path", mutants.files())
def test_every_file_has_its_tests(path: str) -> None:
    tests = mutants.tests_of(path)
    assert tests != ()
    assert [name for name in tests if not (mutants.ROOT / name).is_file()] == []


def test_every_folder_has_a_row_and_every_row_a_folder_and_files_that_are_there() -> None:
    of_files = {path: rooms.rooms_of(path) for path in mutants.files()}
    assert [path for path, found in of_files.items() if not found] == []
    assert {room for found in of_files.values() for room in found} - set(rooms.TESTS) == set()
    places = (mutants.ROOT, mutants.ROOT / "hpcproxy")
    assert [room for room in rooms.TESTS if not any((place / room).is_dir() for place in places)] == ["ground"]
    named = {name for names in rooms.TESTS.values() for name in names.split()}
    assert [name for name in sorted(named) if not (mutants.ROOT / f"tests/{name}.py").is_file()] == []


@pytest.mark.parametrize(
    ("path", "among_the_first"),
    [
        ("hpcproxy/doctor/of_machine.py", "doctor/test_machine"),
        ("hpcproxy/doctor/page.py", "doctor/test_page"),
        ("hpcproxy/cli/user.py", "cli/test_cli"),  # a word that many tests say of somebody
        ("hpcproxy/account/wrapping.py", "account/test_runner"),  # which no test names: by what imports it
        ("hpcproxy/__main__.py", "cli/test_program"),
        ("hpcproxy/node/upstream/site_proxy.py", "node/upstream/test_site_proxies"),
        ("templates/lib/supervisor/supervise.sh", "templates/slurmd/test_supervise"),
        ("templates/lib/host/place.sh", "cluster/test_shared"),
    ],
)
def test_who_speaks_most_of_a_module_is_tried_first(path: str, among_the_first: str) -> None:
    near = mutants.nearest(mutants.ROOT, path, mutants.tests_of(path))
    assert f"tests/{among_the_first}.py" in near[: mutants.MOST]
    assert len(set(near)) == len(near)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A project of one module and one test, which starts a process that would stay."""
    (tmp_path / "few.py").write_bytes(PYTHON)
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    (tmp_path / "test_few.py").write_text(
        "import os, subprocess\nfrom few import few\n\n"
        "def test_few():\n"
        "    left = subprocess.Popen(['sleep', '600'], start_new_session=True)\n"
        "    open('left', 'w').write(str(left.pid))\n"
        "    assert few(7)\n"
    )
    return tmp_path


def _outcome(tree: Path, mutant: Mutation, within_s: float = 60) -> str:
    """In a process of its own, for whatever is orphaned becomes its."""
    text = (
        "import ctypes, sys; from pathlib import Path; from bench import mutants\n"
        "ctypes.CDLL(None).prctl(mutants.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)\n"
        "tree = Path(sys.argv[1])\n"
        "with mutants.altered(tree / 'few.py', sys.stdin.buffer.read()):\n"
        "    print(mutants.passes(tree, ['test_few.py'], float(sys.argv[2]))[0])\n"
    )
    argv = [sys.executable, "-c", text, str(tree), str(within_s)]
    done = subprocess.run(argv, input=mutant.mutated, capture_output=True, cwd=mutants.ROOT, check=True, timeout=120)
    return done.stdout.decode().strip()


def test_a_mistake_that_a_test_sees_is_noticed_and_another_survives_and_nothing_stays(tree: Path) -> None:
    by_line = {each.lines[1]: each for each in mutations("few.py", PYTHON)}
    assert _outcome(tree, by_line["return False"]) == mutants.NOTICED
    pid = int((tree / "left").read_text())
    until(lambda: not Path(f"/proc/{pid}").exists(), "what the test has started is gone")
    assert _outcome(tree, by_line["if not count or count <= LIMIT:"]) == mutants.SURVIVED
    assert (tree / "few.py").read_bytes() == PYTHON


def test_one_that_hangs_has_its_time(tree: Path) -> None:
    (same,) = [each for each in mutations("few.py", PYTHON) if each.lines[1] == "return None"]
    hanging = Mutation(same.path, same.line, same.begin, same.end, "[1 for _ in iter(int, 1)]", same.source)
    begun = time.monotonic()
    assert _outcome(tree, hanging, 3) == mutants.IN_TIME
    assert time.monotonic() - begun < 100


def test_who_looked_at_one_says_so_in_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "list"
    path.write_text("# comment\na.sh\tx == 1\tx == 3\twhy\n")
    monkeypatch.setattr(mutants, "WITHOUT_EFFECT", path)
    assert mutants.without_effect() == {("a.sh", "x == 1", "x == 3")}


def test_the_table_counts_and_the_exit_code_says_whether_nine_of_ten_are_noticed(
    capsys: pytest.CaptureFixture[str],
) -> None:
    (mutant, *_) = mutations("hpcproxy/errors.py", PYTHON)
    outcomes = [(mutant, mutants.NOTICED)] * 8 + [(mutant, mutants.IN_TIME), (mutant, mutants.NO_EFFECT)]
    assert mutants.report([*outcomes, (mutant, mutants.SURVIVED)]) == 0
    assert "\nall                              9        1              1\n90% of those" in capsys.readouterr().out
    assert mutants.report([*outcomes, (mutant, mutants.SURVIVED), (mutant, mutants.SURVIVED)]) == 1

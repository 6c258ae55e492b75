from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import product
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpcproxy import quoting
from hpcproxy.errors import RenderError
from hpcproxy.files.plan import Artifact, Plan
from hpcproxy.files.render import TEMPLATES, File, render
from tests import style
from tests.golden_cases import GOLDEN, expand, plan, rendered_files
from tests.hostile import HOSTILE

SHELLS = ("bash", "dash")
SOURCED = ("prologue.sh", "epilogue.sh", "bashrc.sh")

# ------------------------------------------------------------------------------------------------ golden files


@pytest.mark.parametrize("name", rendered_files())
def test_rendered_file_is_its_golden_file(name: str) -> None:
    path = GOLDEN / name
    assert path.exists(), f"{path} is missing; after a look at what changed: invoke golden"
    assert rendered_files()[name].decode() == expand(path.read_text())


def test_there_is_no_golden_file_too_many() -> None:
    assert {str(path.relative_to(GOLDEN)) for path in GOLDEN.rglob("*") if path.is_file()} == set(rendered_files())


def test_rendering_twice_gives_the_same_bytes_and_digests() -> None:
    once, again = render(plan("/h", jump="a")), render(plan("/h", jump="a"))
    assert [(file.content, file.digest) for file in once.files] == [(file.content, file.digest) for file in again.files]
    assert once.named("tunnel.sh") in once.files
    assert once.named("nothing") is None


# ------------------------------------------------------------------------------------------------ every combination

_JUMPS = ([], ["host"], ["hello@192.168.31.10", "u.x-y@[2001:db8::1]:2222"])
_HOMES = ("/home/alice/.hpcproxy", "/home/größe/it's my (home); &c #1/.hpcproxy")
_SWITCHES = (False, True)


def _combinations() -> Iterator[Plan]:
    """Every combination of what a user can set; settings that are one plain word either way take turns."""
    shapes = product(_JUMPS, (None, "/my keys/größe/id's"), ([], ["a.example", ".b"]), _HOMES)
    for number, (jump, identity, no_proxy, home) in enumerate(shapes):
        values: dict[str, object] = {} if identity is None else {"identity": identity}
        # Out of step with the loops above, so that each value meets each of the others.
        port, scheme = (1024, 65535)[number // 3 % 2], ("socks5h", "socks5")[number // 5 % 2]
        bypass = number // 7 % 2 == 0
        for autostart, required in product(_SWITCHES, _SWITCHES):
            values |= {"autostart": autostart, "required": required, "bypass_private": bypass}
            yield plan(home, jump=jump, no_proxy=no_proxy, port=port, scheme=scheme, **values)


@pytest.fixture(scope="module")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Path]]:
    """Every different file that the combinations give, by artifact name, on disk."""
    directory = tmp_path_factory.mktemp("rendered")
    files = {(file.artifact.name, file.digest): file for case in _combinations() for file in render(case).files}
    return {
        name: [_store(directory, file) for file in files.values() if file.artifact.name == name]
        for name in ("tunnel.sh", "job.sh", *SOURCED)
    }


def _store(directory: Path, file: File) -> Path:
    path = directory / f"{file.digest[:16]}-{file.artifact.name}"
    path.write_bytes(file.content)
    return path


def _silent(argv: Sequence[str], paths: Sequence[Path], per_call: int) -> None:
    """Assert that `argv` has nothing to say about `paths`, `per_call` at a time on every core."""
    batches = [paths[i : i + per_call] for i in range(0, len(paths), per_call)]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        results = list(pool.map(lambda batch: _words(argv, batch), batches))
    assert [words for words in results if words] == []


def _words(argv: Sequence[str], paths: Sequence[Path]) -> str:
    done = subprocess.run([*argv, *map(str, paths)], capture_output=True, text=True, check=False)
    return done.stdout + done.stderr + (f"exit code {done.returncode}" if done.returncode else "")


def test_the_combinations_are_what_they_should_be(rendered: dict[str, list[Path]]) -> None:
    counts = {name: len(paths) for name, paths in rendered.items()}
    assert counts["epilogue.sh"] == len(_HOMES) * 2
    assert counts["prologue.sh"] == counts["bashrc.sh"] == len(_HOMES) * 4
    assert counts["job.sh"] == len(_HOMES) * 2 * len(_JUMPS)
    assert counts["tunnel.sh"] == 24


@pytest.mark.parametrize("name", ["tunnel.sh", "job.sh", *SOURCED])
def test_every_combination_passes_shfmt(name: str, rendered: dict[str, list[Path]]) -> None:
    _silent(style.shfmt("-i", "4", "-ci", "-d"), rendered[name], per_call=50)


@pytest.mark.parametrize("name", ["tunnel.sh", "job.sh", *SOURCED])
def test_every_combination_parses(name: str, rendered: dict[str, list[Path]]) -> None:
    for parser in SHELLS if name in SOURCED else ["bash"]:
        # `-n` reads one file only: the loop is the shell's own.
        _silent(["sh", "-c", 'for file; do "$0" -n "$file" || exit; done', parser], rendered[name], per_call=50)


@pytest.mark.parametrize("name", ["tunnel.sh", "job.sh", *SOURCED])
def test_every_combination_passes_shellcheck(name: str, rendered: dict[str, list[Path]]) -> None:
    _silent(style.shellcheck(), rendered[name], per_call=4)
    if name in SOURCED:
        # SC2292 would have [[ ]] of what sh reads, too.
        _silent(style.shellcheck("-s", "bash", "-e", "SC2292"), rendered[name], per_call=4)


@pytest.mark.parametrize("path", sorted((TEMPLATES / "lib").glob("*/*.sh")), ids=lambda path: path.name)
def test_the_static_parts_stand_alone(path: Path) -> None:
    assert "{{" not in path.read_text()
    _silent(style.shfmt("-i", "4", "-ci", "-d"), [path], per_call=1)
    # What the other parts define or use cannot be seen from one part: SC2154, SC2034.
    _silent(style.shellcheck("-e", "SC2154,SC2034"), [path], per_call=1)


# ------------------------------------------------------------------------------------------------ the guard


def _render_text(tmp_path: Path, text: str, **values: object) -> bytes:
    (tmp_path / "t.j2").write_text(text)
    artifact = Artifact("t", "t.j2", Path("/t"), 0o600, "")
    return render(Plan((artifact,), values, {}), templates=tmp_path).files[0].content


@pytest.mark.parametrize("value", ["text", "", True, None, 1.5, ["a"], b"x"], ids=repr)
def test_a_value_that_is_not_quoted_is_an_error(value: object, tmp_path: Path) -> None:
    with pytest.raises(RenderError, match=r"^template t\.j2: prints .* unquoted; pass it through"):
        _render_text(tmp_path, "x={{ value }}\n", value=value)


def test_no_other_filter_is_there_to_get_round_the_guard(tmp_path: Path) -> None:
    for name in ("safe", "e", "string", "join", "format", "int"):
        with pytest.raises(RenderError):
            _render_text(tmp_path, f"x={{{{ value | {name} }}}}\n", value="$(touch x)")


@pytest.mark.parametrize("text", ["{{ missing | sh }}", "{{ value | sh", "{% include 'none' %}", "{{ '\\0' | sh }}"])
def test_a_bad_template_is_an_error_that_names_it(text: str, tmp_path: Path) -> None:
    with pytest.raises(RenderError, match=r"^template t\.j2: "):
        _render_text(tmp_path, text, value="a")


def test_shell_syntax_that_looks_like_jinja_comments_passes_through(tmp_path: Path) -> None:
    text = 'a=${#x}\nb="${#y[@]}" # {# not ours #}\nc=${x#\\#}\n'
    assert _render_text(tmp_path, text).decode() == text


def test_exact_integers_need_no_quotes(tmp_path: Path) -> None:
    assert _render_text(tmp_path, "x={{ 2015 }}\n") == b"x=2015\n"


# What stands before a name and behind it where a value is assigned, and the filters that quote it; else as in sh.
ASSIGNMENTS = {
    ".fish": ("set ", " ", "fish"),  # which assigns by a command, as Tcl does
    ".tcl": ("set ", " ", "tcl"),
    ".lua": ("local ", " = ", "lua"),
}


def test_templates_print_values_in_plain_assignments_only() -> None:
    """A placeholder inside quotes, a here-document or a comment would not be protected by its own quoting."""
    placeholders = 0
    for path in TEMPLATES.rglob("*.j2"):
        for line in path.read_text().splitlines():
            if "{{" in line:
                before, between, quoted = ASSIGNMENTS.get(path.suffixes[0], ("", "=", "sh array table"))
                name, _, value = line.removeprefix(before).partition(between)
                assert name.isidentifier(), f"{path}: {line}"
                assert value.startswith("{{ "), f"{path}: {line}"
                assert value.endswith(tuple(f" | {each} }}}}" for each in quoted.split())), f"{path}: {line}"
                placeholders += 1
    assert placeholders > 10


def test_a_value_missing_from_the_plan_is_an_error() -> None:
    whole = plan("/h", jump="a")
    for missing in whole.values:
        values = {key: value for key, value in whole.values.items() if key != missing}
        with pytest.raises(RenderError, match=missing):
            render(replace(whole, values=values))


# ------------------------------------------------------------------------------------------------ quoting, for real


def _through(program: str, text: str, cwd: Path) -> bytes:
    executable = shutil.which(program)
    assert executable is not None
    done = subprocess.run([executable, "-s"], input=os.fsencode(text), capture_output=True, check=True, cwd=cwd)
    assert done.stderr == b""
    return done.stdout


@pytest.mark.parametrize("program", SHELLS)
def test_hostile_values_reach_a_shell_unchanged_and_run_nothing(program: str, tmp_path: Path) -> None:
    script = "".join(f"v={quoting.word(value)}\nprintf '%s\\0' \"$v\"\n" for value in HOSTILE)
    assert _through(program, script, tmp_path) == b"".join(value.encode() + b"\0" for value in HOSTILE)
    assert list(tmp_path.iterdir()) == []


def test_hostile_values_reach_a_bash_array_unchanged_and_run_nothing(tmp_path: Path) -> None:
    script = f'set -u\na={quoting.array(HOSTILE)}\nprintf \'%s\\0\' "${{#a[@]}}" "${{a[@]}}"\n'
    expected = [str(len(HOSTILE)), *HOSTILE]
    assert _through("bash", script, tmp_path) == b"".join(value.encode() + b"\0" for value in expected)
    assert list(tmp_path.iterdir()) == []


def test_hostile_values_reach_a_bash_table_unchanged_and_run_nothing(tmp_path: Path) -> None:
    script = f"set -u\na={quoting.table((value, 7) for value in HOSTILE)}\nprintf '%s\\0' \"${{a[@]}}\"\n"
    assert _through("bash", script, tmp_path) == b"".join(value.encode() + b"\x007\0" for value in HOSTILE)
    assert list(tmp_path.iterdir()) == []


@settings(max_examples=10)
@given(st.lists(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20), min_size=60))
def test_any_text_reaches_both_shells_unchanged(values: list[str]) -> None:
    script = "".join(f"v={quoting.word(value)}\nprintf '%s\\0' \"$v\"\n" for value in values)
    for program in SHELLS:
        assert _through(program, script, Path("/")) == b"".join(value.encode() + b"\0" for value in values)


@pytest.mark.parametrize(("name", "program"), [("job.sh", "bash"), ("bashrc.sh", "dash"), ("prologue.sh", "bash")])
def test_a_hostile_home_reaches_the_scripts_unchanged_and_runs_nothing(name: str, program: str, tmp_path: Path) -> None:
    for value in HOSTILE:
        home = str(Path(f"/nowhere/{value}/.hpcproxy"))
        file = render(plan(home, jump="a")).named(name)
        assert file is not None
        assignments = file.content.decode().split("\n\n# shellcheck shell=", 1)[0]
        variable = "home" if name == "job.sh" else "__hpcproxy_home"
        script = f"{assignments}\nprintf '%s' \"${variable}\"\n"
        assert _through(program, script, tmp_path).decode() == home
    assert list(tmp_path.iterdir()) == []


def test_quoting_of_single_values() -> None:
    assert str(quoting.word("plain")) == "plain"
    assert (str(quoting.word(True)), str(quoting.word(False))) == ("1", "''")
    assert str(quoting.array([])) == "()"
    assert str(quoting.array(["a", 1, "b c"])) == "(\n    a\n    1\n    'b c'\n)"
    assert str(quoting.table([])) == "()"
    assert str(quoting.table([("a", 1), ("b c", "")])) == "(\n    a 1\n    'b c' ''\n)"
    with pytest.raises(ValueError, match="NUL"):
        quoting.word("a\0b")

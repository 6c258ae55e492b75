"""The glossary's old names, held out of pages and code; the settings' old spellings, which are still taken."""

from __future__ import annotations

import ast
import fnmatch
import re
from pathlib import Path

import pytest

from hpcproxy.cluster import inventory
from hpcproxy.config.layers import Layer, parse_layer, resolve
from hpcproxy.config.model import OLD_KEYS, Config
from hpcproxy.errors import ConfigError
from tests import REPOSITORY

GLOSSARY = (REPOSITORY / "docs" / "glossary.md").read_text()
# What was said in its time, what is rendered from the rest, and where the old names are listed.
EXEMPT = (
    "CHANGELOG.md",
    "LICENSE",
    "docs/glossary.md",
    "docs/_build/*",
    "tests/golden/*",
    "tests/house/test_vocabulary.py",
)
FOLDERS = ("bench", "docs", "hpcproxy", "spank", "templates", "tests")


def _table(heading: str) -> list[list[str]]:
    """The rows of the table below `heading`, without its head."""
    lines = GLOSSARY.partition(f"## {heading}\n")[2].partition("\n## ")[0].splitlines()
    rows = [[cell.strip() for cell in line[1:-1].split(" | ")] for line in lines if line.startswith("|")]
    return rows[2:]


def _pattern(words: str) -> str:
    """Of words in any case and in any spelling: `way out`, `way_out`, `WayOut`."""
    parts = [f"(?:{part}|{part.capitalize()}|{part.upper()})" for part in words.split()]
    return "(?<![A-Za-z])" + r"[\s_#-]*".join(parts) + "s?(?![a-z])"


OLD = [name for row in _table("Old names") for name in row[0].split(", ")]
KEPT = [(row[0].split(", "), re.findall("`([^`]+)`", row[1])) for row in _table("Where an old name stays")]


def _files() -> dict[str, Path]:
    paths = [path for folder in FOLDERS for path in (REPOSITORY / folder).rglob("*") if path.is_file()]
    names = {str(path.relative_to(REPOSITORY)): path for path in (*paths, *REPOSITORY.glob("*.*"))}
    return {
        name: path
        for name, path in names.items()
        if path.suffix in {".md", ".py", ".sh", ".j2", ".c", ".toml", ".txt", ".svg"}
        and not any(fnmatch.fnmatch(name, glob) for glob in EXEMPT)
        and not name.startswith("hpcproxy/templates/")  # a link to templates/
    }


FILES = _files()


def _text(name: str) -> str:
    """What `name` says, and its own name, without what may stay in it."""
    text = f"{name}\n{FILES[name].read_text(errors='replace')}"
    for globs, kept in KEPT:
        if any(fnmatch.fnmatch(name, glob.strip("`")) for glob in globs):
            for words in kept:
                text = text.replace(words, "")
    return text


def test_the_tables_are_read() -> None:
    assert len(OLD) > 15
    assert len(KEPT) > 10
    assert len(FILES) > 300
    assert re.search(_pattern("way out"), "what_the_way_out_is")
    assert re.search(_pattern("way out"), "a way\n    # out")
    assert re.search(_pattern("gate"), "x_gates")
    assert not re.search(_pattern("gate"), "a gateway, delegated")
    assert {"Enablement", "enablement_of", "supervisor", "supervisor_lives", "first_speaker"} <= NAMES


def _names() -> set[str]:
    """What modules, classes, functions, variables and scripts of ours are called."""
    found = {Path(name).name.partition(".")[0] for name in FILES if name.startswith(("hpcproxy/", "templates/"))}
    for name, path in FILES.items():
        if name.startswith("hpcproxy/") and path.suffix == ".py":
            for node in ast.walk(ast.parse(path.read_text())):
                for field in ("id", "attr", "arg", "name", "asname"):
                    if isinstance(getattr(node, field, None), str):
                        found.add(getattr(node, field))
        elif name.startswith("templates/"):
            found.update(re.findall(r"^\s*(?:local )?([a-z_]\w*)(?:\(\)|\+?=)", path.read_text(), re.MULTILINE))
    return found


NAMES = _names()


@pytest.mark.parametrize("name", [name.strip("`") for name in OLD if name.startswith("`")])
def test_no_old_name_is_left_in_code(name: str) -> None:
    assert name not in NAMES


@pytest.mark.parametrize("words", [name for name in OLD if not name.startswith("`")])
def test_no_old_word_is_left(words: str) -> None:
    pattern = re.compile(_pattern(words))
    found = [f"{path}: {match[0]!r}" for path in FILES for match in [pattern.search(_text(path))] if match]
    assert found == []


def test_what_may_stay_is_there() -> None:
    """An exception that nothing needs would let the old name come back."""
    for globs, kept in KEPT:
        texts = [
            FILES[name].read_text(errors="replace")
            for name in FILES
            if any(fnmatch.fnmatch(name, glob.strip("`")) for glob in globs)
        ]
        assert [words for words in kept if not any(words in text for text in texts)] == []


def test_every_word_of_the_glossary_stands_once() -> None:
    words = [row[0] for row in _table("Words")]
    assert words == sorted(set(words))
    assert len(words) > 40


# --------------------------------------------------------------------------------------- settings by their old names


@pytest.mark.parametrize(("old", "value"), [("gate", False), ("linger_s", 7)])
def test_a_setting_by_its_old_name_means_the_same(old: str, value: object, tmp_path: Path) -> None:
    new = OLD_KEYS[old]
    layer = parse_layer("mine", f"{old}: {str(value).lower()}\n")
    assert resolve(layer) == resolve(Layer("mine", {old: value})) == Config.model_validate({new: value})
    # Of two layers the later one counts, by whichever name.
    assert getattr(resolve(Layer("site", {new: type(value)(1)}), layer), new) == value
    assert getattr(resolve(layer, Layer("mine", {new: type(value)(1)})), new) != value
    path = tmp_path / "site.yaml"
    path.write_text(f"nodes: c1\nsettings:\n  jump: j\n  {old}: {str(value).lower()}\n")
    assert getattr(inventory.read(path)[1], new) == value


@pytest.mark.parametrize("old", OLD_KEYS)
def test_a_setting_by_both_names_is_refused(old: str) -> None:
    with pytest.raises(ConfigError, match=f"is the old name of `{OLD_KEYS[old]}`"):
        parse_layer("mine", f"{old}: 1\n{OLD_KEYS[old]}: 1\n")


def test_an_unknown_key_is_answered_with_the_new_names() -> None:
    with pytest.raises(ConfigError) as caught:
        parse_layer("mine", "gates: true\n")
    assert "agent" in str(caught.value)
    assert "gate," not in str(caught.value)

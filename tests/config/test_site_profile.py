"""Profiles of sites: each of ours says where it comes from and is valid; an unknown name lists the known."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from hpcproxy.config import site_profile
from hpcproxy.errors import ConfigError, UsageError
from tests.settings_page import PAGE

OURS = site_profile.known((site_profile.OURS,))
GOOD = {"title": "A", "source": "https://a.example/net", "date": "2026-12-01", "settings": {"via": "auto"}}


@pytest.mark.parametrize("name", OURS)
def test_each_of_ours_says_where_it_comes_from(name: str) -> None:
    profile = site_profile.find(name)
    assert profile.source.startswith("https://")
    assert re.fullmatch(r"20\d\d-\d\d-\d\d", profile.date)
    assert profile.settings
    # The manual has it, with the same source.
    assert f"| `{name}` | [{profile.title}]({profile.source}) | {profile.date} |" in PAGE.read_text()


def test_there_are_some() -> None:
    assert len(OURS) >= 4
    assert site_profile.find("byu").settings["via"] == "http://porthole.rc.byu.edu:3128"


def test_an_admins_own_come_first_and_a_directory_may_be_named(tmp_path: Path) -> None:
    (tmp_path / "byu.yaml").write_text(yaml.safe_dump(GOOD))
    assert site_profile.find("byu", (tmp_path, site_profile.OURS)).title == "A"
    assert site_profile.find(f"{tmp_path}/byu").title == "A"
    assert str(site_profile.find(f"{tmp_path}/byu.yaml")) == "A, by https://a.example/net of 2026-12-01"
    with pytest.raises(UsageError, match=r"there is no site profile '.*/nosuch'; known: byu$"):
        site_profile.find(f"{tmp_path}/nosuch")
    with pytest.raises(UsageError, match=r"known: none$"):
        site_profile.find("/nonexistent/x")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"settings": {"via": "pigeon"}}, "via: 'pigeon' is none of"),
        ({"settings": {"nosuch": 1}}, "nosuch"),
        ({"settings": "via: auto"}, "settings: expected `key: value` lines"),
        ({"source": ""}, "source: must be a line of text"),
        ({"title": "a\nb"}, "title: must be a line of text"),
        ({"colour": "red"}, "colour: unknown key"),
        ({"date": None}, "date: must be a line of text"),
    ],
)
def test_what_is_no_profile_names_its_file(change: dict[str, object], words: str, tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(yaml.safe_dump({**GOOD, **change}))
    with pytest.raises(ConfigError) as error:
        site_profile.read(path)
    assert str(error.value).startswith(str(path))
    assert words in str(error.value)


def test_one_that_lacks_a_key(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(yaml.safe_dump({key: value for key, value in GOOD.items() if key != "source"}))
    with pytest.raises(ConfigError, match="source: is missing"):
        site_profile.read(path)


def _init(*words: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "hpcproxy", "init", *words]
    return subprocess.run(argv, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)


def test_init_begins_with_it_and_flags_win(home: Path) -> None:
    done = _init("--site", "byu", "--port", "3000")
    assert done.returncode == 0, done.stderr
    assert "site profile: BYU, Office of Research Computing, by https://rc.byu.edu/" in done.stderr
    path = home / ".hpcproxy" / "config.yaml"
    wanted = {**site_profile.find("byu").settings, "port": 3000}
    assert yaml.safe_load(path.read_text()) == wanted
    assert _init("--site", "byu", "--via", "auto").returncode == 0
    assert yaml.safe_load(path.read_text())["via"] == "auto"
    done = _init("--site", "nosuch")
    assert done.returncode == 2
    assert f"there is no site profile 'nosuch'; known: {', '.join(OURS)}" in done.stderr

"""The stamp is believed only where rendering would say the same; else `status` says what it said before."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from hpcproxy.account import checks, status, verbs
from hpcproxy.account.account import Account
from hpcproxy.config.model import Config
from hpcproxy.config.places import INSTALLED
from hpcproxy.files import stamp
from hpcproxy.files.plan import account_plan
from tests.cli.test_status import loaded

FLAGS = {"jump": ["u@h:22", "i@j"], "port": 2020, "identity": "~/.ssh/id_x"}


@pytest.fixture
def installed(account: Account, tmp_path: Path) -> Account:
    """An account with our files, on a machine whose site has settings of its own."""
    site = tmp_path / "site.yaml"
    site.write_text("connect_timeout_s: 7\n")
    account = replace(account, site_config=site)
    verbs.install_bashrc(account, verbs.settings_of(account, FLAGS), dry_run=False)
    assert fits(account)
    return account


def fits(account: Account) -> bool:
    return stamp.fits(account.home, account.user_home, account.site_config)


def rendered(account: Account) -> list[Path]:
    return checks.drift(verbs.bundle_of(account, verbs.settings_of(account).config))


def test_the_list_of_what_is_installed_is_the_plans(account: Account) -> None:
    assert tuple(one.name for one in account_plan(Config(), account.home).artifacts) == INSTALLED


def test_where_it_fits_rendering_finds_nothing_and_is_not_done(
    installed: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert rendered(installed) == []
    monkeypatch.setattr(verbs, "bundle_of", lambda *_: pytest.fail("it renders"))
    assert status.here(installed) == ([], [])


@pytest.mark.parametrize("name", INSTALLED)
@pytest.mark.parametrize("change", ["content", "mode", "gone"])
def test_a_changed_file_is_told(change: str, name: str, installed: Account) -> None:
    path = installed.home.directory / name
    if change == "content":
        path.write_bytes(path.read_bytes() + b"\n")
    elif change == "mode":
        path.chmod(0o640)
    else:
        path.unlink()
    assert not fits(installed)
    assert status.here(installed)[1] == [path]


@pytest.mark.parametrize("whose", ["user", "site"])
def test_changed_settings_are_told(whose: str, installed: Account) -> None:
    path = installed.home.config if whose == "user" else installed.site_config
    path.write_text(path.read_text() + "retry_max_s: 77\n")
    assert not fits(installed)
    assert status.here(installed)[1] == rendered(installed) != []


def test_a_site_whose_settings_are_gone_is_told(installed: Account) -> None:
    installed.site_config.unlink()
    assert status.here(installed)[1] == rendered(installed) != []


@pytest.mark.parametrize("words", ["# ~root/x", "# a\\x7eb", "# ~"])
def test_what_is_looked_up_anew_each_time_is_never_known(words: str, installed: Account) -> None:
    installed.home.config.write_text(installed.home.config.read_text() + words + "\n")
    verbs.install_bashrc(installed, verbs.settings_of(installed), dry_run=False)
    assert not fits(installed)
    assert status.here(installed)[1] == []


def test_another_home_is_another_stamp(installed: Account, tmp_path: Path) -> None:
    assert not fits(replace(installed, user_home=tmp_path))


@pytest.mark.parametrize("part", ["node/life/hold.py", "templates/node/tunnel.sh.j2", "config/model.py", "quoting.py"])
def test_another_version_of_the_program_is_told(
    part: str, installed: Account, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "hpcproxy"
    shutil.copytree(stamp.PACKAGE, other, ignore=shutil.ignore_patterns("__pycache__", "lab", "cluster", "demo"))
    monkeypatch.setattr(stamp, "PACKAGE", other)
    assert fits(installed), "a copy of the same is the same, whatever its times"
    before = (other / part).stat()
    text = (other / part).read_text()
    (other / part).write_text(text[:-2] + "#\n")
    os.utime(other / part, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert not fits(installed)


@pytest.mark.parametrize("name", stamp.LIBRARIES)
def test_another_version_of_a_library_is_told(
    name: str, installed: Account, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / name).parent.mkdir()
    (tmp_path / name).write_text("__version__ = '99'\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert not fits(installed)


def _half(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-20])


def _flip(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-2] + b"x\n")


def _open(path: Path) -> None:
    path.chmod(0o666)


def _link(path: Path) -> None:
    path.rename(path.with_name("other"))
    path.symlink_to("other")


def _fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path, 0o600)


@pytest.mark.parametrize("harm", [_half, _flip, _open, _link, _fifo, Path.unlink, lambda path: path.write_bytes(b"")])
def test_a_stamp_that_is_not_whole_or_not_ours_alone_is_not_believed(
    harm: Callable[[Path], None], installed: Account
) -> None:
    harm(installed.home.stamp)
    assert not fits(installed)
    assert status.here(installed)[1] == []
    tunnel = installed.home.directory / "tunnel.sh"
    tunnel.write_text("changed")
    assert status.here(installed)[1] == [tunnel]


def test_it_goes_with_the_rest(installed: Account, home: Path) -> None:
    assert installed.home.stamp.stat().st_mode & 0o777 == 0o600
    (installed.home.directory / "stamp.abcd.hpcproxy-new").touch()
    results, left = verbs.uninstall(installed)
    assert installed.home.stamp in [result.path for result in results]
    assert (left, list(home.iterdir())) == ([], [])


def test_status_loads_no_library_where_it_fits_or_nothing_is_installed(account: Account) -> None:
    assert loaded("status") == set()
    verbs.install_bashrc(account, verbs.settings_of(account, FLAGS), dry_run=False)
    assert loaded("status") == set()
    account.home.config.write_text("port: 2021\n")
    assert loaded("status") >= {"jinja2", "pydantic"}

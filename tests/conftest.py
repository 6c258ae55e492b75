"""Every test has an account of its own: nothing of the user's home, agent, proxies or job reaches it."""

from __future__ import annotations

import os
import re
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest

from hpcproxy.account.account import Account
from hpcproxy.config.places import SITE_CONFIG
from tests import sshd
from tests.sshd import Sshd
from tests.supervisor import Supervisor, write_script

hypothesis.settings.register_profile("steady", deadline=None, derandomize="CI" in os.environ)
hypothesis.settings.load_profile("steady")

_FOREIGN = re.compile(r"(?i:.*_proxy)|SLURM.*|SRUN.*|SBATCH.*|HPCPROXY_.*|SSH_.*|XDG_.*|BASH_ENV|ENV|GIT_.*|INVOKE_.*")


def pytest_configure() -> None:
    """What is started in the background ignores SIGINT, under nohup SIGHUP, and so would all that the tests start."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Iterator[None]:
    """What a machine lacks may skip a test; CI's lacks nothing, so there a skip hides a failure and is one."""
    return _no_skip_in_ci((yield))


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Iterator[None]:
    """The same for a whole file (importorskip)."""
    return _no_skip_in_ci((yield))


def _no_skip_in_ci(report: Any) -> Any:
    if report.skipped and os.environ.get("CI"):
        report.outcome = "failed"
        report.longrepr = f"skipped in CI: {report.longrepr}"
    return report


@pytest.fixture(scope="session")
def own_ssh(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with an `ssh` that reads nobody's ~/.ssh/config: ssh finds that by the account, not by HOME."""
    directory = tmp_path_factory.mktemp("bin")
    script = directory / "ssh"
    script.write_text(f'#!/bin/sh\nexec {shutil.which("ssh")} -F /dev/null "$@"\n')
    script.chmod(0o755)
    return directory


@pytest.fixture(autouse=True)
def home(own_ssh: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The test's own home; the environment is clean and TMPDIR short enough for a Unix socket's name."""
    if SITE_CONFIG.exists():
        pytest.fail(f"{SITE_CONFIG} exists and would reach every test; run the tests on a machine without it")
    for name in list(os.environ):
        if _FOREIGN.fullmatch(name):
            monkeypatch.delenv(name)
    os.umask(0o022)  # ssh reads no file that others may write, and a test may have had another
    directory = tmp_path_factory.mktemp("home")
    temporary = tempfile.mkdtemp(prefix="hp-", dir="/tmp")
    monkeypatch.setenv("HOME", str(directory))
    monkeypatch.setenv("TMPDIR", temporary)
    monkeypatch.setenv("PATH", f"{own_ssh}:{os.environ['PATH']}")
    monkeypatch.setenv("LC_ALL", "C.UTF-8")
    monkeypatch.setattr(tempfile, "tempdir", None)
    yield directory
    shutil.rmtree(temporary, ignore_errors=True)


@pytest.fixture
def ssh_config(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str | bytes], Path]:
    """Write the test's own ~/.ssh/config, which ssh then reads: by -F, for else it would ask the account."""
    path = home / ".ssh" / "config"
    script = tmp_path / "ssh-of-config" / "ssh"

    def write(text: str | bytes) -> Path:
        path.parent.mkdir(mode=0o700, exist_ok=True)
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return path

    write("")
    script.parent.mkdir()
    script.write_text(f'#!/bin/sh\nexec /usr/bin/ssh -F {path} "$@"\n')
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{script.parent}:{os.environ['PATH']}")
    return write


@pytest.fixture
def account(home: Path) -> Account:
    """The account that `home` belongs to."""
    del home
    return Account.of(os.environ)


@pytest.fixture(scope="module")
def jump_host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    """A jump host that works; tests leave it as it is."""
    with sshd.running(tmp_path_factory.mktemp("jump")) as server:
        yield server


@pytest.fixture(params=["agent", "ssh"])
def mode(request: pytest.FixtureRequest) -> str:
    """Who listens at the port: both ways are first-class."""
    return str(request.param)


@pytest.fixture
def hold(tmp_path: Path, mode: str) -> Iterator[Callable[..., Supervisor]]:
    """Start a supervisor with these settings in this mode; it is ended when the test is."""
    supervisors: list[Supervisor] = []

    def start(job: str = "", **settings: Any) -> Supervisor:
        script = write_script(tmp_path / f"home {len(supervisors)}", **{"agent": mode == "agent", **settings})
        supervisors.append(Supervisor(script, job))
        return supervisors[-1]

    yield start
    for supervisor in supervisors:
        supervisor.end()

"""`check URL` says who failed: the tunnel, the jump host's reach, or the far end by its own answer."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from hpcproxy.account import verbs
from hpcproxy.account.account import Account
from tests import servers, sshd


def _run(*arguments: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "hpcproxy", *arguments]
    return subprocess.run(argv, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL, env=os.environ)


@pytest.fixture
def up(account: Account, tmp_path: Path) -> Iterator[str]:
    """A tunnel of this shell's, and the URL of a web server that is reached through it."""
    with sshd.running(tmp_path / "jump") as jump, servers.internet() as url:
        settings = {"jump": [jump.jump], "identity": str(jump.identity), "allow": servers.REACHED}
        verbs.install_bashrc(
            account, verbs.settings_of(account, {**settings, "port": servers.free_port()}), dry_run=False
        )
        account.home.known_hosts.write_text(jump.known_hosts)
        assert _run("up").returncode == 0
        yield url
        assert _run("down").returncode == 0


def test_what_answers_is_told_with_its_status_and_a_refusal_is_its_own(up: str) -> None:
    done = _run("check", up)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("200  ")
    assert f" ms  {up} through " in done.stdout
    other = up.replace("/ip", "/other")
    refused = _run("check", other)
    assert (refused.returncode, refused.stdout[:5]) == (0, "404  ")
    assert "that is the far end's own answer, 404: the tunnel and the jump host are not the reason" in refused.stderr
    told = json.loads(_run("check", other, "--json").stdout)
    assert (told["status"], told["asked"]) == (404, other)
    assert "body" not in told


@pytest.mark.usefixtures("up")
def test_what_the_jump_host_does_not_reach_is_named_as_that() -> None:
    done = _run("check", f"http://127.0.0.1:{servers.free_port()}/")
    assert done.returncode == 1
    assert "far end: " in done.stderr
    assert "was not reached by the jump host: 502 " in done.stderr


@pytest.mark.parametrize("url", ["ftp://a", "http://", "a b", "http://a:b/", "http://ä/"])
def test_what_is_no_address_is_said_before_anything_is_asked(url: str) -> None:
    done = _run("check", "--url", url)
    assert (done.returncode, "is no http:// or https:// address" in done.stderr) == (2, True), done.stderr

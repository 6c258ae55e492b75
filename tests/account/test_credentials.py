"""What the account logs in with and may be gone before a job is: said when it is submitted, and by the hook."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from hpcproxy.account import credentials, time_limit
from hpcproxy.config.layers import Layer, resolve
from hpcproxy.config.places import Home
from hpcproxy.files.render import TEMPLATES

HOUR_S = 3600


@pytest.mark.parametrize(
    ("lines", "seconds"),
    [
        ("#SBATCH --time=30", 1800),
        ("#SBATCH -t 90:30", 5430),
        ("#SBATCH -t1:00:00", 3600),
        ("#SBATCH --time 2-3", 183600),
        ("#SBATCH -N1 --time=1-00:30", 88200),
        ("#SBATCH -t 1-01:01:01 --exclusive", 90061),
        ("#SBATCH --time=30\n#SBATCH -t 10", 600),
        ("#SBATCH -N 2\nsleep 30", None),
        ("#SBATCH --time-min=10", None),
        ("#SBATCH --time=UNLIMITED", None),
        ("#SBATCH --time=1:2:3:4", None),
        ("echo #SBATCH --time=30", None),
    ],
)
def test_the_time_limit_that_a_script_asks_for(lines: str, seconds: int | None) -> None:
    assert time_limit.seconds(f"#!/bin/bash\n{lines}\n".encode()) == seconds


def _key(path: Path, passphrase: str = "") -> Path:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", passphrase, "-f", path], check=True)
    return path


def _said(directory: Path, limit_s: int | None, identity: Path | None = None, **environ: str) -> list[str]:
    config = resolve(Layer("test", {"jump": "u@127.0.0.1", **({"identity": str(identity)} if identity else {})}))
    return credentials.too_short(config, Home(directory), {**os.environ, **environ}, limit_s)


def test_a_key_that_a_job_can_use_is_nothing_to_speak_of(tmp_path: Path) -> None:
    assert _said(tmp_path, HOUR_S, _key(tmp_path / "key")) == []
    assert credentials.too_short(resolve(Layer("test", {"via": "direct"})), Home(tmp_path), os.environ, 1) == []


def test_a_passphrase_that_nobody_can_type_in_a_job(tmp_path: Path) -> None:
    key = _key(tmp_path / "key", "secret")
    (said,) = _said(tmp_path, HOUR_S, key)
    assert said.startswith(
        f"the key {key} has a passphrase, which nobody can type in a job, and no job has this machine's"
    )


def test_a_certificate_that_ends_before_the_job_can(tmp_path: Path) -> None:
    key, authority = _key(tmp_path / "key"), _key(tmp_path / "ca")
    subprocess.run(
        ["ssh-keygen", "-q", "-s", authority, "-I", "x", "-n", "u", "-V", "-1h:+2h", f"{key}.pub"], check=True
    )
    assert _said(tmp_path, HOUR_S, key) == []
    (said,) = _said(tmp_path, 3 * HOUR_S, key)
    wanted = (
        r"the certificate \S+/key-cert.pub ends at \S+, before a job of that time limit: a tunnel that breaks after"
    )
    assert re.match(wanted, said)
    # Where nobody says how long: two weeks.
    assert _said(tmp_path, None, key)


@pytest.fixture
def ssh_agent(tmp_path: Path) -> Iterator[str]:
    """An ssh-agent with one key, whose file is nowhere."""
    path = tmp_path / "agent"
    process = subprocess.Popen(["ssh-agent", "-D", "-a", str(path)], stdout=subprocess.DEVNULL)
    try:
        key = _key(tmp_path / "loaded")
        while subprocess.run(
            ["ssh-add", "-q", key], env={**os.environ, "SSH_AUTH_SOCK": str(path)}, check=False
        ).returncode:
            assert process.poll() is None
        key.unlink()
        yield str(path)
    finally:
        process.terminate()
        process.wait()


@pytest.mark.parametrize(("days", "too_short"), [(13, True), (15, False)])
def test_of_a_job_whose_limit_nobody_knows_two_weeks_are_reckoned_with(
    days: int, too_short: bool, tmp_path: Path
) -> None:
    key, authority = _key(tmp_path / "key"), _key(tmp_path / "ca")
    sign = ["ssh-keygen", "-q", "-s", authority, "-I", "x", "-n", "u", "-V", f"-1h:+{days}d", f"{key}.pub"]
    subprocess.run(sign, check=True)
    assert bool(_said(tmp_path, None, key)) == too_short


def test_keys_that_only_an_ssh_agent_has(tmp_path: Path, ssh_agent: str) -> None:
    (said,) = _said(tmp_path, HOUR_S, tmp_path / "loaded", SSH_AUTH_SOCK=ssh_agent)
    assert said.startswith("the only keys are in this machine's ssh-agent, which no job has")
    assert _said(tmp_path, HOUR_S, tmp_path / "loaded") == [], "the login itself says that there is none"


def test_in_a_job_an_ssh_agent_that_unlocks_it_may_go_first(tmp_path: Path, ssh_agent: str) -> None:
    names = ("any/bounded", "tunnel/certificate", "tunnel/reason", "tunnel/credentials")
    parts = " ".join(f'. "{TEMPLATES}/lib/{name}.sh";' for name in names)
    script = (
        f"set -euo pipefail; {parts} of_step=1 identity=$1 ssh_says='' note=''; note_credentials; printf %s \"$note\""
    )
    key = _key(tmp_path / "key", "secret")
    for environ, words in (({"SSH_AUTH_SOCK": ssh_agent}, "only the ssh-agent has a key that can be used"), ({}, "")):
        argv = ["bash", "-c", script, "bash", str(key)]
        done = subprocess.run(argv, env={**os.environ, **environ}, capture_output=True, text=True, check=True)
        assert done.stdout.startswith(words)
        assert bool(done.stdout) == bool(words)


def test_wrap_says_it_of_the_scripts_own_limit(home: Path, tmp_path: Path) -> None:
    (home / ".hpcproxy").mkdir()
    key = _key(tmp_path / "key", "secret")
    (home / ".hpcproxy" / "config.yaml").write_text(f"jump: u@127.0.0.1\nidentity: {key}\n")
    script = tmp_path / "job.sh"
    script.write_text("#!/bin/bash\n#SBATCH --time=1:00:00\nsleep 1\n")
    argv = [sys.executable, "-m", "hpcproxy", "wrap", "--in-place", str(script)]
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    assert f"hpcproxy: the key {key} has a passphrase" in done.stderr

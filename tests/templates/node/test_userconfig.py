"""Of a user's ~/.ssh/config a supervisor outside the job takes the values, and runs nothing."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.supervisor import write_script

SSH = shutil.which("ssh", path="/usr/local/bin:/usr/bin:/bin") or "ssh"
NOBODY = 65534

_CONFIG = """
Host jump
    HostName 192.0.2.7
    User somebody
    Port 2022
    IdentityFile "~/.ssh/my key"
    CertificateFile ~/.ssh/my-cert.pub
    ProxyJump gate.example,me@inner:2200
    KnownHostsCommand /bin/false
    PKCS11Provider /tmp/library.so
    LocalForward 8888 h:1
Host inner
    HostName 192.0.2.8
    ProxyJump outer
Host outer
    Port 2
"""


def _taken(tmp_path: Path, config: str, uid: str = "$UID") -> tuple[str, Path]:
    """Return what is said, and the file that all of our ssh's configuration is in, after a look at `config`."""
    tmp_path.chmod(0o755)
    for folder in tmp_path.parents:
        if str(folder).startswith("/tmp/pytest"):
            folder.chmod(0o755)
    state, binaries = tmp_path / "state", tmp_path / "bin"
    state.mkdir()
    binaries.mkdir()
    (tmp_path / "ssh_config").write_text(config)
    (binaries / "ssh").write_text(f'#!/bin/sh\nexec {SSH} -F {tmp_path}/ssh_config "$@"\n')
    (binaries / "ssh").chmod(0o755)
    script = write_script(tmp_path / "home", jump="u@jump").read_text()
    functions = script[: script.rindex("case ${1-} in")]
    ask = f"{functions}\nnode=c1 job=1 state={state}\ncd {state}\nask_config {uid}\n"
    ask += 'printf "%s\\n" "${user_config[@]}"\n'
    argv = ["/bin/bash", "-p", "-c", ask]
    if os.geteuid() == 0:  # root may have as many processes as it likes
        os.chown(state, NOBODY, NOBODY)
        argv = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "--", *argv]
    environ = {**os.environ, "PATH": f"{binaries}:{os.environ['PATH']}", "TMPDIR": "/tmp"}
    done = subprocess.run(argv, capture_output=True, text=True, check=True, env=environ, cwd="/")
    assert done.stdout.splitlines()[-2:] == ["-F", "ssh_config"]
    return done.stdout, state / "ssh_config"


def _asked(config: Path, host: str) -> list[str]:
    done = subprocess.run([SSH, "-G", "-F", config, "--", host], capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


def test_what_ssh_has_for_the_jump_host_and_the_hops_is_taken(tmp_path: Path) -> None:
    said, config = _taken(tmp_path, _CONFIG)
    assert " config " not in said
    jump = _asked(config, "jump")
    wanted = ["hostname 192.0.2.7", "user somebody", "port 2022", "identityfile ~/.ssh/my key"]
    assert not {*wanted, "certificatefile ~/.ssh/my-cert.pub", "proxyjump gate.example,me@inner:2200"} - set(jump)
    assert {"hostname 192.0.2.8", "proxyjump outer"} <= set(_asked(config, "inner"))
    assert "port 2" in _asked(config, "outer")
    assert not [line for line in jump if line.startswith(("knownhostscommand", "pkcs11", "localforward"))]


def test_the_service_account_has_no_configuration_but_ours(tmp_path: Path) -> None:
    _, config = _taken(tmp_path, _CONFIG, uid="12345")
    assert config.read_bytes() == b""


@pytest.mark.parametrize("way", ["Match host jump exec", "Match !host other exec", "Match originalhost jump exec"])
def test_no_program_of_the_users_is_run(way: str, tmp_path: Path) -> None:
    ran = tmp_path / "state" / "ran"  # where whoever runs it may write
    config = f'{way} "touch {ran}"\n    User evil\nHost jump\n    Port 7\n'
    said, ours = _taken(tmp_path, config)
    assert not ran.exists()
    assert ours.read_bytes() == b""
    (line,) = (line for line in said.splitlines() if line.startswith("failed "))
    assert line.startswith("failed c1 config ")
    assert "is not used for jump" in line
    # The same file, read by a process that may have others: the test can fail.
    subprocess.run([SSH, "-G", "-F", tmp_path / "ssh_config", "jump"], capture_output=True, check=False, timeout=30)
    assert ran.exists()


def test_a_proxy_command_is_not_taken_and_named(tmp_path: Path) -> None:
    said, ours = _taken(tmp_path, f"Host jump\n    ProxyCommand touch {tmp_path}/ran\n    Port 7\n")
    assert "ProxyCommand for jump, which is not run outside the job; use ProxyJump" in said
    assert "port 7" in _asked(ours, "jump")
    assert not [line for line in _asked(ours, "jump") if line.startswith("proxycommand")]


@pytest.mark.parametrize(
    "lines",
    [
        # What ssh puts into the command line of a ProxyJump's ssh, unquoted up to 9.5 (CVE-2023-51385), for a shell.
        "ProxyJump a;touch${{IFS}}{ran};@gate",
        "ProxyJump gate,$(touch${{IFS}}{ran})@inner",
        "ProxyJump gate\n    HostName x';touch${{IFS}}{ran};'",
        "ProxyJump gate\n    HostName `touch${{IFS}}{ran}`",
        "ProxyJump gate\n    User a;touch${{IFS}}{ran};",
        "HostKeyAlias %h';touch${{IFS}}{ran};'\n    ProxyJump gate",
    ],
)
def test_no_value_of_the_users_reaches_a_shell(lines: str, tmp_path: Path) -> None:
    """Of a ProxyJump ssh makes a command with names and users in it, which a supervisor would run outside the job."""
    ran = tmp_path / "state/ran"
    _, config = _taken(tmp_path, "Host jump\n    " + lines.format(ran=ran))
    words = ["/usr/bin/ssh", "-F", str(config), "-o", "BatchMode=yes", "-o", "ConnectTimeout=3", "-N", "--", "jump"]
    config.chmod(0o600)
    os.chown(config, os.geteuid(), os.getegid())
    subprocess.run(words, capture_output=True, check=False, timeout=30, stdin=subprocess.DEVNULL)
    assert not ran.exists()

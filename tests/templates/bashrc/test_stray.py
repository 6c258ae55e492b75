"""What a shell or a job was given by whoever started it: an address is used only where it is known whose it is."""

from __future__ import annotations

import os
import shlex
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from hpcproxy.account import job_script, tunnels, verbs
from hpcproxy.account.account import Account
from tests import servers
from tests.shells import SHELLS, interactive, script, tunnel_state, url_of

every_shell = pytest.mark.parametrize("shell", SHELLS)
HOOK = job_script.usual_hook().decode() + "\n"
SITE_PROXY = "http://proxy.site:3128"
SHOW = 'printf "%s\\n" "${http_proxy-none} ${HPCPROXY_URL-none}"\n'


def _install(account: Account, **settings: object) -> str:
    """The line that sources the installed file, as the block in .bashrc does."""
    verbs.install_bashrc(account, verbs.settings_of(account, {"jump": ["u@h"], **settings}), dry_run=False)
    return f". {shlex.quote(str(account.home.directory / 'bashrc.sh'))}\n"


def _fake_job_script(account: Account, body: str) -> None:
    (account.home.directory / "job.sh").write_text(f"#!/bin/bash\n{body}\n")


# ----------------------------------------------------------------------------------------------- a stranger at the port


@dataclass
class Bob:
    """Another user of this machine, who listens at all of its addresses and writes down what he is told."""

    port: int
    process: subprocess.Popen[bytes]

    def heard(self) -> bytes:
        """What he was told, until now; he listens no more."""
        self.process.kill()
        out, _ = self.process.communicate()
        return out


@pytest.fixture
def bob() -> Iterator[Bob]:
    if os.geteuid() != 0:
        pytest.skip("only root can be somebody else")
    port = servers.free_port()
    program = f"""import socket; s = socket.create_server(("0.0.0.0", {port}))
print("there", flush=True)
while True: c = s.accept()[0]; print(c.recv(4096), flush=True)"""
    with subprocess.Popen(["python3", "-c", program], stdout=subprocess.PIPE, user=65534) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"there\n"
        yield Bob(port, process)
        process.kill()


TOKEN = "Authorization: Bearer of-alices"  # noqa: S105 - what bob must not hear
FETCH = f"curl -sS --max-time 2 --noproxy '' -H '{TOKEN}' http://alices.test/ || true\n"


def _inherited(bob: Bob, job: str = "") -> dict[str, str]:
    """What a login shell with its tunnel on hands to a job of its user, or one whose tunnel is gone to its children."""
    url = f"http://127.128.0.0:{bob.port}"
    ours = {"HPCPROXY_URL": url, "HPCPROXY_KEY": "shell.0", "HPCPROXY_LISTEN": f"0 0000807F:{bob.port:04X}"}
    return {**os.environ, **ours, "http_proxy": url, "HTTP_PROXY": url, **({"SLURM_JOB_ID": job} if job else {})}


def test_without_hpcproxy_bob_would_hear_it(bob: Bob) -> None:
    script("bash", FETCH, _inherited(bob, "9"))
    assert TOKEN.encode() in bob.heard()


@every_shell
@pytest.mark.parametrize("job", ["9", ""], ids=["in a job", "no job"])
def test_no_new_shell_tells_a_stranger_anything(shell: str, job: str, bob: Bob, account: Account) -> None:
    source = _install(account, port=bob.port)
    for text in (source + FETCH, f"http_proxy=http://localhost:{bob.port}\n{source}{FETCH}"):
        script(shell, text, _inherited(bob, job))
        interactive(shell, text, _inherited(bob, job))
    assert bob.heard() == b""


@every_shell
def test_no_job_whose_tunnel_is_missing_tells_a_stranger_anything(shell: str, bob: Bob, account: Account) -> None:
    _install(account, port=bob.port)
    _fake_job_script(account, "exit 1")
    epilogue = f". {account.home.directory}/epilogue.sh\n"
    script(shell, f"set -eu\n{HOOK}{FETCH}{epilogue}{FETCH}", _inherited(bob, "9"))
    recipe = {**os.environ, "SLURM_JOB_ID": "9", "http_proxy": f"http://127.0.0.1:{bob.port}"}
    script(shell, f"set -eu\n{HOOK}{FETCH}{epilogue}{FETCH}", recipe)
    assert bob.heard() == b""


@every_shell
def test_an_epilogue_does_not_bring_an_address_back_that_anybody_may_hold(
    shell: str, bob: Bob, account: Account
) -> None:
    _install(account, port=bob.port)
    epilogue = f". {account.home.directory}/epilogue.sh\n"
    with tunnel_state("9") as state:
        _fake_job_script(account, f'[[ "$1$2" != start ]] || printf "%s\\n" {state}')
        done = script(shell, f"set -eu\n{HOOK}{SHOW}{epilogue}{FETCH}{SHOW}", _inherited(bob, "9"))
        assert done.stdout.splitlines()[0] == f"{url_of(state)} {url_of(state)}"
    assert done.stdout.splitlines()[-1] == "none none"
    assert bob.heard() == b""


# ------------------------------------------------------------------------------------------------ what stays


@every_shell
def test_a_tunnel_that_is_the_jobs_own_stays_in_every_shell(shell: str, account: Account, tmp_path: Path) -> None:
    """Also where its state cannot be seen, as in a container: the kernel knows who listens."""
    source = _install(account)
    with tunnel_state("9") as state:
        set_up = f"SLURM_JOB_ID=9\n{source}TMPDIR={tmp_path} HPCPROXY_STATE=/nowhere"
        for option in ("", "-i"):
            text = f"{set_up} SLURM_JOB_ID=9 {shell} {option} -c {shlex.quote(source + SHOW)}"
            assert interactive(shell, text)[1].endswith(f"{url_of(state)} {url_of(state)}\n")
        (state / "env").unlink()
        # That of another job is none of this one's.
        text = f"{set_up} SLURM_JOB_ID=10 {shell} -c {shlex.quote(source + SHOW)}"
        assert interactive(shell, text)[1].endswith("none none\n")


@every_shell
def test_a_proxy_of_the_sites_comes_back_and_one_of_the_users_stays(shell: str, account: Account) -> None:
    source = _install(account)
    stale = {"HPCPROXY_URL": "http://127.64.0.1:2015", "HPCPROXY_KEY": "1.0", "http_proxy": "http://127.64.0.1:2015"}
    site = {**os.environ, "SLURM_JOB_ID": "9", **stale, "HPCPROXY_SAVED_http_proxy": SITE_PROXY}
    assert script(shell, source + SHOW, site).stdout == f"{SITE_PROXY} none\n"
    users = {**os.environ, "SLURM_JOB_ID": "9", "http_proxy": "http://127.0.0.1:8888"}
    assert script(shell, source + SHOW, users).stdout == "http://127.0.0.1:8888 none\n"


# ------------------------------------------------------------------------------------------------ the shell's own ways


@every_shell
@pytest.mark.parametrize("option", ["set -f", "shopt -s failglob", "set -eu; set -f"])
def test_a_tunnel_is_found_where_globs_are_none_or_errors(shell: str, option: str, account: Account) -> None:
    if shell == "dash" and "shopt" in option:
        option = "set -f; BASHOPTS=failglob; export BASHOPTS"  # as a bash has handed it on
    source = _install(account)
    touched = 'printf "%s %s\\n" "$-" "${BASHOPTS-}"\n'
    with tunnel_state() as state:
        text = f"{source}unset HPCPROXY_STATE\n{option}\n{touched}proxy_off >/dev/null\nproxy_on\n{touched}"
        before, said, after = interactive(shell, text)[1].splitlines()
    assert said == f"hpcproxy: on, {url_of(state)}"
    assert before == after


@every_shell
@pytest.mark.parametrize("theirs", ["*", " * ", "*,10.0.0.1", "x.example *"])
def test_a_no_proxy_that_means_everything_is_kept_and_said(shell: str, theirs: str, account: Account) -> None:
    source = _install(account)
    show = 'printf "%s|" "$no_proxy" "$NO_PROXY"\n'
    with tunnel_state():
        said = interactive(shell, f"{source}{show}proxy_on", {**os.environ, "no_proxy": theirs})[1]
        entry = "hpcproxy: your no_proxy has '*' in it, so no program of yours uses the tunnel\n"
        assert said == f"{theirs}|{theirs}|{entry}"
        with tunnel_state("9") as state:
            _fake_job_script(account, f'printf "%s\\n" {state}')
            done = script(shell, f"set -eu\n{HOOK}{show}", {**os.environ, "no_proxy": theirs})
        assert (done.returncode, done.stdout, done.stderr) == (0, f"{theirs}|{theirs}|", entry)


@every_shell
@pytest.mark.parametrize("blank", [" ", "\t", ",", " , "])
def test_blank_values_are_as_unset(shell: str, blank: str, account: Account) -> None:
    source = _install(account)
    show = 'printf "%s|" "$http_proxy" "$no_proxy"\n'
    with tunnel_state() as state:
        given = {**os.environ, "no_proxy": blank, "http_proxy": blank.replace(",", ""), "ALL_PROXY": " "}
        assert interactive(shell, source + show, given)[1] == f"{url_of(state)}|localhost,127.0.0.1,.local|"


# ------------------------------------------------------------------------------------------------ Slurm before 22.05


@pytest.fixture
def others_tunnel(tmp_path: Path, account: Account) -> Iterator[Path]:
    """A tunnel of job 9 that another shell of it has started and that is up; `srun` says its version and no more."""
    _install(account)
    with tunnel_state("9") as state:
        (state / "pid").write_text(f"{os.getpid()} {tunnels.start_time(os.getpid())}\n")
        (state / "status").write_text("version=1\nready=true\n")
        (tmp_path / "srun").write_text('#!/bin/sh\n[ "$*" = --version ] || exit 1\nprintf "%s\\n" "$VERSION"\n')
        (tmp_path / "srun").chmod(0o755)
        yield state


SHARES = {
    "slurm-wlm 20.11.4": False,  # Debian's word
    "slurm 20.11.9": False,
    "slurm 21.08.8-2": True,
    "slurm 20.02.7": False,  # steps share whatever they ask
    "slurm 22.05.8": False,
    "slurm 26.05.5": False,
    "": False,
    "nonsense": False,
}


@every_shell
@pytest.mark.parametrize("version", SHARES)
def test_where_a_step_would_wait_for_ours_the_jobs_steps_are_told_to_share(
    shell: str, version: str, others_tunnel: Path, tmp_path: Path, account: Account
) -> None:
    """A contract with 20.11, which is not to be had here: its `srun --version`, and what was seen to free its steps."""
    environ = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "SLURM_JOB_ID": "9", "VERSION": version}
    show = 'printf "%s %s\\n" "${http_proxy-none}" "${SLURM_OVERLAP-none}"\n'
    text = f"set -eu\n{HOOK}{show}__hpcproxy_restore\n{show}"
    done = script(shell, text, environ)
    assert done.stdout.splitlines() == [f"{url_of(others_tunnel)} {1 if SHARES[version] else 'none'}", "none none"]
    assert (done.returncode, done.stderr) == (0, "")
    if SHARES[version]:
        done = script(shell, text, {**environ, "SLURM_OVERLAP": "0"})
        assert done.stdout.splitlines() == [f"{url_of(others_tunnel)} 0", "none 0"]


def test_the_users_shell_settings_do_not_reach_what_starts_a_tunnel(others_tunnel: Path, tmp_path: Path) -> None:
    (tmp_path / "rc").write_text("touch rc-was-read; exit 1\n")
    functions = {
        f"BASH_FUNC_{name}%%": f"() {{ touch {tmp_path}/{name}-was-run; }}" for name in ("srun", "start", "clock")
    }
    theirs = {
        **functions, "BASH_ENV": str(tmp_path / "rc"), "ENV": str(tmp_path / "rc"), "POSIXLY_CORRECT": "1",
        "CDPATH": "/", "GLOBIGNORE": "*", "TMOUT": "1", "PS4": f"$(touch {tmp_path}/ps4)", "BASHOPTS": "failglob",
    }  # fmt: skip
    environ = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "SLURM_JOB_ID": "9", "VERSION": "", **theirs}
    argv = ["/bin/bash", "-p", str(Account.of(os.environ).home.directory / "job.sh"), "start"]
    done = subprocess.run(argv, env=environ, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{others_tunnel}\n", "")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["rc", "srun"]

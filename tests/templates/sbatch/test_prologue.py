"""The hook in a job script, with the prologue and the epilogue; Slurm's commands are stubs here and real on the lab."""

from __future__ import annotations

import os
import re
import shlex
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from hpcproxy.account import job_script, tunnels, verbs
from hpcproxy.account.account import Account
from tests import servers, sshd
from tests.shells import PROXY_VARIABLES, SHELLS, script, tunnel_state, url_of
from tests.sshd import Sshd
from tests.supervisor import command_line
from tests.waiting import until

every_shell = pytest.mark.parametrize("shell", SHELLS)
HOOK = job_script.usual_hook().decode() + "\n"
TOUCHED = 'printf "%s|" "$-" "$IFS" "$PWD" "$*"; umask; trap'


def _install(account: Account, **settings: object) -> None:
    verbs.install_bashrc(account, verbs.settings_of(account, {"jump": ["u@h"], **settings}), dry_run=False)


def _fake_job_script(account: Account, body: str) -> None:
    (account.home.directory / "job.sh").write_text(f"#!/bin/bash\n{body}\n")


@every_shell
def test_the_job_gets_the_tunnel_and_nothing_else_changes(shell: str, account: Account) -> None:
    _install(account)
    with tunnel_state("9") as state:
        _fake_job_script(account, f'[[ "$1$2" == start ]] && printf "%s\\n" {state}')
        before = "set -eu; set -C; IFS=:,; cd /; umask 027; trap 'printf bye' EXIT; set -- a 'b c'\n"
        done = script(shell, f'{before}{TOUCHED}\n{HOOK}{TOUCHED}\nprintf "%s" "$https_proxy"\nexit 3')
    assert (done.returncode, done.stderr) == (3, "")
    body, _, url = done.stdout.removesuffix("bye").rpartition("\n")
    assert url == url_of(state)
    once = body + "\n"
    assert once[: len(once) // 2] == once[len(once) // 2 :] != ""


@every_shell
def test_without_a_tunnel_the_job_runs_on_with_one_line(shell: str, slurm: dict[str, str], account: Account) -> None:
    _install(account)
    done = script(shell, f'set -eu\n{HOOK}printf "%s" "${{http_proxy-none}}"', _broken(slurm))
    assert (done.returncode, done.stdout) == (0, "none")
    assert done.stderr.startswith("hpcproxy: no tunnel: 0 of 1 nodes ready after ")
    assert done.stderr.endswith(" s (srun: error: no such partition); the job runs on without it\n")
    assert done.stderr.count("\n") == 1


@every_shell
def test_one_that_is_cut_off_as_the_job_begins_is_waited_for(shell: str, account: Account) -> None:
    """Where ssh itself listens nobody does until there is another ssh; job.sh, asked again, knows when."""
    _install(account)
    with tunnel_state("9") as state:
        (state / "env").rename(state / "away")
        (state / "env").write_text(re.sub("listen=.*", "listen=0100007F:0001", (state / "away").read_text()))
        body = (
            f'if [[ -e {state}/asked ]]; then mv {state}/away {state}/env; fi; : >{state}/asked; printf "%s\\n" {state}'
        )
        _fake_job_script(account, body)
        done = script(shell, f'set -eu\n{HOOK}printf "%s" "$https_proxy"')
        assert (done.returncode, done.stdout, done.stderr) == (0, url_of(state), "")


@every_shell
def test_one_of_another_version_is_said_with_one_line_and_not_used(shell: str, account: Account) -> None:
    _install(account)
    with tunnel_state("9", version="2") as state:
        _fake_job_script(account, f'printf "%s\\n" {state}')
        done = script(shell, f'set -eu\n{HOOK}printf "%s" "${{https_proxy-none}}"')
    said = f"hpcproxy: no tunnel: another version of hpcproxy has started the one in {state}"
    assert (done.returncode, done.stdout, done.stderr) == (0, "none", f"{said}; the job runs on without it\n")


@every_shell
def test_one_that_does_not_come_back_is_said_with_one_line(shell: str, account: Account) -> None:
    _install(account)
    with tunnel_state("9", listening=False) as state:
        _fake_job_script(account, f'printf "%s\\n" {state}')
        done = script(shell, f'set -eu\n{HOOK}printf "%s" "${{http_proxy-none}}"')
    said = "hpcproxy: no tunnel: it was up and does not listen now; the job runs on without it\n"
    assert (done.returncode, done.stdout, done.stderr) == (0, "none", said)


@every_shell
def test_if_it_is_required_the_job_stops_with_one_line(shell: str, slurm: dict[str, str], account: Account) -> None:
    _install(account)
    with account.home.config.open("a") as file:
        file.write("required: true\n")
    _install(account)
    done = script(shell, f"set -eu\n{HOOK}printf on", _broken(slurm))
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.endswith("; the job stops, because the configuration says required\n")
    assert done.stderr.count("\n") == 1


@every_shell
@pytest.mark.parametrize("required", [False, True], ids=["", "required"])
def test_where_none_is_needed_the_job_is_left_as_it_is(shell: str, required: bool, account: Account) -> None:
    """With `via: auto`, on nodes that are out by themselves: job.sh has said so. A login shell's own leads nowhere."""
    _install(account, via="auto", required=required)
    _fake_job_script(account, 'printf "out\\n"')
    inherited = "export http_proxy=http://127.128.0.9:2015 https_proxy=http://proxy.site:3128\n"
    shown = 'printf "%s %s %s" "${http_proxy-none}" "$https_proxy" "${HPCPROXY_URL-none}"'
    done = script(shell, f"set -eu\n{inherited}{HOOK}{shown}")
    assert (done.returncode, done.stdout, done.stderr) == (0, "none http://proxy.site:3128 none", "")


@every_shell
def test_proxy_on_where_none_is_needed_is_no_failure(shell: str, account: Account) -> None:
    """So that `hpcproxy run` in such a job runs its command."""
    _install(account, via="auto")
    _fake_job_script(account, 'printf "out\\n"')
    fragment = account.home.directory / "bashrc.sh"
    environ = {**os.environ, "SLURM_JOB_ID": "9"}
    done = script(shell, f'. "{fragment}"\nproxy_on && printf "%s" "${{http_proxy-none}}"', environ)
    assert (done.returncode, done.stdout, done.stderr) == (0, "none", "")


@every_shell
@pytest.mark.parametrize("environ", [{}, {"SLURM_JOB_ID": ""}, {"SLURM_JOB_ID": "1;id"}], ids=str)
def test_outside_of_a_job_it_says_so(shell: str, environ: dict[str, str], account: Account) -> None:
    _install(account)
    done = script(shell, f"set -eu\n{HOOK}printf on", {**os.environ, **environ})
    assert (done.returncode, done.stdout) == (0, "on")
    assert done.stderr.startswith("hpcproxy: no tunnel: this is no Slurm job")
    assert done.stderr.count("\n") == 1


@every_shell
def test_what_the_login_shell_exported_leads_nowhere_in_a_job(
    shell: str, slurm: dict[str, str], account: Account
) -> None:
    _install(account)
    theirs = {"HPCPROXY_URL": "socks5h://127.0.0.1:2015", "HPCPROXY_KEY": "shell.0", "http_proxy": "socks5h://x"}
    saved = {"HPCPROXY_SAVED_http_proxy": "http://site:3128"}
    show = 'printf "%s" "$http_proxy ${HPCPROXY_URL-none}"'
    done = script(shell, f"set -eu\n{HOOK}{show}", {**_broken(slurm), **theirs, **saved})
    assert done.stdout == "http://site:3128 none"


@every_shell
def test_the_epilogue_brings_the_jobs_own_settings_back(shell: str, account: Account) -> None:
    _install(account)
    epilogue = f". {shlex.quote(str(account.home.directory / 'epilogue.sh'))}\n"
    own = {name: f"http://127.0.0.1/ own {name}" for name in PROXY_VARIABLES}
    show = "".join(f'printf "%s\\n" "{name}=${{{name}-}}"\n' for name in PROXY_VARIABLES)
    with tunnel_state("9") as state:
        _fake_job_script(account, f'[[ $1 != start ]] || printf "%s\\n" {state}')
        done = script(shell, f"set -eu\n{HOOK}{epilogue}{show}", {**os.environ, **own})
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [f"{name}={own[name]}" for name in PROXY_VARIABLES]


@every_shell
def test_an_epilogue_whose_tunnel_is_gone_is_silent(shell: str, account: Account) -> None:
    _install(account)
    text = f"set -eu\n. {account.home.directory}/epilogue.sh\nprintf on"
    done = script(shell, text, {**os.environ, "SLURM_JOB_ID": "9"})
    assert (done.returncode, done.stdout, done.stderr) == (0, "on", "")


# ------------------------------------------------------------------------------------------------ end to end

_SRUN = """#!/bin/bash
# Runs the step here, as the only node of the job.
while [[ $1 != /bin/bash ]]; do
    [[ $1 == --* ]] || { printf 'stub srun: what is %s\\n' "$1" >&2; exit 1; }
    shift
done
export SLURMD_NODENAME=c1 SLURM_STEP_ID=0 SLURM_JOB_NODELIST=c1
exec "$@"
"""
_SCANCEL = """#!/bin/bash
[[ $1 == --quiet && $2 == --signal=URG && $3 == "$SLURM_JOB_ID.0" ]] || exit 1
read -r pid _ <"$TMPDIR"/hpcproxy-*/"$SLURM_JOB_ID".0-*/pid
kill -URG "$pid"
"""


def _broken(slurm: dict[str, str]) -> dict[str, str]:
    """The same job where srun fails."""
    path = Path(slurm["PATH"].split(":")[0], "srun")
    path.write_text("#!/bin/sh\nprintf 'srun: error: no such partition\\n' >&2\nexit 1\n")
    return slurm


@pytest.fixture
def slurm(tmp_path: Path) -> Iterator[dict[str, str]]:
    """The environment of a job on this machine alone."""
    directory = tmp_path / "slurm"
    directory.mkdir()
    for name, text in (("srun", _SRUN), ("scancel", _SCANCEL)):
        (directory / name).write_text(text)
        (directory / name).chmod(0o755)
    job = {"SLURM_JOB_ID": str(os.getpid()), "SLURM_JOB_NUM_NODES": "1", "SLURM_JOB_NODELIST": "c1"}
    yield {**os.environ, "PATH": f"{directory}:{os.environ['PATH']}", **job}
    for tunnel in tunnels.find(os.environ):
        tunnels.stop(tunnel)


@every_shell
def test_a_job_reaches_the_internet_and_leaves_nothing(
    shell: str, slurm: dict[str, str], account: Account, tmp_path: Path
) -> None:
    with sshd.running(tmp_path / "jump") as jump, servers.internet() as url:
        settings = {"jump": [jump.jump], "identity": str(jump.identity), "allow": servers.REACHED}
        _install(account, **settings, port=servers.free_port())
        account.home.known_hosts.write_text(jump.known_hosts)
        fetch = f"curl -sS --noproxy '' {url}\n"
        epilogue = f". {account.home.directory}/epilogue.sh\n"
        show = 'printf "%s\\n" "$https_proxy" "$no_proxy"\n'
        done = script(shell, f"set -eu\n{HOOK}{show}{fetch}{epilogue}printf '%s\\n' \"${{https_proxy-none}}\"", slurm)
    assert done.returncode == 0
    good, counted = done.stderr.splitlines()
    assert re.fullmatch(rf"hpcproxy: out through {re.escape(jump.jump)}, 1 node, \d+\.\d s", good)
    assert counted == "hpcproxy: 1 requests from this node, 0 KiB up, 0 KiB down, 0 reconnects"
    proxy, direct, address, after = done.stdout.splitlines()
    assert proxy.startswith("http://127.")
    assert ",c1," in direct
    assert (address, after) == ("203.0.113.7", "none")
    assert list(Path(os.environ["TMPDIR"]).iterdir()) == []


@every_shell
def test_what_leads_elsewhere_behind_the_hook_is_named_when_the_job_begins(
    shell: str, slurm: dict[str, str], account: Account, tmp_path: Path
) -> None:
    (account.user_home / ".curlrc").write_text("proxy = http://u:s3cret@p:1\n")
    job = tmp_path / "slurm_script"
    job.write_text(f"#!/bin/{shell}\nset -eu\n{HOOK}export https_proxy=socks5://localhost:8888\nprintf on\n")
    with sshd.running(tmp_path / "jump") as jump:
        settings = {"jump": [jump.jump], "identity": str(jump.identity), "quiet": True}
        _install(account, **settings, port=servers.free_port())
        account.home.known_hosts.write_text(jump.known_hosts)
        argv = [shell, str(job)]
        done = subprocess.run(argv, capture_output=True, text=True, env=slurm, stdin=subprocess.DEVNULL, check=False)
    assert (done.returncode, done.stdout) == (0, "on")
    assert done.stderr.splitlines() == [
        "hpcproxy: this script:4: sets https_proxy, which wins over the tunnel; take it out",
        f"hpcproxy: {account.user_home}/.curlrc:1: curl reads proxy here, which wins over the tunnel",
    ]


@every_shell
def test_a_job_hears_within_the_deadline_why_there_is_none(
    shell: str, slurm: dict[str, str], account: Account, tmp_path: Path
) -> None:
    with sshd.running(tmp_path / "jump") as jump:
        _install(account, jump=[jump.jump], identity=str(jump.identity), port=servers.free_port())
        done = script(shell, f"set -eu\n{HOOK}printf on\n", slurm)
    assert (done.returncode, done.stdout) == (0, "on")
    assert done.stderr.startswith("hpcproxy: no tunnel: c1: host-key: ")
    assert "is not pinned" in done.stderr
    assert done.stderr.endswith("; the job runs on without it\n")
    assert done.stderr.count("\n") == 1
    assert list(Path(os.environ["TMPDIR"]).iterdir()) == []


def test_a_job_that_is_cancelled_while_it_begins_leaves_nothing(slurm: dict[str, str], account: Account) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        _install(account, jump=[f"u@127.0.0.1:{silent.getsockname()[1]}"], port=servers.free_port())
        argv = ["/bin/bash", "-p", str(account.home.directory / "job.sh"), "start"]
        with subprocess.Popen(argv, env=slurm, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            until(lambda: tunnels.find(os.environ), "a supervisor is at work")
            process.terminate()
            assert process.communicate(timeout=60) == (b"", b"")
    assert process.returncode == 1
    assert list(Path(os.environ["TMPDIR"]).iterdir()) == []


@pytest.mark.parametrize("is_over", [True, False])
def test_that_the_job_is_over_srun_may_hear_before_us(
    is_over: bool, slurm: dict[str, str], account: Account, tmp_path: Path
) -> None:
    """Of a job that is cancelled nothing is said; of a number in somebody's environment that is no job's, it is."""
    note = tmp_path / "srun-has-ended"
    words = f"srun: error: Slurm job {slurm['SLURM_JOB_ID']} has expired"
    text = f"#!/bin/sh\nprintf '%s\\n' '{words}' >&2\n: >{shlex.quote(str(note))}\nexit 1\n"
    Path(slurm["PATH"].split(":")[0], "srun").write_text(text)
    _install(account, jump=["u@127.0.0.1"], port=servers.free_port())
    argv = ["/bin/bash", "-p", str(account.home.directory / "job.sh"), "start"]
    with subprocess.Popen(argv, env=slurm, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        until(note.exists, "srun has ended")
        if is_over:
            time.sleep(0.2)
            process.terminate()
        said = process.communicate(timeout=60)
    assert process.returncode == 1
    assert said[0] == b""
    assert said[1].decode().count(f"({words})") == (not is_over)


def test_a_job_that_is_over_does_not_wait_for_an_srun_that_does(slurm: dict[str, str], account: Account) -> None:
    """srun waits for a node that refused the step, because the job's end was there first, until KillWait is over; on a
    busy node each program that is started takes its time."""
    directory = Path(slurm["PATH"].split(":")[0])
    begun = "printf '%s' $$ >$TMPDIR/srun.new && mv $TMPDIR/srun.new $TMPDIR/srun"
    waits = f"[[ $1 != --version ]] || exit; trap '' TERM USR1; {begun}; exec /bin/sleep 600"
    programs = {"srun": waits, "sleep": "exec /bin/sleep 0.5"}
    for name, text in programs.items():
        (directory / name).write_text(f"#!/bin/bash\n{text}\n")
        (directory / name).chmod(0o755)
    _install(account, jump=["u@127.0.0.1"], port=servers.free_port())
    argv = ["/bin/bash", "-p", str(account.home.directory / "job.sh"), "start"]
    with subprocess.Popen(argv, env=slurm, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        note = Path(os.environ["TMPDIR"], "srun")
        until(note.exists, "srun is at work")
        process.terminate()
        assert process.wait(5) == 1, "that is all that a tunnel may take to be gone"
    until(lambda: not command_line(int(note.read_text())), "srun is gone")
    assert list(note.parent.iterdir()) == [note]


def test_a_srun_that_does_not_say_its_version_costs_its_time_and_does_not_stay(
    slurm: dict[str, str], account: Account, jump_host: Sshd
) -> None:
    srun, note = Path(slurm["PATH"].split(":")[0], "srun"), Path(os.environ["TMPDIR"], "asked")
    hangs = f"if [[ $1 == --version ]]; then printf '%s' $$ >{note}; exec sleep 600; fi\n"
    srun.write_text(_SRUN.replace("while", f"{hangs}while", 1))
    _install(account, jump=[jump_host.jump], identity=str(jump_host.identity), quiet=True, port=servers.free_port())
    account.home.known_hosts.write_text(jump_host.known_hosts)
    done = script("bash", f'set -eu\n{HOOK}printf "%s" "$HPCPROXY_STATE"\n', slurm)
    assert (done.returncode, done.stderr) == (0, "")
    assert Path(done.stdout).is_dir()
    assert not command_line(int(note.read_text()))


@pytest.mark.parametrize(("script_has", "step_has"), [("tmp", "tmp"), (".", "."), ("{}/a", "{}/b"), ("{}/a", "gone")])
def test_another_tmpdir_in_the_step_is_only_that(
    script_has: str, step_has: str, slurm: dict[str, str], account: Account, jump_host: Sshd, tmp_path: Path
) -> None:
    """The step runs in / (--chdir), and a site's TaskProlog gives each step a TMPDIR of its own."""
    for name in ("a", "b", "tmp"):
        (tmp_path / name).mkdir()
    srun = Path(slurm["PATH"].split(":")[0], "srun")
    srun.write_text(_SRUN.replace("exec", f"cd /; export TMPDIR={shlex.quote(step_has.format(tmp_path))}\nexec"))
    settings = {"jump": [jump_host.jump], "identity": str(jump_host.identity), "quiet": True}
    _install(account, **settings, port=servers.free_port())
    account.home.known_hosts.write_text(jump_host.known_hosts)
    text = f'cd {tmp_path}\nset -eu\n{HOOK}printf "%s" "$HPCPROXY_STATE"\n'
    done = script("bash", text, {**slurm, "SLURMD_NODENAME": "c1", "TMPDIR": script_has.format(tmp_path)})
    state = Path(done.stdout)
    assert (done.returncode, done.stderr) == (0, "")
    assert state.is_absolute()
    for tunnel in tunnels.find({"HPCPROXY_STATE": str(state)}):
        tunnels.stop(tunnel)
    assert not state.exists()
    assert [list((tmp_path / name).iterdir()) for name in ("a", "b", "tmp")] == [[], [], []]

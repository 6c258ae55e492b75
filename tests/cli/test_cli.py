"""The program as users run it: help for everything, errors in one line with an exit code, data on stdout."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from invoke.collection import Collection
from invoke.tasks import Task

from hpcproxy.account import job_script
from hpcproxy.account.account import Account
from hpcproxy.account.verbs import bundle_of, settings_of
from hpcproxy.cli.program import tasks
from hpcproxy.config.model import KEYS
from tests import REPOSITORY, servers, sshd
from tests.hostile import HOSTILE
from tests.shells import shells_url
from tests.snapshot import tree
from tests.waiting import until

JOB = b"#!/bin/bash\n#SBATCH -N3\nsrun hostname\n"


def run(*arguments: str, cwd: Path | None = None, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run the program and return what it said; nobody may ever see a traceback."""
    argv = [sys.executable, "-m", "hpcproxy", *arguments]
    env = {**os.environ, **environ}
    done = subprocess.run(argv, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL, cwd=cwd, env=env)
    assert "Traceback" not in done.stdout + done.stderr
    assert "internal error" not in done.stderr
    return done


# ------------------------------------------------------------------------------------------------ help


def _tasks(collection: Collection, prefix: str = "") -> Iterator[tuple[str, Task]]:
    for name, task in collection.tasks.items():
        yield f"{prefix}{collection.transform(name)}", task
    for name, inner in collection.collections.items():
        yield from _tasks(inner, f"{prefix}{name}.")


TASKS = dict(_tasks(tasks()))
# Asked once, before any test: Invoke takes an argument's help out of the task when it is asked.
ARGUMENTS = {name: task.get_arguments() for name, task in TASKS.items()}


def test_the_verbs_are_those_that_were_promised() -> None:
    promised = {"init", "install-bashrc", "uninstall-bashrc", "uninstall", "wrap", "render", "up", "down", "status"}
    assert promised | {"check", "demo"} <= set(TASKS)


@pytest.mark.parametrize("name", TASKS)
def test_every_task_is_documented_and_every_argument_has_help(name: str) -> None:
    task = TASKS[name]
    first = (task.__doc__ or "").strip().split("\n")[0]
    assert first.endswith(".")
    assert len(first) > 20
    for argument in ARGUMENTS[name]:
        assert argument.help, f"{name}: {argument.name}"
        assert argument.help.endswith("."), f"{name}: {argument.name}"


@pytest.mark.parametrize("name", TASKS)
def test_no_flag_is_converted_by_invoke(name: str) -> None:
    """It guesses a flag's type from its default, and a number that is none is then a traceback."""
    assert {argument.kind for argument in ARGUMENTS[name]} <= {str, bool, list}


def test_the_list_shows_every_verb_and_help_shows_its_flags() -> None:
    listed = run("--list").stdout
    for name in TASKS:
        assert re.search(rf"^\s*{re.escape(name)}\b", listed, re.MULTILINE), name
    text = run("--help", "init").stdout
    for flag in ("--jump", "--port", "--identity", "--[no-]probe", "--replace-key"):
        assert flag in text


def test_help_is_no_file_of_a_task() -> None:
    assert run("wrap", "--help").stdout == run("--help", "wrap").stdout != ""


def test_a_checkout_offers_the_same_verbs_through_invoke() -> None:
    argv = [sys.executable, "-m", "invoke", "--list"]
    done = subprocess.run(argv, capture_output=True, text=True, check=True, cwd=REPOSITORY)
    for name in TASKS:
        assert name in done.stdout


# ------------------------------------------------------------------------------------------------ bad input

_BAD = {
    "unknown verb": ["frobnicate"],
    "unknown flag": ["init", "--frobnicate"],
    "flag without value": ["init", "--jump"],
    "init without jump": ["init"],
    "no port": ["init", "--jump", "a", "--port", "x"],
    "port too low": ["init", "--jump", "a", "--port", "22"],
    "port too high": ["init", "--jump", "a", "--port", "99999"],
    "negative port": ["init", "--jump", "a", "--port=-1"],
    "same jump twice": ["init", "--jump", "a", "--jump", "a"],
    "relative nonsense identity": ["init", "--jump", "a", "--identity", "a$(touch x)"],
    "unknown user's home": ["install-bashrc", "--jump", "~nobody-by-this-name"],
    "wrap without script": ["wrap"],
    "wrap of nothing": ["wrap", "none.sh"],
    "wrap of a directory": ["wrap", "."],
    "wrap --check of nothing": ["wrap", "--check", "none.sh"],
    "wrap that looks and changes": ["wrap", "job.sh", "--check", "--in-place"],
    "wrap both ways": ["wrap", "job.sh", "--in-place", "--output", "other.sh"],
    "unknown artifact": ["render", "--name", "none.sh"],
    "check with no number": ["check", "--timeout", "x"],
    "check without jump": ["check"],
    "up without jump": ["up"],
    "NUL-like jump": ["init", "--jump", "\x01"],
}


@pytest.mark.parametrize("name", _BAD)
def test_bad_input_is_one_line_and_an_exit_code_and_touches_nothing(name: str, home: Path, tmp_path: Path) -> None:
    (tmp_path / "job.sh").write_bytes(JOB)
    before = tree(home), tree(tmp_path)
    done = run(*_BAD[name], cwd=tmp_path)
    assert done.returncode in (1, 2)
    assert done.stdout == ""
    assert done.stderr.strip()
    assert done.stderr.count("\n") == 1
    assert (tree(home), tree(tmp_path)) == before


# All of them meet the same check in test_config; here a few go the whole way.
@pytest.mark.parametrize("value", HOSTILE[3:8], ids=repr)
def test_a_hostile_jump_host_is_refused_with_exit_code_2(value: str, home: Path, tmp_path: Path) -> None:
    done = run("install-bashrc", f"--jump={value}", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("hpcproxy: command line: jump: ")
    assert list(home.iterdir()) == []
    assert list(tmp_path.iterdir()) == []


_VERBS = (["render"], ["install-bashrc"], ["status"], ["check"], ["up"], ["init", "--jump", "a"])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("prot: 2015\n", ["config.yaml: prot: unknown key; valid: ", *KEYS]),
        ("port: 22\n", ["config.yaml: port: ", "greater than or equal to 1024", "got 22"]),
        ("scheme: http\n", ["config.yaml: scheme: ", "valid: socks5h, socks5"]),
        ("jump: 'a b'\n", ["config.yaml: jump: ", "'a b' may hold letters"]),
        ("port: [\n", ["config.yaml: line 2: not valid YAML"]),
        ("port: 2015-99-99\n", ["config.yaml: not valid YAML"]),
        ("\xff", ["config.yaml: is not UTF-8 text"]),
    ],
)
def test_a_wrong_setting_names_file_key_reason_and_the_valid_ones(text: str, words: list[str], home: Path) -> None:
    (home / ".hpcproxy").mkdir()
    (home / ".hpcproxy" / "config.yaml").write_bytes(text.encode("latin-1"))
    for verb in _VERBS if text == "prot: 2015\n" else _VERBS[:1]:
        done = run(*verb)
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.count("\n") == 1
        assert [word for word in words if word not in done.stderr] == []


def test_no_home_and_a_bad_home_are_told(home: Path) -> None:
    assert "HOME is not set" in run("render", HOME="").stderr
    done = run("render", HPCPROXY_HOME="rel/ative")
    assert done.returncode == 2
    assert done.stderr.startswith("hpcproxy: HPCPROXY_HOME: ")
    assert run("render", HPCPROXY_HOME=f"{home}/$(touch x)").returncode == 2


def test_a_reader_that_goes_away_is_no_error(home: Path) -> None:
    del home
    command = f"{sys.executable} -m hpcproxy render --name tunnel.sh | head -n 1"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("#!/bin/bash -p\n", "")
    with subprocess.Popen(
        [sys.executable, "-m", "hpcproxy", "render"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        said = process.stderr.read().decode()
    assert "Traceback" not in said
    assert "Exception ignored" not in said


# ------------------------------------------------------------------------------------------------ install, render


@pytest.mark.parametrize(
    ("command", "ends_well"),
    [("--help >&-", True), ("render >&-", True), ("nope >&- 2>&-", False), ("render >/dev/full", False)],
)
@pytest.mark.usefixtures("home")
def test_an_output_that_is_closed_is_no_failure_and_one_that_is_full_is(command: str, ends_well: bool) -> None:
    argv = ["bash", "-c", f'"$0" -m hpcproxy {command}', sys.executable]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert (done.returncode == 0) == ends_well
    assert "Traceback" not in done.stderr


def test_install_and_uninstall_say_what_they_did(home: Path) -> None:
    dry = run("install-bashrc", "--jump", "u@h", "--dry-run")
    assert {line.split("  ")[0] for line in dry.stdout.splitlines()} == {"would change"}
    assert list(home.iterdir()) == []
    done = run("install-bashrc", "--jump", "u@h")
    assert (done.returncode, done.stderr.count("\n")) == (0, 1)
    assert done.stderr.startswith("hpcproxy: next: a new shell, or . ~/.bashrc; then: hpcproxy wrap")
    assert {line.split()[0] for line in done.stdout.splitlines()} == {"changed"}
    assert f"{home}/.bashrc" in done.stdout
    again = run("install-bashrc")
    assert again.stderr == ""
    assert {line.split()[0] for line in again.stdout.splitlines()} == {"unchanged"}
    assert run("uninstall-bashrc").stdout.split() == ["removed", f"{home}/.bashrc", "removed", f"{home}/.bash_profile"]
    gone = run("uninstall")
    assert {line.split()[0] for line in gone.stdout.splitlines()} == {"removed"}
    assert list(home.iterdir()) == []
    assert "nothing of hpcproxy is installed" in run("uninstall").stderr


def test_install_without_a_jump_host_works_and_says_what_is_missing(home: Path) -> None:
    done = run("install-bashrc", "--port", "2015")
    assert done.returncode == 0
    assert "no jump host is configured yet; run: hpcproxy init --jump USER@HOST" in done.stderr
    assert (home / ".bashrc").exists()


def _printed(name: str) -> bytes:
    """Return the bytes that `render NAME` prints: agent.pyz is no text."""
    argv = [sys.executable, "-m", "hpcproxy", "render", name]
    return subprocess.run(argv, capture_output=True, check=True, stdin=subprocess.DEVNULL).stdout


def test_render_lists_the_artifacts_and_prints_one_as_it_would_be_installed(account: Account) -> None:
    listed = run("render")
    assert (listed.returncode, listed.stderr) == (0, "")
    for file in bundle_of(account, settings_of(account).config).files:
        assert re.search(rf"^{re.escape(file.artifact.name)} .*{file.artifact.mode:04o}", listed.stdout, re.MULTILINE)
        assert _printed(file.artifact.name) == file.content
    done = run("render", "none")
    assert done.returncode == 2
    assert "valid: tunnel.sh, job.sh, prologue.sh, epilogue.sh, bashrc.sh, agent.json, agent.pyz" in done.stderr


# ------------------------------------------------------------------------------------------------ wrap


@pytest.fixture
def job(tmp_path: Path) -> Path:
    path = tmp_path / "my job.sh"
    path.write_bytes(JOB)
    path.chmod(0o750)
    return path


def test_wrap_prints_the_result_and_changes_nothing(job: Path) -> None:
    done = run("wrap", str(job))
    assert done.stdout.encode() == job_script.put(JOB)
    assert job.read_bytes() == JOB


def test_wrap_in_place_twice_is_once_and_remove_undoes_it(job: Path) -> None:
    assert run("wrap", str(job), "--in-place").stdout.split()[0] == "changed"
    assert job.read_bytes() == job_script.put(JOB)
    assert run("wrap", str(job), "--in-place").stdout.split()[0] == "unchanged"
    assert run("wrap", str(job), "--remove", "--in-place").stdout.split()[0] == "changed"
    assert job.read_bytes() == JOB
    assert job.stat().st_mode & 0o777 == 0o750


def test_wrap_to_another_file_keeps_the_mode(job: Path, tmp_path: Path) -> None:
    target = tmp_path / "wrapped.sh"
    assert run("wrap", str(job), "--output", str(target)).stdout.split() == ["changed", str(target)]
    assert (target.read_bytes(), target.stat().st_mode & 0o777) == (job_script.put(JOB), 0o750)
    assert run("wrap", str(job), "--output", str(target)).stdout.split()[0] == "unchanged"
    assert job.read_bytes() == JOB


def test_wrap_passes_bytes_that_are_no_text(job: Path) -> None:
    job.write_bytes(JOB + b"# \xff\xfe\n")
    argv = [sys.executable, "-m", "hpcproxy", "wrap", str(job)]
    assert subprocess.run(argv, capture_output=True, check=True).stdout == job_script.put(JOB + b"# \xff\xfe\n")


def test_wrap_warns_of_options_that_sbatch_never_reads(job: Path) -> None:
    job.write_bytes(JOB + b"#SBATCH --mem=1G\n")
    assert run("wrap", str(job)).stderr == (
        f"hpcproxy: {job}:4: sbatch ignores this #SBATCH line, a command stands before it\n"
    )


def test_wrap_says_where_the_hook_stands_and_what_wins_over_it(job: Path) -> None:
    job.write_bytes(JOB + b"export http_proxy=http://proxy:3128\n")
    assert run("wrap", str(job), "--in-place").stderr == (
        f"hpcproxy: {job}:3: the hook line stands behind all that sbatch reads\n"
        f"hpcproxy: {job}:5: sets http_proxy, which wins over the tunnel; take it out\n"
    )


def test_wrap_plain_has_no_braces(job: Path) -> None:
    assert run("wrap", str(job), "--plain").stdout.encode() == job_script.place(JOB, plain=True).content


def test_wrap_check_tells_which_scripts_are_stale(job: Path) -> None:
    directory = job.parent
    (directory / "new.sh").write_bytes(job_script.put(JOB))
    (directory / "old.sh").write_bytes(b"#!/bin/bash\n. ~/old  " + job_script.MARK + b"\n")
    done = run("wrap", "--check", str(directory))
    assert (done.returncode, done.stdout.splitlines()) == (
        1,
        [f"current       {directory}/new.sh", f"stale         {directory}/old.sh"],
    )
    assert run("wrap", "--check", str(directory / "new.sh")).returncode == 0
    assert run("wrap", "--check", str(job)).stdout == f"not wrapped   {job}\n"


@pytest.mark.parametrize("script", [b"#!/usr/bin/env python3\n", b"echo\n", b"#!/bin/bash\r\n", b""], ids=repr)
def test_wrap_refuses_what_is_no_shell_script(script: bytes, job: Path) -> None:
    job.write_bytes(script)
    done = run("wrap", str(job), "--in-place")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"hpcproxy: {job}: ")
    assert job.read_bytes() == script


# ------------------------------------------------------------------------------------------------ a whole day


def test_a_researchers_day(home: Path, tmp_path: Path) -> None:
    with sshd.running(tmp_path / "jump") as jump, servers.internet() as url:
        port = str(servers.free_port())
        init = run("init", "--yes", "--jump", jump.jump, "--port", port, "--identity", str(jump.identity))
        assert (init.returncode, init.stdout.count("\n")) == (0, 3), init.stderr
        assert "SHA256:" in init.stdout
        assert "login and forwarding work" in init.stdout
        with (home / ".hpcproxy" / "config.yaml").open("a") as file:
            file.write(f"check_url: {url}\nallow: ['*', 127.0.0.1]\n")
        assert run("install-bashrc").returncode == 0
        assert run("status").returncode == 1
        up = run("up")
        try:
            assert (up.returncode, up.stdout.split()[:2]) == (0, ["up", shells_url(port)]), up.stderr
            assert run("up").stdout == up.stdout
            check = run("check")
            assert check.stdout.startswith("203.0.113.7  ")
            assert f"through {jump.jump}" in check.stdout
            assert json.loads(run("check", "--json").stdout)["address"] == "203.0.113.7"
            status = run("status")
            assert (status.returncode, status.stderr) == (0, "")
            assert status.stdout.splitlines()[1].split()[:4] == ["shell", os.uname().nodename, "up", jump.jump]
            assert shells_url(port) in run("status", "--long").stdout
            (tunnel,) = json.loads(run("status", "--json").stdout)["tunnels"]
            assert (tunnel["ready"], tunnel["jump"]) == (True, jump.jump)
        finally:
            down = run("down")
    assert down.stdout.split() == ["down", shells_url(port)]
    until(lambda: not list(Path(os.environ["TMPDIR"]).iterdir()), "the state is gone")
    assert run("uninstall").returncode == 0
    assert list(home.iterdir()) == []


def test_init_without_a_terminal_writes_nothing_for_a_key_that_nobody_confirms(home: Path, tmp_path: Path) -> None:
    with sshd.running(tmp_path / "jump") as jump:
        done = run("init", "--jump", jump.jump, "--identity", str(jump.identity))
        assert (done.returncode, done.stdout) == (1, "")
        assert "there is no terminal to ask on; compare it, then say --fingerprint or --yes" in done.stderr
        assert done.stderr.endswith("hpcproxy: nothing was written, for a key is not confirmed\n")
        assert "install-bashrc" not in done.stderr
        assert list(home.iterdir()) == []
        (key,) = re.findall("SHA256:[A-Za-z0-9+/]+", done.stderr)[:1]
        assert run("init", "--jump", jump.jump, "--identity", str(jump.identity), "--fingerprint", key).returncode == 0


def test_init_that_cannot_log_in_says_which_layer_and_leaves_a_valid_configuration(home: Path) -> None:
    jump = f"u@127.0.0.1:{servers.free_port()}"
    done = run("init", "--jump", jump, "--no-probe")
    assert done.returncode == 1
    assert f"hpcproxy: route: {jump}: nothing listens" in done.stderr
    assert "the settings are written, but the tunnel does not work yet" in done.stderr
    assert run("render").returncode == 0
    assert (home / ".hpcproxy" / "config.yaml").exists()

"""`module load hpcproxy`, by both real module systems: unpacked from their packages, which exclude each other."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from hpcproxy import __version__
from hpcproxy.account import verbs
from hpcproxy.account.account import Account
from hpcproxy.files import modulefile
from hpcproxy.files.render import render
from tests.cluster import cases
from tests.shells import SHELLS, script, tunnel_state, url_of

# Where each has the program that a shell's function `module` asks, and what runs it.
SYSTEMS = {
    "lmod": ("usr/share/lmod/[0-9]*/libexec/lmod", "lua5.3"),
    "environment-modules": ("usr/lib/modulecmd.tcl", "tclsh"),
}


@pytest.fixture(scope="session", params=SYSTEMS)
def system(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The command line of one of them, before the shell's name."""
    pattern, interpreter = SYSTEMS[request.param]
    if shutil.which("apt-get") is None or shutil.which(interpreter) is None:
        pytest.skip(f"{request.param} is tried with Debian's package and {interpreter}")
    directory = tmp_path_factory.mktemp("modules")
    options = ["-q", "-o", "APT::Sandbox::User="]  # a user of its own could not write there
    for step in ("download", "update", "download"):  # where the lists of packages are none yet, or old ones
        named = [request.param] if step == "download" else []
        done = subprocess.run(["apt-get", *options, step, *named], cwd=directory, capture_output=True, check=False)
        if step == "download" and done.returncode == 0:
            break
    else:
        pytest.skip(f"{request.param} cannot be had: {done.stderr.decode(errors='replace')}")
    (package,) = directory.glob("*.deb")
    subprocess.run(["dpkg", "-x", package, directory], check=True)
    (program,) = directory.glob(pattern)
    return [interpreter, str(program.resolve())]


def _install(account: Account, directory: Path) -> None:
    """The account has hpcproxy and its modulefiles, the latter in MODULEPATH."""
    verbs.install_bashrc(account, verbs.settings_of(account, {"jump": ["u@h"]}), dry_run=False)
    (directory / "modules/hpcproxy").mkdir(parents=True)
    for name in modulefile.KINDS:
        path = directory / f"modules/hpcproxy/1{Path(name).suffix}"
        path.write_bytes(verbs.render_one(account, name))


def _run(
    system: list[str], directory: Path, body: str, shell: str = "bash", **environ: str
) -> subprocess.CompletedProcess[str]:
    function = f'module() {{ eval "$({shlex.join([*system, "bash"])} "$@")"; }}\n'
    return script(shell, function + body, {**os.environ, "MODULEPATH": str(directory / "modules"), **environ})


@pytest.mark.parametrize("shell", SHELLS)
def test_in_a_job_it_is_the_hook_and_unloading_brings_the_own_settings_back(
    system: list[str], shell: str, account: Account, tmp_path: Path
) -> None:
    _install(account, tmp_path)
    show = 'printf "%s\\n" "$https_proxy"\n'
    own = "http://127.0.0.1:1"  # of an old recipe, whose place is taken
    with tunnel_state("9") as state:
        (account.home.directory / "job.sh").write_text(f'#!/bin/bash\n[[ $1 == start ]] && printf "%s\\n" {state}\n')
        body = f"module load hpcproxy\n{show}command -v hpcproxy\nmodule unload hpcproxy\n{show}"
        done = _run(system, tmp_path, body, shell, SLURM_JOB_ID="9", https_proxy=own)
    program = str(Path(sys.executable).with_name("hpcproxy"))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [url_of(state), program, own]


def test_outside_of_a_job_it_defines_the_functions_and_starts_nothing(
    system: list[str], account: Account, tmp_path: Path
) -> None:
    _install(account, tmp_path)
    (account.home.directory / "job.sh").write_text("#!/bin/bash\nprintf 'started\\n' >&2\n")
    done = _run(system, tmp_path, "module load hpcproxy\nproxy_status\n")
    assert (done.stdout, done.stderr) == ("hpcproxy: off\n", "")


def test_a_home_of_any_name_is_one_word(system: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HPCPROXY_HOME", f"{tmp_path}/it's [exit] {{b}};ö#")
    _install(Account.of(os.environ), tmp_path)
    done = _run(system, tmp_path, "module load hpcproxy\nproxy_status\n")
    assert (done.stdout, done.stderr) == ("hpcproxy: off\n", "")


def test_a_shell_of_another_kind_is_told_what_to_type(system: list[str], account: Account, tmp_path: Path) -> None:
    _install(account, tmp_path)
    environ = {**os.environ, "MODULEPATH": str(tmp_path / "modules")}
    argv = [*system, "fish", "load", "hpcproxy"]
    done = subprocess.run(argv, env=environ, capture_output=True, text=True, check=False)
    assert "here: hpcproxy run -- COMMAND, or hpcproxy env --shell" in " ".join(done.stderr.split())
    assert "bashrc.sh" not in done.stdout


def test_a_roll_out_puts_both_where_the_inventory_says() -> None:
    bundle = render(cases.plan(modulefiles="/opt/modules"))
    for suffix in ("", ".lua"):
        file = bundle.named(f"modulefile{suffix}")
        assert file is not None
        assert file.artifact.path == Path(f"/opt/modules/hpcproxy/{__version__}{suffix}")
        assert b"/etc/profile.d/hpcproxy.sh" in file.content
        assert b"/etc/hpcproxy/prologue.sh" in file.content
    assert render(cases.plan()).named("modulefile") is None

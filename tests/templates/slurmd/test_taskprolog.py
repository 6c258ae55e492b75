"""The TaskProlog as slurmstepd has it: what it prints is what becomes of the task's environment."""

from __future__ import annotations

import os
import shlex
import socket
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from hpcproxy.files.render import render
from tests.cluster.cases import plan
from tests.hostile import HOSTILE
from tests.shells import environment_of, tunnel_state, url_of

Ours = Callable[..., Path]
SITE_PROXY = "http://proxy.site:3128"
JOB = {"SLURM_JOB_ID": "77"}


@pytest.fixture
def ours(tmp_path: Path) -> Ours:
    """Our TaskProlog for an inventory that says this; the state of jobs is below `tmp_path`."""

    def make(**told: object) -> Path:
        whole = plan(**told)
        bundle = render(replace(whole, values={**whole.values, "run": tmp_path / "run"}))
        file = bundle.named("taskprolog")
        assert file is not None
        path = tmp_path / "taskprolog"
        path.write_bytes(file.content)
        path.chmod(0o755)
        return path

    return make


@pytest.fixture
def own(tmp_path: Path) -> Callable[[str], str]:
    """The path of a TaskProlog of the site's that says this."""

    def make(text: str) -> str:
        path = tmp_path / "own"
        path.write_text(text)
        path.chmod(0o755)
        return str(path)

    return make


def said(path: Path, environ: Mapping[str, str]) -> str:
    done = subprocess.run([path], env=dict(environ), capture_output=True, text=True, check=True, timeout=60)
    assert done.stderr == ""
    return done.stdout


def supervisor_says(tmp_path: Path, line: str, job: int = 77) -> None:
    """What the Prolog has started for `job` says this."""
    (tmp_path / "run/holders").mkdir(parents=True)
    (tmp_path / f"run/holders/{job}.0.said").write_text(f"{line}\n")


def after(path: Path | str, environ: Mapping[str, str]) -> dict[str, str]:
    """The task's environment, as _run_script_and_set_env of slurmstepd makes it from what is printed."""
    task = dict(environ)
    for line in said(Path(path), environ).split("\n"):
        verb, _, rest = line.partition(" ")
        if verb == "export":
            name, equals, value = rest.lstrip().partition("=")
            assert equals, f"slurmstepd reads no further than {line!r}"
            task[name.rstrip()] = value
        elif verb == "unset":
            task.pop(rest.strip(), None)
    return task


# ------------------------------------------------------------------------------------------------ the site's own

TEXTS = [
    'echo "export PATH=/opt/site/bin:$PATH"',
    "printf 'export SITE=1'",
    "printf 'print hello\\n\\nexport A = b c\\nunset B\\nnonsense\\n'",
    "printf 'export X=%s\\n' \"$(printf '\\\\303\\\\266')\"",
    "cat; printf 'export STDIN=read\\n'",
    "env | sed -n 's/^BASH_FUNC_f%%.*/export FUNC=1/p; s/^SHELLOPTS=/export OPTIONS=/p; s/^POSIXLY/export POSIX/p'",
    "printf 'export TWO=2\\n' >&2; printf 'export ONE=1\\n'",
    "sleep 1.5; echo export SLOW=1",
]


@pytest.mark.parametrize("text", TEXTS)
def test_a_sites_own_taskprolog_is_what_it_was(
    text: str, ours: Ours, own: Callable[[str], str], tmp_path: Path
) -> None:
    """Every line of its stdout as without us, and nothing else of it; the environment is the one that Slurm gave."""
    path = own(f"#!/bin/sh\n{text}\n")
    environ = {
        **JOB, "PATH": "/opt/alice/conda/bin:/usr/bin:/bin", "SHELLOPTS": "braceexpand:errexit:posix", "TMOUT": "1",
        "BASH_FUNC_f%%": "() { :; }", "POSIXLY_CORRECT": "1", "BASH_ENV": str(tmp_path / "rc"), "B": "1",
    }  # fmt: skip
    (tmp_path / "rc").write_text("echo export RC=1; exit 1\n")
    alone = subprocess.run([path], env=environ, capture_output=True, check=True, stdin=subprocess.DEVNULL)
    both = subprocess.run(
        [ours(site_task_prolog=path)], env=environ, capture_output=True, check=True, stdin=subprocess.DEVNULL
    )
    expected = alone.stdout if alone.stdout.endswith(b"\n") else alone.stdout + b"\n"
    assert (both.stdout, both.stderr) == (expected, alone.stderr)


@pytest.mark.parametrize("ending", ["exit 3", "kill -TERM $$"])
def test_a_task_that_the_site_refuses_is_refused(ending: str, ours: Ours, own: Callable[[str], str]) -> None:
    path = ours(site_task_prolog=own(f"#!/bin/sh\necho export SITE=1\n{ending}\n"))
    done = subprocess.run([path], env=JOB, capture_output=True, text=True, check=False)
    assert done.returncode == {"exit 3": 3, "kill -TERM $$": 143}[ending]
    assert done.stdout == "export SITE=1\n"


@pytest.mark.parametrize("takes_place", [False, True])
def test_a_proxy_that_the_sites_taskprolog_names_is_one_of_the_sites(
    takes_place: bool, ours: Ours, own: Callable[[str], str], tmp_path: Path
) -> None:
    supervisor_says(tmp_path, "ready c1 j")
    text = own(
        f"#!/bin/sh\nprintf 'export  http_proxy = %s\\nexport no_proxy=site.example' {SITE_PROXY}\n".replace(
            " = ", " ="
        )
    )
    settings = {"jump": "j", "replace_proxy": takes_place}
    with tunnel_state("77") as state:
        task = after(ours(site_task_prolog=text, settings=settings), {**JOB, "TMPDIR": os.environ["TMPDIR"]})
        assert task["http_proxy"] == (url_of(state) if takes_place else SITE_PROXY)
        assert task.get("https_proxy") == (url_of(state) if takes_place else None)
        assert task["no_proxy"].endswith(",site.example")
        assert task["HPCPROXY_SAVED_http_proxy"] == SITE_PROXY


# ------------------------------------------------------------------------------------------------ nobody else's address

OLD = {
    "HPCPROXY_URL": "http://127.128.3.232:2015", "HPCPROXY_KEY": "shell.0", "HPCPROXY_LISTEN": "1000 E803807F:07DF",
    "HPCPROXY_STATE": "/tmp/hpcproxy-shell.0-abcd1234", "http_proxy": "http://127.128.3.232:2015",
    "https_proxy": "http://127.128.3.232:2015", "no_proxy": "localhost", "NODE_USE_ENV_PROXY": "1",
    "HPCPROXY_SAVED_https_proxy": SITE_PROXY, "HPCPROXY_ERROR": "old",
}  # fmt: skip


def test_what_a_login_shell_handed_on_is_taken_away(ours: Ours) -> None:
    """The job has no tunnel, and its node is not where that tunnel was: who listens there may be anybody."""
    assert after(ours(), {**JOB, **OLD, "MINE": "1"}) == {**JOB, "MINE": "1", "https_proxy": SITE_PROXY}


@pytest.mark.parametrize("recipe", ["http://127.0.0.1:2015", "socks5h://LOCALHOST:2015", "127.64.0.9:2015"])
def test_an_address_of_ours_is_taken_away_by_whichever_name(recipe: str, ours: Ours) -> None:
    given = {
        **JOB,
        "HTTPS_PROXY": recipe,
        "all_proxy": recipe,
        "http_proxy": SITE_PROXY,
        "ftp_proxy": "http://127.0.0.1:9",
    }
    kept = {name: given[name] for name in ("SLURM_JOB_ID", "http_proxy", "ftp_proxy")}
    assert after(ours(), given) == kept


def test_nothing_is_said_where_nothing_is_to_change(ours: Ours) -> None:
    values = {f"X{number}": value.replace("\0", "") for number, value in enumerate(HOSTILE)}
    assert said(ours(), {**JOB, **values, "http_proxy": SITE_PROXY, "no_proxy": "a\nb"}) == ""
    assert said(ours(), {"HPCPROXY_URL": "", "SLURM_JOB_ID": "7;7"}) == ""


def test_a_tunnel_that_the_jobs_script_has_started_stays(ours: Ours) -> None:
    with tunnel_state("77") as state:
        uid, listen, url = (environment_of(state)[name] for name in ("uid", "listen", "url"))
        given = {
            **JOB,
            "HPCPROXY_KEY": "77.0",
            "HPCPROXY_URL": url,
            "HPCPROXY_LISTEN": f"{uid} {listen}",
            "https_proxy": url,
        }
        assert after(ours(task_wait_s=1), given) == given
    gone = {**given, "HPCPROXY_URL": "http://127.64.0.77:2015", "https_proxy": "http://127.64.0.77:2015"}
    assert after(ours(task_wait_s=1), gone) == JOB


@pytest.mark.parametrize("name", ["HET", "PACK"])
def test_the_component_of_a_heterogeneous_job_is_found_by_either_name(name: str, ours: Ours, tmp_path: Path) -> None:
    path = ours()
    supervisor_says(tmp_path, "ready c2 j", job=78)
    components = {f"SLURM_JOB_ID_{name}_GROUP_0": "77", f"SLURM_JOB_ID_{name}_GROUP_1": "78"}
    environ = {**JOB, **components, "TMPDIR": os.environ["TMPDIR"]}
    with tunnel_state("78") as state:
        assert after(path, environ)["http_proxy"] == url_of(state)


# ------------------------------------------------------------------------------------------------ waiting


def test_a_wait_in_vain_is_had_once(ours: Ours, tmp_path: Path) -> None:
    """The jump host is silent; a farm of short steps must not pay for it with each."""
    path = ours(task_wait_s=8)
    supervisor_says(tmp_path, "mode c1 agent")
    (tmp_path / "run/77.0").mkdir()
    took = []
    for _ in range(3):
        begun = time.monotonic()
        said(path, JOB)
        took.append(time.monotonic() - begun)
    assert took[0] > 6
    assert max(took[1:]) < 6


def test_the_users_shell_settings_do_not_reach_it(ours: Ours, tmp_path: Path) -> None:
    supervisor_says(tmp_path, "ready c1 j")
    (tmp_path / "rc").write_text("touch rc-was-read; exit 1\n")
    functions = {
        f"BASH_FUNC_{name}%%": f"() {{ touch {name}-was-run; }}" for name in ("printf", "read", "main", "unset")
    }
    settings = {
        "SHELLOPTS": "errexit:nounset:noexec:noglob", "BASHOPTS": "failglob:nocasematch",
        "BASH_ENV": str(tmp_path / "rc"), "ENV": str(tmp_path / "rc"), "PS4": "$(touch ps4)",
        "IFS": "/", "CDPATH": "/", "GLOBIGNORE": "*", "TMOUT": "1", "POSIXLY_CORRECT": "1", **functions,
    }  # fmt: skip
    with tunnel_state("77") as state:
        environ = {**JOB, **settings, "TMPDIR": os.environ["TMPDIR"]}
        done = subprocess.run([ours()], env=environ, cwd=tmp_path, capture_output=True, text=True, check=True)
        assert f"export https_proxy={url_of(state)}\n" in done.stdout
    assert sorted(path.name for path in tmp_path.iterdir()) == ["rc", "run", "taskprolog"]
    assert done.stderr == ""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")
def test_a_stranger_who_listens_there_hears_nothing(ours: Ours) -> None:
    """As in the field: http_proxy comes from a login shell, and bob has all of the node's addresses at that port."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    bob = f"""import socket; s = socket.create_server(("0.0.0.0", {port})); print(1, flush=True)
while True: c = s.accept()[0]; print(c.recv(4096), flush=True)"""
    fetch = ["curl", "-sS", "--max-time", "2", "-H", "Authorization: Bearer secret", "http://alices.test/"]
    path = ours(settings={"jump": "j", "port": port})
    with subprocess.Popen(["python3", "-c", bob], stdout=subprocess.PIPE, user=65534) as process:
        assert process.stdout is not None
        process.stdout.readline()
        inherited = {**JOB, "PATH": os.environ["PATH"], "http_proxy": f"http://127.0.0.1:{port}"}
        subprocess.run(fetch, env=inherited, capture_output=True, check=False)
        assert b"Bearer secret" in process.stdout.readline(), "bob would hear it"
        subprocess.run(fetch, env=after(path, inherited), capture_output=True, check=False)
        process.kill()
        assert process.stdout.read() == b"", shlex.join(fetch)

"""What wins over the tunnel is named with its file and line, and a value, which may be a password, never."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from hpcproxy.account import overrides
from hpcproxy.config.layers import resolve
from hpcproxy.config.places import Home
from hpcproxy.files.plan import account_plan
from hpcproxy.files.render import render

SECRET = "s3cret"  # noqa: S105 - what must never show


OVERRIDES = [
    ("export ALL_PROXY=socks5h://localhost:8888", "sets ALL_PROXY"),
    (f"export http_proxy=socks5://127.0.0.1:8888 https_proxy='http://u:{SECRET}@p:1'", "sets http_proxy, https_proxy"),
    ("http_proxy= https_proxy= python train.py", "sets http_proxy, https_proxy"),
    ("true && HTTPS_PROXY=http://p:3128 wget x", "sets HTTPS_PROXY"),
    ("setenv http_proxy http://p:3128", "sets http_proxy"),
    ("export http_proxy=$PROXY", "sets http_proxy"),
    ('export https_proxy="${PROXY_URL}"', "sets https_proxy"),
    ("export {http,https,ftp}_proxy=http://p:1", "sets {http,https,ftp}_proxy"),
    ("for v in http_proxy https_proxy; do export $v=http://p:1; done", "in a loop"),
    ("apptainer exec --env https_proxy=http://p:1 x.sif python", "sets https_proxy"),
    ('export no_proxy="*"', "sets no_proxy to *"),
    ("NO_PROXY=localhost,* python x", "sets NO_PROXY to *"),
    # sbatch(1), srun(1): --export; apptainer's and singularity's own names for a container's variables
    ("srun --export=ALL,https_proxy=http://p:1 python x", "sets https_proxy"),
    ("export APPTAINERENV_HTTPS_PROXY=http://p:1", "sets HTTPS_PROXY"),
    # conda/conda#11022, argonne-lcf/user-guides#840
    ("unset http_proxy", "takes http_proxy away"),
    ("unset -v no_proxy HTTPS_PROXY", "takes HTTPS_PROXY away"),
    ("unset {http,https}_proxy", "takes {http,https}_proxy away"),
    ("env -u https_proxy python x", "takes https_proxy away"),
    ("module load http_proxy/default", "loads http_proxy/default"),
    ("ml python proxy", "loads proxy"),
    ("ssh -q -N -T -f -D 8888 login1", "opens a forward by hand"),
    ("ssh -fND8888 login1 &", "opens a forward by hand"),
    ("ssh -N -D ${SOCKS_PORT} ${LOGIN_NODE} &", "opens a forward by hand"),
    ("ssh -N -o DynamicForward=1080 login1 &", "opens a forward by hand"),
    ("autossh -M 0 -f -N -D localhost:1080 login1", "opens a forward by hand"),
    ("sshuttle -r login1 0/0 &", "leads programs elsewhere by sshuttle"),
    ("proxychains4 -q python train.py", "leads programs elsewhere by proxychains4"),
    ("curl --proxy http://p:1 https://x", "tells curl a proxy"),
    ("curl -sSL --socks5-hostname localhost:8888 https://x", "tells curl a proxy"),
    ("alias curl='curl -x http://p:1'", "tells curl a proxy"),
    ("git -c http.proxy=http://p:1 clone x", "tells git a proxy"),
    ("git config --global http.proxy socks5://127.0.0.1:8888", "tells git a proxy"),
    ("pip install --proxy http://p:1 x", "tells pip a proxy"),
    ("pip config set global.proxy http://p:1", "tells pip a proxy"),
    ("conda config --set proxy_servers.http http://p:1", "tells conda a proxy"),
    ("npm config set https-proxy http://p:1", "tells npm a proxy"),
    (f"python train.py --proxy http://u:{SECRET}@p:1", "gives a program a proxy of its own (--proxy)"),
    ("java -Dhttps.proxyHost=127.0.0.1 -jar x.jar", "gives Java a proxy of its own (https.proxyHost)"),
]
HARMLESS = [
    "# export http_proxy=http://p:1",
    "python x.py  # unset http_proxy",
    "echo $http_proxy",
    "no_proxy=localhost",
    "no_proxy='*.cluster.example,localhost'",
    "srun --export=ALL,my_http_proxy=x python x",
    "my_http_proxy_name=x",
    "ssh host date",
    "curl -X POST https://x",
    "export http_proxy=$http_proxy",
    'export HTTPS_PROXY="${https_proxy}" ALL_PROXY=$HPCPROXY_URL',
    "git config --global --unset http.proxy",
    "module load python",
    "pip install proxy-tools",
]


@pytest.mark.parametrize(("line", "word"), OVERRIDES)
def test_a_line_of_a_job_script_that_wins_is_named(line: str, word: str) -> None:
    script = f"#!/bin/bash\nhook\n{line}\n".encode()
    (found,) = overrides.in_script(script, "job.sh", 2, Path("/nowhere"))
    assert (found.path, found.line) == ("job.sh", 3)
    assert word in str(found)
    assert SECRET not in str(found)


@pytest.mark.parametrize("line", HARMLESS)
def test_a_harmless_line_is_not(line: str) -> None:
    assert overrides.in_script(f"{line}\n".encode(), "job.sh", 0, Path("/nowhere")) == []


def test_what_stands_above_the_hook_is_the_hooks_own_business() -> None:
    assert (
        overrides.in_script(b"#!/bin/bash\nexport http_proxy=http://p:1\nhook\n", "job.sh", 3, Path("/nowhere")) == []
    )


@pytest.mark.parametrize(
    "line", [". ~/.bashrc", "source $HOME/.bashrc", 'source "${HOME}/.bashrc"', "[ -r x ] && . ~/.bashrc"]
)
def test_a_file_that_the_script_sources_is_read_too(line: str, tmp_path: Path) -> None:
    (tmp_path / ".bashrc").write_text("alias a=b\nexport http_proxy=socks5://127.0.0.1:2015\n")
    (found,) = overrides.in_script(f"{line}\n".encode(), "job.sh", 0, tmp_path)
    assert (found.path, found.line) == (str(tmp_path / ".bashrc"), 2)


@pytest.mark.parametrize(
    ("line", "name"),
    [
        (". env.sh", "env.sh"),
        ("source ../env.sh", "../env.sh"),
        ('source "$SLURM_SUBMIT_DIR/env.sh"', "env.sh"),
        ("source ${SLURM_SUBMIT_DIR}/conf/env.sh", "conf/env.sh"),
    ],
)
def test_a_file_beside_the_script_is_read_too(line: str, name: str, tmp_path: Path) -> None:
    script = tmp_path / "jobs" / "job.sh"
    (script.parent / name).parent.mkdir(parents=True, exist_ok=True)
    script.parent.mkdir(exist_ok=True)
    (script.parent / name).write_text("export https_proxy=http://p:1\n")
    (found,) = overrides.in_script(f"{line}\n".encode(), str(script), 0, tmp_path)
    assert (Path(found.path).resolve(), found.line) == ((script.parent / name).resolve(), 1)


def test_files_that_read_files_are_followed_and_not_in_circles(tmp_path: Path) -> None:
    (tmp_path / ".bashrc").write_text(". ~/.proxy\n. ~/.bashrc\n")
    (tmp_path / ".proxy").write_text(". ~/.bashrc\nexport http_proxy=http://p:1\n")
    (found,) = overrides.in_script(b". ~/.bashrc\n", "job.sh", 0, tmp_path)
    assert (found.path, found.line) == (str(tmp_path / ".proxy"), 2)


def test_our_own_files_are_no_others(tmp_path: Path) -> None:
    ours = tmp_path / ".hpcproxy"
    ours.mkdir()
    (ours / "epilogue.sh").write_text("export http_proxy=x\n")
    assert overrides.in_script(b". ~/.hpcproxy/epilogue.sh\n", "job.sh", 0, tmp_path, ours) == []


def test_variables_that_something_has_changed_since_are_named() -> None:
    url = "http://127.64.0.1:2015"
    same = {"HPCPROXY_URL": url, "http_proxy": url, "https_proxy": url}
    assert overrides.in_environment(same) == []
    assert overrides.in_environment({}) == []
    (line,) = overrides.in_environment({**same, "https_proxy": f"http://u:{SECRET}@p:1"})
    assert line.startswith("https_proxy leads elsewhere")
    assert SECRET not in line
    (line,) = overrides.in_environment({"HPCPROXY_URL": url, "http_proxy": url})
    assert line.startswith("https_proxy is gone")


_FILES = {
    ".curlrc": ("# mine\nproxy = http://u:s3cret@p:1\n", 2, "curl"),
    ".config/curlrc": ("--socks5-hostname localhost:8888\n", 1, "curl"),
    ".wgetrc": ("https_proxy = http://p:1\n", 1, "wget"),
    ".npmrc": ("registry=https://r\nhttps-proxy=http://u:s3cret@p:1\n", 2, "npm"),
    ".config/pip/pip.conf": ("[global]\nproxy = http://u:s3cret@p:1\n", None, "pip"),
    ".pip/pip.conf": ("[install]\nproxy: http://p:1\n", None, "pip"),
    ".condarc": ("channels: [x]\nproxy_servers:\n  http: http://u:s3cret@p:1\n", None, "conda"),
    ".cargo/config.toml": ("[http]\nproxy = 'http://p:1'\n", 2, "cargo"),
    ".Renviron": ("https_proxy=http://p:1\n", 1, "R"),
    ".yarnrc.yml": ("httpsProxy: http://p:1\n", 1, "yarn"),
    ".gradle/gradle.properties": ("systemProp.https.proxyHost=p\n", 1, "gradle"),
    ".s3cfg": ("[default]\nproxy_host = p\nproxy_port = 0\n", 2, "s3cmd"),
    ".docker/config.json": ('{"proxies": {"default": {"httpProxy": "http://u:s3cret@p:1"}}}', None, "docker"),
    ".gitconfig": ("[http]\n\tproxy = http://u:s3cret@p:1\n", None, "git"),
}


@pytest.mark.parametrize("name", _FILES)
def test_a_tools_own_proxy_is_named(name: str, home: Path) -> None:
    text, line, tool = _FILES[name]
    (home / name).parent.mkdir(parents=True, exist_ok=True)
    (home / name).write_text(text)
    (found,) = overrides.in_tools(home, os.environ)
    assert (found.path, found.line) == (str(home / name), line)
    assert found.what.startswith(f"{tool} reads ")
    assert SECRET not in str(found)


@pytest.mark.parametrize(
    ("variable", "text", "tool"),
    [
        ("CONDARC", "proxy_servers: {https: http://p:1}\n", "conda"),
        ("PIP_CONFIG_FILE", "[global]\nproxy = http://p:1\n", "pip"),
    ],
)
def test_a_file_that_a_variable_names_is_read_as_its_tool_does(variable: str, text: str, tool: str, home: Path) -> None:
    (home / "named").write_text(text)
    (found,) = overrides.in_tools(home, {**os.environ, variable: str(home / "named")})
    assert (found.path, found.what.split()[0]) == (str(home / "named"), tool)


def test_git_itself_follows_its_includes(home: Path) -> None:
    (home / ".gitconfig").write_text("[include]\n\tpath = work.inc\n")
    (home / "work.inc").write_text('[http "https://git.test"]\n\tproxy = http://p:1\n')
    (found,) = overrides.in_tools(home, os.environ)
    assert found.path == str(home / "work.inc")


def test_a_broken_repository_does_not_silence_git(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".git").write_text("gitdir: /nowhere\n")
    monkeypatch.chdir(tmp_path)
    (home / ".gitconfig").write_text("[http]\n\tproxy = http://p:1\n")
    (found,) = overrides.in_tools(home, os.environ)
    assert found.path == str(home / ".gitconfig")


@pytest.mark.parametrize("text", ["", "\0\xff{[", "[global\nproxy", "- : :\n\t-"], ids=repr)
def test_files_that_no_tool_could_read_are_nothing(text: str, home: Path) -> None:
    for name in _FILES:
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        (home / name).write_bytes(text.encode("latin-1"))
    assert overrides.in_tools(home, os.environ) == []


def test_a_pipe_by_that_name_is_not_waited_for(home: Path) -> None:
    subprocess.run(["mkfifo", str(home / ".curlrc")], check=True)
    assert overrides.in_tools(home, os.environ) == []


# ------------------------------------------------------------------------------------------------ the hook's own look


def _hook_says(script: Path, home: Path, **environ: str) -> list[str]:
    """What job.sh says of a job script: the same tables, read by bash."""
    text = render(account_plan(resolve(), Home(home / ".hpcproxy"))).named("job.sh")
    assert text is not None
    head = text.content.decode().partition("# shellcheck shell=bash\n# Starts and ends the supervisors")[0]
    command = f'{head}\ntell_others "$1"'
    clean = {"HOME": str(home), "PATH": os.environ["PATH"], **environ}
    done = subprocess.run(
        ["bash", "-c", command, "job.sh", script], capture_output=True, text=True, check=True, env=clean
    )
    assert done.stdout == ""
    return [line.removeprefix("hpcproxy: ") for line in done.stderr.splitlines()]


def test_the_hook_and_wrap_see_the_same(tmp_path: Path) -> None:
    for line in [*(line for line, _ in OVERRIDES), *HARMLESS]:
        script = tmp_path / "job.sh"
        script.write_text(f"#!/bin/bash\nexport http_proxy=http://above:1\n. x  # hpcproxy hook\ncd /\n{line}\n")
        found = overrides.in_script(script.read_bytes(), str(script), 3, tmp_path)
        said = _hook_says(script, tmp_path)
        # Of several names in a line the hook says one.
        assert [text.partition(" ")[0] for text in said] == ["this" for _ in found], (line, said)
        for text, one in zip(said, found):
            assert text.startswith("this script:5: ")
            assert text.split()[2] == one.what.split()[0], line
            assert SECRET not in text


def test_the_hook_names_what_stands_in_files_that_the_script_reads_and_in_tools_own(tmp_path: Path) -> None:
    script = tmp_path / "job.sh"
    script.write_text("#!/bin/bash\n. x  # hpcproxy hook\n. ~/.bashrc\nsource env.sh\n. ~/.hpcproxy/epilogue.sh\n")
    (tmp_path / ".bashrc").write_text("# old\nexport https_proxy=socks5://localhost:8888\n. ~/.bashrc\n")
    (tmp_path / "env.sh").write_text("module load proxy\n")
    (tmp_path / ".hpcproxy").mkdir()
    (tmp_path / ".hpcproxy" / "epilogue.sh").write_text("export http_proxy=x\n")
    for name, (text, _, tool) in _FILES.items():
        if tool != "docker":
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(text)
    said = _hook_says(script, tmp_path, SLURM_SUBMIT_DIR=str(tmp_path))
    assert said[0].startswith(f"{tmp_path}/.bashrc:2: sets https_proxy, ")
    assert said[1].startswith(f"{tmp_path}/env.sh:1: loads proxy, ")
    assert said[2].startswith(f"{tmp_path}/.curlrc:2: curl reads proxy here")
    assert said[-1].endswith(" more; hpcproxy wrap SCRIPT shows all")
    assert int(said[-1].split()[1]) == len(_FILES) - 1 + 2 - 6
    assert len(said) == 7
    assert SECRET not in "".join(said)


def test_variables_of_single_tools_are_named(tmp_path: Path) -> None:
    given = {
        "npm_config_https_proxy": f"http://u:{SECRET}@p:1",
        "JAVA_TOOL_OPTIONS": "-Xmx1g -Dhttps.proxyHost=proxy.site",
        "MAVEN_OPTS": "-Xmx1g",
        "_JAVA_OPTIONS": "-Dhttps.proxyHost=127.64.0.9 -Dhttps.proxyPort=2015",
    }
    names = ["npm_config_https_proxy", "JAVA_TOOL_OPTIONS"]
    found = [str(one) for one in overrides.in_tools(tmp_path, {**os.environ, **given})]
    for said in (found, _hook_says(tmp_path / "none", tmp_path, **given)):
        assert [line.split(": ")[:2] for line in said] == [["your environment", name] for name in names]
        assert SECRET not in "".join(said)
    assert found == _hook_says(tmp_path / "none", tmp_path, **given)


def test_only_the_first_task_of_a_step_is_told(tmp_path: Path) -> None:
    (tmp_path / ".curlrc").write_text("proxy = http://p:1\n")
    assert _hook_says(tmp_path / "none", tmp_path, SLURM_PROCID="1") == []
    assert len(_hook_says(tmp_path / "none", tmp_path, SLURM_PROCID="0")) == 1

"""What wins over the way out is named with its file and line, and a value, which may be a password, never."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from hpcproxy import overrides

SECRET = "s3cret"  # noqa: S105 - what must never show


@pytest.mark.parametrize(
    ("line", "word"),
    [
        ("export ALL_PROXY=socks5h://localhost:8888", "sets ALL_PROXY"),
        (
            f"export http_proxy=socks5://127.0.0.1:8888 https_proxy='http://u:{SECRET}@p:1'",
            "sets http_proxy, https_proxy",
        ),
        ("http_proxy= https_proxy= python train.py", "sets http_proxy, https_proxy"),
        ("true && HTTPS_PROXY=http://p:3128 wget x", "sets HTTPS_PROXY"),
        ("setenv http_proxy http://p:3128", "sets http_proxy"),
        ("ssh -q -N -T -f -D 8888 login1", "opens a forward by hand"),
        ("ssh -fND8888 login1 &", "opens a forward by hand"),
        ("curl --proxy http://p:1 https://x", "tells curl a proxy"),
        ("git -c http.proxy=http://p:1 clone x", "tells git a proxy"),
        ("pip install --proxy http://p:1 x", "tells pip a proxy"),
    ],
)
def test_a_line_of_a_job_script_that_wins_is_named(line: str, word: str) -> None:
    script = f"#!/bin/bash\nhook\n{line}\n".encode()
    (found,) = overrides.in_script(script, "job.sh", 2, Path("/nowhere"))
    assert (found.path, found.line) == ("job.sh", 3)
    assert word in str(found)
    assert SECRET not in str(found)


@pytest.mark.parametrize(
    "line",
    [
        "# export http_proxy=http://p:1",
        "unset http_proxy https_proxy",
        "echo $http_proxy",
        "no_proxy=localhost",
        "my_http_proxy_name=x",
        "ssh host date",
        "curl -X POST https://x",
        "export http_proxy=$http_proxy",
    ],
)
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


_FILES = {
    ".curlrc": ("# mine\nproxy = http://u:s3cret@p:1\n", 2, "curl"),
    ".config/curlrc": ("--socks5-hostname localhost:8888\n", 1, "curl"),
    ".wgetrc": ("https_proxy = http://p:1\n", 1, "wget"),
    ".npmrc": ("registry=https://r\nhttps-proxy=http://u:s3cret@p:1\n", 2, "npm"),
    ".config/pip/pip.conf": ("[global]\nproxy = http://u:s3cret@p:1\n", None, "pip"),
    ".pip/pip.conf": ("[install]\nproxy: http://p:1\n", None, "pip"),
    ".condarc": ("channels: [x]\nproxy_servers:\n  http: http://u:s3cret@p:1\n", None, "conda"),
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


def test_git_itself_follows_its_includes(home: Path) -> None:
    (home / ".gitconfig").write_text("[include]\n\tpath = work.inc\n")
    (home / "work.inc").write_text('[http "https://git.test"]\n\tproxy = http://p:1\n')
    (found,) = overrides.in_tools(home, os.environ)
    assert found.path == str(home / "work.inc")


@pytest.mark.parametrize("text", ["", "\0\xff{[", "[global\nproxy", "- : :\n\t-"], ids=repr)
def test_files_that_no_tool_could_read_are_nothing(text: str, home: Path) -> None:
    for name in _FILES:
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        (home / name).write_bytes(text.encode("latin-1"))
    assert overrides.in_tools(home, os.environ) == []


def test_a_pipe_by_that_name_is_not_waited_for(home: Path) -> None:
    subprocess.run(["mkfifo", str(home / ".curlrc")], check=True)
    assert overrides.in_tools(home, os.environ) == []

"""The list of authorities that a tunnel behind an intercepting proxy hands on: to who has none, and taken back."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from hpcproxy.files.render import TEMPLATES
from hpcproxy.files.variables import CA, OWN_CA

SOURCED = TEMPLATES / "lib" / "sourced"
_SCRIPT = """set -eu
. "$2/proxies.sh"; . "$2/restore.sh"; . "$2/env.sh"
__hpcproxy_replace=1 __hpcproxy_port=2015
__hpcproxy_read "$1"
__hpcproxy_export
env -0 >"$1/on"
__hpcproxy_restore
env -0 >"$1/off"
"""
_ENV = "version=1\nkey=1.0\nstep=\nuid=0\nlisten=x\nurl=http://127.64.0.1:2015\nno_proxy=localhost\n"


def _run(shell: str, state: Path, **environ: str) -> tuple[dict[str, str], dict[str, str]]:
    (state / "env").write_text(_ENV)
    before = {name: value for name, value in os.environ.items() if name not in CA}
    subprocess.run([shell, "-c", _SCRIPT, shell, state, SOURCED], env={**before, **environ}, check=True)
    on, off = (
        dict(each.split("=", 1) for each in (state / name).read_text().split("\0") if each) for name in ("on", "off")
    )
    return on, off


@pytest.mark.parametrize("shell", ["bash", "dash"])
def test_it_is_given_to_who_has_none_and_taken_back(shell: str, tmp_path: Path) -> None:
    own = tmp_path / "own list.pem"
    own.write_text("")
    (tmp_path / "ca").write_text(f"{own}\n")
    on, off = _run(shell, tmp_path, PIP_CERT="/mine.pem")
    assert {name: on[name] for name in CA} == {**dict.fromkeys(CA, str(own)), "PIP_CERT": "/mine.pem"}
    assert on[OWN_CA] == str(own)
    assert {name: off[name] for name in (*CA, OWN_CA) if name in off} == {"PIP_CERT": "/mine.pem"}


@pytest.mark.parametrize("shell", ["bash", "dash"])
@pytest.mark.parametrize("content", [None, "", "/nonexistent/list.pem\n"])
def test_without_one_nothing_is_said(shell: str, content: str | None, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "ca").write_text(content)
    on, off = _run(shell, tmp_path)
    assert on["http_proxy"] == "http://127.64.0.1:2015"
    assert not {*CA, OWN_CA} & {*on, *off}

"""The page for a centre's own documentation says what the inventory says, and nothing else."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from hpcproxy.cluster import inventory
from hpcproxy.cluster.site_page import page


def _page(directory: Path, **told: Any) -> str:
    path = directory / "site.yaml"
    path.write_text(yaml.safe_dump({"nodes": "c[1-4]", "settings": {"jump": "login.example.org"}, **told}))
    return page(*inventory.read(path))


@pytest.mark.parametrize(
    ("told", "words", "typed"),
    [
        ({}, "All of them; there is nothing to do.", "srun -N1 curl"),
        (
            {"policy": {"comment": True}},
            "These: jobs submitted with `--comment=hpcproxy`.",
            "srun --comment=hpcproxy -N1 curl",
        ),
        ({"policy": {"option": True}, "via": "spank"}, "submitted with `--hpcproxy`.", "srun --hpcproxy -N1 curl"),
        ({"policy": {"partitions": ["gpu", "long"]}}, "in the partitions gpu, long.", "srun -p gpu -N1 curl"),
        ({"policy": {"accounts": "phys"}}, "of the accounts phys.", "srun -N1 curl"),
    ],
)
def test_which_jobs_have_it_and_how_to_try(tmp_path: Path, told: dict[str, Any], words: str, typed: str) -> None:
    text = _page(tmp_path, **told)
    assert words in text
    assert f"$ {typed} -sS https://ipinfo.io/ip\n" in text


def test_what_a_user_needs_is_what_the_mode_asks_for(tmp_path: Path) -> None:
    assert "An account on login.example.org, and a key" in _page(tmp_path)
    settings = {"jump": "j", "allow": [".example.org"], "deny": ["*:25"]}
    service = _page(tmp_path, mode="service", service_key=str(tmp_path / "key"), settings=settings)
    assert "Nothing: the login to the jump host is ours." in service
    assert "Only: `.example.org`.\nNot: `*:25`.\nWho reached what, and when, is on record." in service
    assert "Nothing." in _page(tmp_path, settings={"via": "direct"})


def test_it_is_printed_by_render(tmp_path: Path) -> None:
    text = _page(tmp_path)
    argv = [sys.executable, "-m", "hpcproxy", "render", "site-page"]
    done = subprocess.run(
        [*argv, "--inventory", tmp_path / "site.yaml"], capture_output=True, text=True, env=os.environ, check=True
    )
    assert done.stdout == text + "\n"
    refused = subprocess.run(argv, capture_output=True, text=True, env=os.environ, check=False)
    assert (refused.returncode, "render site-page --inventory FILE" in refused.stderr) == (2, True)

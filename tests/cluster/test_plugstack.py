"""plugstack.conf has our line once, is what it was without it, and a plugin for another Slurm is named."""

from __future__ import annotations

import os
import subprocess
import time

import pytest
import yaml

from hpcproxy.cluster import plugstack, slurm_conf
from hpcproxy.cluster.inventory import Inventory, parse
from hpcproxy.cluster.site_plan import site_plan
from hpcproxy.config.layers import Layer, resolve
from hpcproxy.config.places import PROGRAMS
from hpcproxy.errors import ConfigError
from hpcproxy.files.plan import PLUGIN
from tests import REPOSITORY

LINE = f"optional {PROGRAMS / PLUGIN}"
BUILT = b"\x7fELF\0hpcproxy-spank-built-for:0x160508;\0"


def told(**more: object) -> Inventory:
    return parse("case", yaml.safe_dump({"nodes": "c1", "settings": {"jump": "j"}, "via": "spank", **more}))


@pytest.mark.parametrize(
    "text", [None, b"", b"# a comment\nrequired /usr/lib/x.so a=b\n", b"include plugstack.conf.d/*"]
)
def test_the_line_is_put_in_once_and_taken_out_again(text: bytes | None) -> None:
    put = plugstack.put(text, told())
    assert put.decode().splitlines().count(LINE) == 1
    assert plugstack.has_line(put, told())
    assert not plugstack.has_line(text, told())
    assert plugstack.put(put, told()) == put
    assert plugstack.take_out(put, told()) == text


def test_a_site_that_wrote_the_line_itself_is_content() -> None:
    assert plugstack.has_line(f"optional\t{PROGRAMS / PLUGIN}  option\n".encode(), told(policy={"option": True}))


def test_slurm_compares_two_parts_of_its_version() -> None:
    def unfit(version: str) -> str:
        return plugstack.unfit(BUILT, slurm_conf.parse(f"SLURM_VERSION = {version}\n"))

    assert unfit("22.05.2") == ""
    assert unfit("23.02.7").startswith("it is built for Slurm 22.05.8, and 23.02.7 runs")
    assert "22.05.8" in plugstack.unfit(BUILT, {})
    assert "make -C spank" in plugstack.unfit(b"something else", {})


def test_nothing_of_a_plan_lies_where_a_sites_pattern_finds_it() -> None:
    """And slurm.conf needs no line."""
    inventory = told()
    plan = site_plan(inventory, resolve(Layer("case", inventory.settings)), "j ssh-ed25519 AAAA\n", None, BUILT)
    assert {artifact.path.parent for artifact in plan.artifacts if artifact.name in ("prolog", "epilog", PLUGIN)} == {
        PROGRAMS
    }
    assert slurm_conf.lines(inventory) == ()
    assert slurm_conf.missing({}, inventory) == []


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"site_task_prolog": "/etc/slurm/task.sh"}, "slurm.conf keeps the site's TaskProlog"),
        ({"via": "hooks", "policy": {"option": True}}, "say `via: spank`"),
        ({"via": "magic"}, "via"),
    ],
)
def test_what_does_not_fit_together_is_said(more: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        told(**more)


def test_the_header_says_which_slurm_and_the_source_says_it_the_same_way() -> None:
    source = (REPOSITORY / "spank" / "spank_hpcproxy.c").read_text()
    assert '"hpcproxy-spank-built-for:" TEXT(SLURM_VERSION_NUMBER) ";"' in source
    assert f'#define PROGRAMS "{PROGRAMS}"' in source


@pytest.mark.parametrize(
    ("later_s", "slurmd", "answer"), [(-5, True, "fresh"), (5, True, "stale"), (-5, False, "none")]
)
def test_a_slurmd_that_began_before_the_line_was_written_has_not_read_it(
    later_s: int, slurmd: bool, answer: str
) -> None:
    """Here the program that runs the tests stands for slurmd."""
    ago_s = subprocess.run(["ps", "-o", "etimes=", "-p", str(os.getpid())], capture_output=True, text=True, check=True)
    written = int(time.time()) - int(ago_s.stdout) + later_s
    part = REPOSITORY / "templates/lib/host/plugged.sh"
    head = (
        f"set -euo pipefail; plugstack=none; stat() {{ printf '%d.00' {written}; }}; find_slurm() {{ daemon=$PPID; }}"
    )
    argv = ["bash", "-c", f'{head}; is_slurmd() {{ {str(slurmd).lower()}; }}; . "$0"', str(part)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60)
    assert (done.stdout, done.stderr, done.returncode) == (f"{answer}\n", "", 0)

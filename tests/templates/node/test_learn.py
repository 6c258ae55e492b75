"""What a supervisor learns of its node's ssh before it starts one: bounded, for it runs the user's `Match exec`."""

from __future__ import annotations

import subprocess
from pathlib import Path

from hpcproxy.files.render import TEMPLATES

_LEARN = """
source "$0/lib/any/bounded.sh"
source "$0/lib/tunnel/ssh.sh"
asking_s=1 uses_ssh=1 held='' heeded=TERM death=HUP first_cipher=aes login_option=log jump_destinations=(jump)
learn
echo "${follow[*]} | ${held_back[*]} | ${cipher[*]}"
"""


def _learn(directory: Path, ssh: str) -> str:
    (directory / "ssh").write_text(f"#!/bin/bash\necho asked >>{directory}/asked\n{ssh}\n")
    (directory / "ssh").chmod(0o755)
    words = ["env", f"PATH={directory}:/usr/bin:/bin", "bash", "-euc", _LEARN, TEMPLATES]
    return subprocess.run(words, capture_output=True, text=True, check=True, timeout=60).stdout


def test_an_ssh_that_says_what_it_would_do_is_heeded(tmp_path: Path) -> None:
    said = _learn(tmp_path, "echo ciphers chacha,aes")
    assert said == "setpriv --pdeathsig HUP | env --block-signal=TERM | -o Ciphers=aes,chacha\n"


def test_one_that_hangs_is_asked_once_and_costs_its_time(tmp_path: Path) -> None:
    """The site's programs are taken to be there: without them an ssh could outlive its supervisor."""
    said = _learn(tmp_path, "exec sleep 300")
    assert said == "setpriv --pdeathsig HUP | env --block-signal=TERM | \n"
    assert (tmp_path / "asked").read_text() == "asked\n"

"""Names of cgroups that could not be removed when they were ended do not stay for ever."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from hpcproxy.files.render import TEMPLATES

LONG_AGO = (0, 0)


def _sweep(place: Path, bound: int) -> set[str]:
    script = f". {TEMPLATES}/lib/any/emptygroups.sh; sweep_groups {place} {bound}"
    subprocess.run(["/bin/bash", "-p", "-euo", "pipefail", "-c", script], check=True)
    return {path.name for path in place.iterdir()}


def test_what_is_empty_and_old_goes_and_no_tunnel_that_lives(tmp_path: Path) -> None:
    """The directory of one that lives holds its supervisor; its `way` may be empty for a moment, between two agents."""
    for name in ("1.0-empty", "2.0-lives", "3.0-begins", "4.0-hollow"):
        (tmp_path / name).mkdir()
    for name in ("1.0-empty", "2.0-lives", "3.0-begins"):
        (tmp_path / name / "way").mkdir()
    (tmp_path / "2.0-lives" / "cgroup.procs").write_text("77\n")
    (tmp_path / "other").mkdir()
    for name in ("1.0-empty", "2.0-lives", "4.0-hollow", "other"):
        os.utime(tmp_path / name, LONG_AGO)
    everything = {path.name for path in tmp_path.iterdir()}
    assert _sweep(tmp_path, 4) == everything, "as many as that are left alone: to look costs a process"
    assert _sweep(tmp_path, 3) == {"2.0-lives", "3.0-begins", "other"}
    assert (tmp_path / "2.0-lives" / "way").is_dir()


def test_a_place_that_is_not_there_is_no_trouble(tmp_path: Path) -> None:
    script = f". {TEMPLATES}/lib/any/emptygroups.sh; sweep_groups {tmp_path}/none 0; echo on"
    done = subprocess.run(
        ["/bin/bash", "-p", "-euo", "pipefail", "-c", script], capture_output=True, text=True, check=True
    )
    assert (done.stdout, done.stderr) == ("on\n", "")

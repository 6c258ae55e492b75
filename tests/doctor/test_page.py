"""The report as a person reads it: the verdict first, a line each, what to do last; at any width, in any letters."""

from __future__ import annotations

import pytest

from hpcproxy.doctor import page
from hpcproxy.doctor.finding import Finding, Found, Mark, bad, good, untried
from hpcproxy.doctor.page import Look

_LONG = "a sentence that does not end before the line does, for it has a lot to tell of what the jump host has said"


def _text(found: list[Found], look: Look | None = None) -> str:
    return "\n".join(line for line, _ in page.page(found, look or Look()))


_WELL = [
    Found("tunnel", "tunnel", good("up")),
    Found("git", "tools", good("no proxy")),
    Found("R", "tools", good("no proxy")),
]
_ILL = [
    Found("name", "jump host", good("it is known here")),
    Found("login", "jump host", bad(_LONG, "ssh-copy-id u@h")),
    Found("tunnel", "tunnel", untried("“login” failed")),
    Found("SwanLab", "endpoints", untried("“login” failed")),
    Found("git", "tools", bad("reads x", "take it out")),
]


def test_all_is_well() -> None:
    assert _text(_WELL).splitlines()[0] == "The tunnel works."
    assert "✓ tools               git, R: no proxy" in _text(_WELL)
    assert "Fix:" not in _text(_WELL)
    assert "Next: hpcproxy wrap --in-place JOB.sh" in _text(_WELL)
    assert "You have:   a tunnel for programs that know a proxy" in _text(_WELL)
    assert "UDP" in _text(_WELL)


def test_what_is_wrong_comes_first_and_what_to_do_last() -> None:
    lines = _text(_ILL).splitlines()
    assert lines[0].startswith("Login: a sentence that does not end")
    assert "(1 more below)" in " ".join(lines[:3])
    assert "⊘ not tried           tunnel, SwanLab, because “login” failed" in lines
    end = lines[lines.index("Fix:  ssh-copy-id u@h") :]
    assert end[1] == "Then: take it out"
    assert end[2] == "Next: hpcproxy doctor"
    assert "You have:   no tunnel yet" in end


@pytest.mark.parametrize("columns", [40, 80, 100])
def test_no_line_is_longer_than_the_screen(columns: int) -> None:
    assert max(len(line) for line in _text(_ILL, Look(columns)).splitlines()) <= columns


def test_what_keeps_the_tunnel_away_is_told_first() -> None:
    found = [Found("rc files", "shell", bad("sets a proxy", "take it out")), *_ILL[:2]]
    assert _text(found).startswith("Login: ")
    assert "Fix:  ssh-copy-id u@h\nThen: take it out" in _text(found)
    assert _text([*_WELL, _ILL[4]]).startswith("The tunnel works, but: Git: reads x.")


def test_a_path_or_a_command_is_never_broken() -> None:
    path = "/a/very/long/path/" + "x" * 90
    assert path in _text([Found("key", "ssh", bad(path, f"chmod 600 {path}"))])


def test_without_letters_beyond_ascii() -> None:
    text = _text(_ILL, Look(ascii_only=True))
    assert text.isascii()
    assert "XX login" in text
    assert 'because "login" failed' in text
    assert "ok name" in text


def test_the_home_is_a_tilde() -> None:
    assert "chmod 600 ~/k" in _text([Found("key", "ssh", bad("x", "chmod 600 /home/a/k"))], Look(home="/home/a"))


def test_what_doctor_could_not_look_at_is_no_fault_of_the_tunnel() -> None:
    text = _text(
        [Found("tunnel", "tunnel", good("up")), Found("x", "y", Finding(Mark.BROKEN, "doctor could not", "f"))]
    )
    assert text.startswith("Nothing wrong was found, but doctor could not look at everything: X.")


def test_what_a_node_says_stands_below_its_name() -> None:
    lines = _text([*_WELL, Found("name", "jump host", bad("unknown", "use its address"), "c1")]).splitlines()
    assert lines[0] == "The tunnel works, but: Name on c1: unknown."
    assert lines[lines.index("On c1:") + 1].startswith("✗ name")

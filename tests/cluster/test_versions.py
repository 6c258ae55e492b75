"""One version after another, with a real bash at the other end: cut off on the way, taken back, elsewhere."""

from __future__ import annotations

import os
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from hpcproxy.files.plan import Artifact
from hpcproxy.files.render import Bundle, File
from hpcproxy.node.state.directory import start_time
from tests.cluster.host import BETWEEN_TWO, ME, Host
from tests.snapshot import tree

V1, V2, V3 = ({"a_hook": n, "a_more": n, "program": n, f"only{n}": n} for n in "123")
NOT_YET, BEGUN, DONE = "nothing is touched", "something may be in place", "it is on record"


@pytest.mark.parametrize(
    ("moment", "state"),
    [
        (b"say_changes\n    become", NOT_YET),
        (b"keep\n    # From", NOT_YET),
        (b'rm -rf -- "$store/previous"\n', NOT_YET),
        (b'mv -- "$new" "$store/previous"\n', NOT_YET),
        (b"link || move", BEGUN),
        (b"find_directories\n    if ((", BEGUN),
        (BETWEEN_TWO, BEGUN),
        (b"if ((${#owned[@]})); then #", BEGUN),
        (b'mv -f -- "$store/owned.new"', BEGUN),
        (b"printf '%s' \"$record\" 2>/dev/null >", BEGUN),
        (b'sync -- "${directories[@]}"', BEGUN),
        (b'debris+=("$store/next")\n}', DONE),
    ],
)
def test_whoever_is_killed_on_the_way_is_followed_up(host: Host, moment: bytes, state: str) -> None:
    """The next one ends what was begun, a rollback brings back what was there before it, and remove leaves nothing."""
    empty = tree(host.root)
    old, new, newer = (host.bundle(**version) for version in (V1, V2, V3))

    def files() -> list[object]:
        return [tree(host.root / "etc"), tree(host.root / "lib")]

    def begin() -> list[object]:
        host.do("apply", old)
        before = files()
        host.cut_off(new, moment)
        return before

    first = begin()
    assert (files() == first) or state != NOT_YET
    assert host.do("apply", new).word == ("unchanged" if state == DONE else "changed")
    second = files()
    assert host.do("rollback", new).word == "changed"
    assert files() == first
    assert host.do("remove", new).word == "changed"
    assert tree(host.root) == empty

    begin()
    assert host.do("apply", newer).word == "changed"
    assert host.do("rollback", newer).word == "changed"
    assert files() == (second if state == DONE else first)
    host.do("remove", new)

    begin()
    assert host.do("rollback", new).word == ("failed" if state == NOT_YET else "changed")
    assert files() == first
    host.do("remove", new)

    begin()
    assert host.do("remove", new).word == "changed"
    assert tree(host.root) == empty


def test_a_rollback_brings_back_what_was_there_not_what_should_have_been(host: Host) -> None:
    """A file that somebody has changed comes back as he left it, and is his still: remove keeps it."""
    old, new = host.bundle(**V1), host.bundle(**V2)
    host.do("apply", old)
    theirs = host.root / "lib/ours/program"
    theirs.write_text("changed by hand")
    (host.root / "etc/a.d/a_more").unlink()
    host.do("apply", new)
    assert theirs.read_text() == "2"
    assert host.do("rollback", new).word == "changed"
    assert theirs.read_text() == "changed by hand"
    assert not (host.root / "etc/a.d/a_more").exists()
    answer = host.do("look", old)
    assert [(change.action, Path(change.path).name) for change in answer.changes] == [
        ("create", "a_more"),
        ("change", "program"),
    ]
    assert host.do("remove", old).text == f"changed by somebody else and kept: {theirs}"
    assert theirs.read_text() == "changed by hand"


def test_files_on_another_file_system(host: Host) -> None:
    """Where no link and no rename can go they are staged beside their directory."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as name:
        other = Path(name, "a.d/hook")
        assert Path(name).stat().st_dev != host.root.stat().st_dev
        before = tree(host.root), tree(Path(name))

        def bundle(text: str) -> Bundle:
            elsewhere = File(Artifact("hook", "t", other, 0o755, "", ME), text.encode())
            return Bundle((*host.bundle(program=text).files, elsewhere))

        for text in ("1", "2"):
            assert host.do("apply", bundle(text)).word == "changed"
            assert (other.read_text(), other.stat().st_mode & 0o777) == (text, 0o755)
            assert [path.name for path in Path(name).iterdir()] == ["a.d"]
            assert host.do("apply", bundle(text)).word == "unchanged"
        assert host.do("rollback", bundle("2")).word == "changed"
        assert (other.read_text(), (host.root / "lib/ours/program").read_text()) == ("1", "1")
        assert host.do("remove", bundle("1")).word == "changed"
        assert (tree(host.root), tree(Path(name))) == before


def test_a_file_that_appears_at_the_last_moment_is_kept(host: Host) -> None:
    bundle = host.bundle(a_hook="1", program="2")
    path = host.root / "etc/a.d/a_hook"
    path.parent.mkdir()
    answer = host.talk(host.altered(bundle, b"link || move", b"echo theirs >%s; " % os.fsencode(path)))
    assert (answer.word, answer.text) == ("failed", f"somebody else has just made {path}")
    assert path.read_text() == "theirs\n"
    assert not (host.root / "lib/ours/program").exists()


def test_rollback_brings_the_earlier_version_back_and_forth(host: Host) -> None:
    old, new = host.bundle(a_hook="1", gone="x"), host.bundle(a_hook="2", program="y")
    host.do("apply", old)
    assert host.do("rollback", old).text == "no earlier version is kept here"
    answer = host.do("apply", new)
    assert [(change.action, Path(change.path).name) for change in answer.changes] == [
        ("change", "a_hook"),
        ("create", "program"),
        ("remove", "gone"),
    ]
    assert not (host.root / "lib/ours/gone").exists()
    assert host.do("rollback", new).word == "changed"
    assert (host.root / "etc/a.d/a_hook").read_text() == "1"
    assert (host.root / "lib/ours/gone").read_text() == "x"
    assert not (host.root / "lib/ours/program").exists()
    assert host.do("rollback", new).word == "changed"
    assert host.do("look", new).word == "unchanged"


# ---- the lock


def test_who_is_at_work_keeps_others_out_and_who_was_killed_does_not(host: Host) -> None:
    bundle, lock = host.bundle(a_hook="1"), host.root / "lock"
    for line in (f"{os.getpid()} 1", "4194305 1", "", "x y", "1", "$(touch evil) 1"):
        lock.write_text(line)
        assert host.do("apply", bundle).word == "changed", line
        assert host.do("remove", bundle).word == "changed", line
    lock.write_text(f"4194305 1\n{os.getpid()} {start_time(os.getpid())}\n")
    answer = host.do("apply", bundle)
    assert (answer.word, answer.text) == ("failed", "another deployment is at work here")
    assert not (host.root / "etc/a.d").exists()
    assert lock.exists()


def test_a_line_in_a_lock_file_that_has_gone_counts_for_nothing(host: Host) -> None:
    """Its owner has ended just now; whoever makes the file anew has the lock."""
    bundle = host.bundle(a_hook="1")
    gone = host.altered(bundle, b'[[ $owner == "$line"', b'rm -- "$lock_file"; ')
    assert host.talk(gone).text == "another deployment is at work here"
    assert not (host.root / "etc/a.d").exists()


def test_the_lock_goes_last(host: Host) -> None:
    """While a deployment tidies up after itself no other begins, or it would lose what it has just unpacked."""
    bundle, slow = host.bundle(a_hook="1"), host.root / "slow"
    slow.mkdir()
    each = f'/bin/rm -rf -- "$path"; echo "$path"; if [ -e "{host.root}/lock" ]; then echo kept; else echo open; fi'
    (slow / "rm").write_text(f"#!/bin/sh\nshift 2\nfor path; do {each}; done >>{slow}/seen\n")
    (slow / "rm").chmod(0o755)
    assert host.talk(host.altered(bundle, b"exec rm -rf --", b'PATH="%s:$PATH"; ' % bytes(slow))).word == "changed"
    *before, last, state = (slow / "seen").read_text().splitlines()
    assert (last, state) == (str(host.root / "lock"), "open")
    assert set(before[1::2]) == {"kept"}


def test_of_many_at_once_each_is_whole_or_sent_away(host: Host) -> None:
    bundles = [host.bundle(a_hook=str(number), program=str(number) * 1000) for number in range(8)]
    with ThreadPoolExecutor(len(bundles)) as pool:
        answers = list(pool.map(lambda bundle: host.do("apply", bundle), bundles))
    assert {answer.word for answer in answers} <= {"changed", "failed"}
    assert {answer.text for answer in answers if answer.word == "failed"} <= {"another deployment is at work here"}
    assert [host.do("look", bundle).word for bundle in bundles].count("unchanged") == 1

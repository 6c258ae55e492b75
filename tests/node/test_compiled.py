"""The compiled modules beside agent.pyz: used when they are this file's and nobody else could have written them."""

import marshal
import os
import subprocess
import sys

import pytest

from hpcproxy.node.build import build

from .harness import clean_environment


@pytest.fixture
def pyz(tmp_path):
    """An agent.pyz in a directory of its own."""
    path = tmp_path / "agent.pyz"
    path.write_bytes(build())
    return path


def run(pyz):
    """(exit code, stderr) of a start that only complains of its arguments."""
    words = [sys.executable, "-I", "-S", str(pyz), "nonsense"]
    done = subprocess.run(
        words,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        universal_newlines=True,
        env=clean_environment("/"),
        timeout=60,
        check=False,
    )
    return done.returncode, done.stderr.splitlines()[0]


PLAIN = (2, "hpcproxy agent: no command 'nonsense'")
CHANGED = (2, "hpcproxy agent: from what was kept")

ANOTHER = """import sys
def main(words):
    print('hpcproxy agent: from what was kept', file=sys.stderr)
    return 2
"""


def kept_of(pyz):
    return pyz.with_name("agent.{}.code".format(sys.implementation.cache_tag))


def change(pyz):
    """What is kept says something else from now on, so that its use shows."""
    kept = kept_of(pyz)
    key, codes = marshal.loads(kept.read_bytes())  # noqa: S302 - the test's own
    codes["hpcproxy_node.life.hold"] = marshal.dumps(compile(ANOTHER, "hold", "exec"))
    kept.write_bytes(marshal.dumps([key, codes]))
    return kept


def test_the_second_start_uses_what_the_first_has_compiled(pyz):
    assert run(pyz) == PLAIN
    assert kept_of(pyz).stat().st_mode & 0o777 == 0o600
    assert sorted(os.listdir(str(pyz.parent))) == sorted([kept_of(pyz).name, pyz.name])
    change(pyz)
    assert run(pyz) == CHANGED


def test_another_agent_pyz_is_compiled_anew(pyz):
    run(pyz)
    change(pyz)
    pyz.write_bytes(pyz.read_bytes() + b"\0")
    os.utime(str(pyz), (1, 1))
    assert run(pyz) == PLAIN
    change(pyz)
    assert run(pyz) == CHANGED, "and kept again"


@pytest.mark.parametrize("wrong", ["group", "link", "foreign", "half", "nothing"])
def test_what_somebody_else_could_have_written_or_is_half_written_is_not_used(pyz, wrong, tmp_path):
    if wrong == "foreign" and os.getuid() != 0:
        pytest.skip("needs root, to give a file to somebody else")
    run(pyz)
    kept = change(pyz)
    if wrong == "group":
        kept.chmod(0o620)
    elif wrong == "link":
        kept.rename(tmp_path / "elsewhere")
        kept.symlink_to(tmp_path / "elsewhere")
    elif wrong == "foreign":
        os.chown(str(kept), 12345, 12345)
    else:
        kept.write_bytes(kept.read_bytes()[: 5000 if wrong == "half" else 0])
    assert run(pyz) == PLAIN


def test_it_does_without_where_nothing_can_be_written(pyz):
    (pyz.parent / (kept_of(pyz).name + ".new")).mkdir()  # another node that is just writing; this one never ends
    assert run(pyz) == PLAIN
    assert not kept_of(pyz).exists()


def test_what_somebody_left_who_was_killed_over_it_is_cleared_away(pyz):
    draft = pyz.parent / (kept_of(pyz).name + ".new")
    draft.write_bytes(b"half")
    assert run(pyz) == PLAIN
    assert draft.exists(), "it may be at work"
    os.utime(str(draft), (1, 1))
    assert run(pyz) == PLAIN
    assert run(pyz) == PLAIN
    assert kept_of(pyz).exists()
    assert not draft.exists()

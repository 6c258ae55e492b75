"""What a job's user mounts over the state that root has given him holds nobody up and is gone with the job."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator

import pytest

from tests.templates.slurmd.supervising import ALICE, JOB, SOON_S, Node, made

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, as Prolog and Epilog do")
READY = "echo ready c1 jump; exec sleep 600"


@pytest.fixture
def node() -> Iterator[Node]:
    with made() as pid:
        there = Node(pid)
        yield there
        there.epilog(JOB)


def test_what_a_user_mounts_over_his_state_goes_with_it(node: Node) -> None:
    """A file system of his (FUSE), and another over that: to unmount the uppermost left the others in /run. (S13)"""
    node.way(READY)
    node.prolog()
    node.await_word("ready")
    for _ in range(3):
        node.call("mount", "-t", "tmpfs", "alices", f"/mnt/run/{JOB}.0")
    assert node.epilog() < SOON_S
    assert node.left() == []


# A file system of the user's own program (FUSE, where the admin lets it be for others too), which never answers.
SILENT = """
import ctypes, os, sys
fuse = os.open("/dev/fuse", os.O_RDWR)
options = "fd={},rootmode=40000,user_id={},group_id={},allow_other".format(fuse, *sys.argv[2:])
libc = ctypes.CDLL(None, use_errno=True)
if libc.mount(b"fuse", sys.argv[1].encode(), b"fuse", 0, options.encode()):
    sys.exit(os.strerror(ctypes.get_errno()))
print("mounted", flush=True)
sys.stdin.read()
"""


@pytest.mark.skipif(not os.access("/dev/fuse", os.W_OK), reason="this machine has no FUSE")
def test_a_file_system_of_the_users_that_never_answers_holds_no_epilog_up(node: Node) -> None:
    node.way(READY)
    node.prolog()
    node.await_word("ready")
    argv = node.command("/usr/bin/python3", "-c", SILENT, f"/mnt/run/{JOB}.0", str(ALICE), str(ALICE))
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as program:
        assert program.stdout is not None
        assert program.stdout.readline() == b"mounted\n"
        took = node.epilog()
        program.kill()
    assert took < SOON_S
    assert node.left() == []

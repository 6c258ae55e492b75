"""Only this job's user and root get through, and the kernel says who that is."""

import contextlib
import errno
import os
import shutil
import socket
import struct
import subprocess
import sys

import pytest

from hpcproxy.node.io import peer
from tests.node.harness import PORT, clean_environment, read_rest
from tests.waiting import until

NOBODY = 65534
SPY = """
import encodings.idna, os, socket, sys  # now: the other user may not read this Python's files
uid, address, port, data, how = sys.argv[1:]
uid, port, data = int(uid), int(port), bytes.fromhex(data)
if uid >= 0:
    os.setgid(uid)
    os.setuid(uid)
if how == "mapped":  # as Java does
    sock = socket.socket(socket.AF_INET6)
    sock.settimeout(5)
    sock.connect(("::ffff:" + address, port))
else:
    sock = socket.create_connection((address, port), 5)
sock.sendall(data)
if how == "quick":
    os._exit(0)
try:
    sys.stdout.write(sock.recv(100).hex())
except ConnectionResetError:
    pass
"""
DIALECTS = {
    "connect": b"CONNECT 127.0.0.1:%d HTTP/1.1\r\n\r\n",
    "absolute": b"GET http://127.0.0.1:%d/ HTTP/1.1\r\n\r\n",
    "socks5": b"\5\1\0",
    "socks4": b"\4\1\0\1\x7f\0\0\1\0",
    "silence": b"",
}
HAS_IPV6 = os.path.exists("/proc/net/tcp6")
with_ipv6 = pytest.mark.skipif(not HAS_IPV6, reason="no IPv6 in this kernel")
as_root = pytest.mark.skipif(os.getuid() != 0, reason="only root can be somebody else")


def spy(agent, data, uid=-1, how="", before=()):
    words = [*before, sys.executable, "-I", "-c", SPY, str(uid), agent.address, str(PORT), data.hex(), how]
    done = subprocess.run(words, stdout=subprocess.PIPE, env=clean_environment("/"), timeout=30, check=True)
    return bytes.fromhex(done.stdout.decode())


@as_root
@pytest.mark.parametrize("dialect", sorted(DIALECTS))
def test_another_user_gets_nothing(start_agent, far_end, dialect):
    server = far_end(lambda sock: sock.sendall(b"secret"))
    agent = start_agent()
    data = DIALECTS[dialect].replace(b"%d", str(server.port).encode())
    for _ in range(3):
        assert spy(agent, data, uid=NOBODY) == b""
    assert server.connections == 0
    assert agent.log().count("refused uid {}".format(NOBODY)) == 1
    until(lambda: agent.status().get("refused") == 3, "they are counted")


@as_root
def test_another_user_who_is_gone_before_the_kernel_is_asked(start_agent, far_end):
    server = far_end(lambda sock: None)
    agent = start_agent()
    data = DIALECTS["connect"].replace(b"%d", str(server.port).encode())
    # The agent stands still meanwhile: an orphaned socket shows uid 0, which must not be taken for root.
    os.kill(agent.worker_pid(), 19)
    try:
        for _ in range(3):
            spy(agent, data, uid=NOBODY, how="quick")
    finally:
        os.kill(agent.worker_pid(), 18)
    until(lambda: agent.status().get("refused") == 3, "they are refused")
    assert server.connections == 0
    assert "whose owner the kernel does not name" in agent.log()


@as_root
def test_a_service_for_another_uid(start_agent):
    agent = start_agent(uid=12345)
    assert spy(agent, b"\5\1\0", uid=12345) == b"\5\0"
    assert spy(agent, b"\5\1\0") == b"\5\0"  # root
    assert spy(agent, b"\5\1\0", uid=NOBODY) == b""


@with_ipv6
def test_a_socket_of_ipv6_that_is_mapped(start_agent):
    agent = start_agent()
    assert spy(agent, b"\5\1\0", how="mapped") == b"\5\0"
    if os.getuid() == 0:
        assert spy(agent, b"\5\1\0", uid=NOBODY, how="mapped") == b""
        assert "refused uid {}".format(NOBODY) in agent.log()


def test_the_user_inside_a_user_namespace(start_agent):
    unshare = shutil.which("unshare")
    probe = [unshare or "unshare", "--user", "--map-root-user", "true"]
    if not unshare or subprocess.run(probe, stderr=subprocess.DEVNULL, check=False).returncode:
        pytest.skip("this kernel lets us make no user namespace")
    agent = start_agent()
    assert spy(agent, b"\5\1\0", before=[unshare, "--user"]) == b"\5\0"
    assert spy(agent, b"\5\1\0", before=[unshare, "--user", "--map-root-user"]) == b"\5\0"


@contextlib.contextmanager
def pair(family=socket.AF_INET):
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(5)
        host, port = listener.getsockname()
        client = socket.socket(family)
        client.connect(("::ffff:" + host if family == socket.AF_INET6 else host, port))
        server, address = listener.accept()
        with client, server:
            yield client, server, address


FAMILIES = [socket.AF_INET, pytest.param(socket.AF_INET6, marks=with_ipv6)]


@pytest.mark.parametrize("family", FAMILIES)
def test_both_ways_of_asking_agree(family):
    peers = peer.Peers()
    with pair(family) as (client, server, address):
        assert peers.owner(address, server.getsockname()) == os.getuid()
        assert peer.owner_in_proc(address, server.getsockname()) == os.getuid()
        client.close()
        assert peers.owner(address, server.getsockname()) is None
        assert peer.owner_in_proc(address, server.getsockname()) is None
    assert peers.netlink is not None
    peers.close()


@as_root
@pytest.mark.parametrize("family", FAMILIES)
def test_both_ways_of_asking_name_another_user(family):
    peers = peer.Peers()
    os.seteuid(NOBODY)  # a socket belongs to who made it
    try:
        with pair(family) as (_, server, address):
            os.seteuid(0)
            assert peers.owner(address, server.getsockname()) == NOBODY
            assert peer.owner_in_proc(address, server.getsockname()) == NOBODY
    finally:
        os.seteuid(0)
    assert peers.netlink is not None
    peers.close()


def test_only_a_mapped_address_is_an_ipv4_address():
    plain, mapped = b"\x7f\0\0\1", b"\0" * 10 + b"\xff\xff\x7f\0\0\1"
    assert peer.ipv4_in(socket.AF_INET, plain + b"\0" * 12) == plain
    assert peer.ipv4_in(socket.AF_INET6, mapped) == plain
    assert peer.ipv4_in(socket.AF_INET6, b"\0" * 12 + plain) is None
    assert peer.ipv4_in(socket.AF_INET6, plain + b"\0" * 12) is None
    assert peer.ipv4_in(socket.AF_UNIX, mapped) is None


def test_a_listener_at_the_clients_address_is_not_the_client():
    peers = peer.Peers()
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(5)
        assert peers.owner(listener.getsockname(), ("127.0.0.1", 9)) is None
        assert peer.owner_in_proc(listener.getsockname(), ("127.0.0.1", 9)) is None
    peers.close()


def test_without_netlink_the_table_is_read(monkeypatch):
    peers = peer.Peers()
    peers.netlink.close()
    with pair() as (_, server, address):
        assert peers.owner(address, server.getsockname()) == os.getuid()
        assert peers.netlink is None


@pytest.mark.parametrize("reply", [b"", b"\0" * 10, b"\0" * 20, b"\xff" * 100, b"\0" * 200])
def test_a_reply_that_is_none_names_nobody(reply):
    assert peer.read_reply(reply, ("127.0.0.1", 1), ("127.0.0.1", 2)) is None


@pytest.mark.parametrize("code, serves", [(errno.ENOENT, True), (errno.ESRCH, True), (errno.EACCES, False)])
def test_a_kernel_that_knows_no_such_socket_has_answered_and_one_that_refuses_has_not(code, serves):
    reply = struct.pack("=IHHIIi", 36, peer.NLMSG_ERROR, 0, 1, 0, -code) + b"\0" * 16
    ends = ("127.0.0.1", 1), ("127.0.0.1", 2)
    if serves:
        assert peer.read_reply(reply, *ends) is None
    else:
        with pytest.raises(PermissionError):
            peer.read_reply(reply, *ends)


def test_a_table_that_cannot_be_read_names_nobody(tmp_path):
    none, broken, empty = (str(tmp_path / name) for name in ("none", "broken", "empty"))
    (tmp_path / "broken").write_text("0: 0100007F:0001 0100007F:0002 x\n")
    (tmp_path / "empty").write_text("")
    for tables in [(none, none), (broken, empty), (empty, none)]:
        assert peer.owner_in_proc(("127.0.0.1", 1), ("127.0.0.1", 2), tables) is None


def test_the_overflow_uid_is_nobody_in_a_namespace(monkeypatch):
    monkeypatch.setattr(peer, "sees_all_users", lambda: False)
    assert peer.who_may_pass(NOBODY) == {0}
    assert peer.who_may_pass(1000) == {0, 1000}
    monkeypatch.setattr(peer, "sees_all_users", lambda: True)
    assert peer.who_may_pass(NOBODY) == {0, NOBODY}


def test_the_socket_in_the_state_directory_is_the_users_alone(agent):
    assert sorted(os.listdir(str(agent.state))) == ["access.log", "ctl", "log", "pid", "status", "status.json"]
    assert os.stat(str(agent.state / "ctl")).st_mode & 0o077 == 0
    assert os.stat(str(agent.state)).st_mode & 0o777 == 0o700
    with agent.connect() as sock:
        sock.sendall(b"\5\1\xff")
        assert read_rest(sock) == b"\5\xff"

"""A client that has reset its connection is nobody, whoever has its address by the time the kernel is asked.

Bob sends a whole request and resets: what he sent can still be read, and his port is free for alice.
"""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest

from hpcproxy.node.io import peer
from hpcproxy.node.proxy.listener import bind
from tests.node.harness import PORT, clean_environment, random_loopback
from tests.waiting import until

BOB, ALICE = 65001, 65002
CLIENT = """
import os, socket, struct, sys
uid, address, port, mine, data, how = sys.argv[1:]
os.setgid(int(uid)); os.setuid(int(uid))
sock = socket.socket()
sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
sock.bind(("127.0.0.1", int(mine)))
if how == "reset":
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
sock.connect((address, int(port)))
sock.sendall(bytes.fromhex(data))
if how == "reset":
    sock.close()
print(flush=True)
sys.stdin.read()
"""
# As fast as it can, from the ports that the kernel gives out next: every second one of them (ip_local_port_range).
FLOOD = """
import socket, struct, sys, time, os
uid, address, port, data, seconds = sys.argv[1:]
os.setgid(int(uid)); os.setuid(int(uid))
data, end, sent = bytes.fromhex(data), time.monotonic() + float(seconds), 0
low, high = map(int, open("/proc/sys/net/ipv4/ip_local_port_range").read().split())
def shoot(mine):
    global sent
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setblocking(False)
        try:
            if mine:
                sock.bind(("127.0.0.1", mine))
            sock.connect_ex((address, int(port)))
            mine = sock.getsockname()[1]
            sock.send(data)
            sent += 1
        except OSError:
            pass
    return mine
print(flush=True)
while time.monotonic() < end:
    first = shoot(0)
    for ahead in range(2, 40, 2):
        shoot(low + (first + ahead - low) % (high - low))
print(sent)
"""

pytestmark = pytest.mark.skipif(os.getuid() != 0, reason="only root can be somebody else")


def start(program, *words):
    argv = [sys.executable, "-I", "-S", "-c", program, *map(str, words)]
    process = subprocess.Popen(
        argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=clean_environment("/"), universal_newlines=True
    )
    assert process.stdout.readline() == "\n"
    return process


@contextlib.contextmanager
def client(uid, where, mine, data, how=""):
    """Somebody who has connected from port `mine` and sent `data`; and reset it, or is still there."""
    process = start(CLIENT, uid, *where, mine, data.hex(), how)
    try:
        yield
    finally:
        process.communicate(timeout=20)


def request(server, word):
    head = "POST http://{}:{}/{} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    return head.format(server.host, server.port, word).encode()


def port_of_ours():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


@pytest.mark.parametrize("way", ["netlink", "table"])
def test_the_next_owner_of_the_address_is_not_the_sender(way):
    address, mine = random_loopback(64, 127), port_of_ours()
    peers = peer.Peers()
    if way == "table":
        peers.close()
    with bind(address, PORT) as listener:
        with client(BOB, (address, PORT), mine, b"bob's", "reset"), client(ALICE, (address, PORT), mine, b"hers"):
            first, address_of_first = listener.accept()
            second, address_of_second = listener.accept()
            with first, second:
                assert address_of_first == address_of_second == ("127.0.0.1", mine)
                assert first.recv(9, socket.MSG_PEEK) == b"bob's"
                assert peers.owner(address_of_first, first.getsockname()) == ALICE  # which is true, and no answer
                assert peers.client(first, address_of_first) is None
                assert peers.client(second, address_of_second) == ALICE
    assert (peers.netlink is None) == (way == "table")
    peers.close()


@pytest.mark.parametrize("way", ["netlink", "table"])
def test_who_is_not_connected_yet_is_nobody(way):
    peers = peer.Peers()
    if way == "table":
        peers.close()
    with socket.socket() as full, socket.socket() as first, socket.socket() as waiting:
        full.bind((random_loopback(64, 127), PORT))
        full.listen(0)
        first.connect(full.getsockname())
        waiting.setblocking(False)
        waiting.connect_ex(full.getsockname())  # no room: its SYN is dropped
        assert waiting.getsockopt(socket.IPPROTO_TCP, peer.TCP_INFO, 1)[0] == 2  # SYN_SENT
        assert peers.owner(first.getsockname(), full.getsockname()) == 0
        assert peers.owner(waiting.getsockname(), full.getsockname()) is None
    peers.close()


def test_a_client_that_has_ended_its_sending_is_still_there():
    address, peers = random_loopback(64, 127), peer.Peers()
    with bind(address, PORT) as listener, socket.create_connection((address, PORT)) as sock:
        sock.shutdown(socket.SHUT_WR)
        accepted, where = listener.accept()
        with accepted:
            assert accepted.recv(1) == b""
            assert peers.client(accepted, where) == 0
    peers.close()


def answer(seen):
    """A far end that notes the path of each request and answers it."""

    def serve(sock):
        seen.append(sock.recv(4096).split(b" ")[1])
        sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello")

    return serve


def test_an_agent_that_stands_still_serves_none_of_it(start_agent, far_end):
    seen = []
    server = far_end(answer(seen))
    agent = start_agent(uid=ALICE)
    mine, where = port_of_ours(), (agent.address, PORT)
    os.kill(agent.worker_pid(), signal.SIGSTOP)
    try:
        with client(BOB, where, mine, request(server, "bob"), "reset"):
            with client(ALICE, where, mine, request(server, "alice")):
                os.kill(agent.worker_pid(), signal.SIGCONT)
                until(lambda: b"/alice" in seen, "alice's request arrives")
                until(lambda: agent.status().get("refused"), "bob is refused")
    finally:
        os.kill(agent.worker_pid(), signal.SIGCONT)
    assert seen == [b"/alice"]


def test_predicted_ports_let_nobody_in_and_keep_nobody_out(start_agent, far_end):
    seen, failures, served = [], [], []
    server = far_end(answer(seen))
    agent = start_agent(uid=ALICE)
    bob = start(FLOOD, BOB, agent.address, PORT, request(server, "bob").hex(), 4)
    end = time.monotonic() + 4

    def ask():
        while time.monotonic() < end:
            try:
                reply = agent.ask(request(server, "alice"), 30)
            except OSError as error:
                reply = repr(error).encode()
            (served if reply.endswith(b"\r\n\r\nhello") else failures).append(reply)

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    sent = int(bob.communicate(timeout=30)[0])
    assert sent > 500
    assert seen.count(b"/bob") == 0
    assert failures == []
    assert seen.count(b"/alice") == len(served) > 20
